"""What a model can be asked to continue."""

from collections.abc import Sequence

from gptwo.errors import UsageError
from gptwo.text.config import SampleConfig


def check_prompt(
    ids: Sequence[int], config: SampleConfig, n_ctx: int, eot: int, *, draws: bool = True
) -> None:
    """Refuse what the model cannot read or `config` does not allow; raises `UsageError`."""
    if len(ids) > n_ctx:
        raise UsageError(
            f"the prompt has {len(ids):,} tokens, the model reads {n_ctx:,}",
            remedy="shorten the prompt",
        )
    wanted = config.max_tokens if draws else 0
    if config.when_full == "refuse" and len(ids or [eot]) + wanted > n_ctx:
        raise UsageError(
            f"the prompt's {len(ids):,} tokens and max_tokens = {config.max_tokens:,} are more "
            f"than the {n_ctx:,} that the model reads",
            remedy="ask for fewer tokens, or let the context slide with --when-full slide",
        )
    wrong = [i for i in (*ids, *(token for token, _ in config.logit_bias)) if not 0 <= i <= eot]
    if wrong:
        raise UsageError(
            f"token {wrong[0]} is not in the vocabulary of {eot + 1:,}",
            remedy="use ids of the model's own tokenizer",
        )
