"""What comes before a training: a choice of size and steps for a budget, a search for the rate."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from gptwo.model.sizes import GPT2Config
from gptwo.progress import SILENT, Reporter
from gptwo.training.budgets.budget import choose_once
from gptwo.training.budgets.tune import SHARE_OF_RUN, refuse_named_rate, tune
from gptwo.training.config import TrainingConfig
from gptwo.training.loop import train
from gptwo.training.run import Sitting
from gptwo.world import here


@dataclass(frozen=True, kw_only=True)
class Asked:
    """What is to be found out first. `size` and `settings` are kept by a choice for `seconds`."""

    size: str = ""
    seconds: float = 0.0
    tune: bool = False
    settings: tuple[str, ...] = ()


def begin(
    config: TrainingConfig,
    model: GPT2Config,
    asked: Asked,
    *,
    tokens: Sequence[Path],
    tokenizer: Path,
    out: Path,
    sitting: Sitting,
    reporter: Reporter = SILENT,
) -> Path:
    """Train as `config` and `model` say, or as was chosen instead. Returns the last checkpoint.

    Everything found out is kept under `out`, so that the same call goes on.
    """
    if asked.tune:
        refuse_named_rate(asked.settings)
    if asked.seconds:
        choice = choose_once(
            out,
            asked.seconds / (1 + SHARE_OF_RUN if asked.tune else 1),
            tokens=tokens,
            world=here(),
            size=asked.size,
            settings=asked.settings,
            reporter=reporter,
        )
        config, model = choice.training, choice.model
        sitting = replace(sitting, seconds=choice.seconds)
    if asked.tune:
        config = tune(
            config,
            model,
            tokens=tokens,
            tokenizer=tokenizer,
            out=out,
            accept_changes=sitting.accept_changes,
            reporter=reporter,
        )
    return train(
        config,
        model,
        tokens=tokens,
        tokenizer=tokenizer,
        out=out,
        sitting=sitting,
        reporter=reporter,
    )
