"""A sample of text at each held-out loss of a training, to see what the model has learned by then.

It goes to `samples.jsonl` beside the metrics and is the same on every run: its draws have a seed
of their own and take nothing from the training's.
"""

import json
from collections.abc import Callable, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from gptwo.artifacts import atomic_write
from gptwo.errors import ModelError
from gptwo.model.gpt2 import GPT2
from gptwo.text.config import SampleConfig
from gptwo.text.samples import complete
from gptwo.tokens.tokenizer import Tokenizer

FILE = "samples.jsonl"
SAMPLING = SampleConfig(max_tokens=64, temperature=0.8, top_k=40)

Tell = Callable[[int, str, str], None]  # step, name, text


def keep_to_itself(step: int, name: str, text: str) -> None:
    """Nobody else is told of a sample."""


def sampler(
    tokenizer: Path,
    out: Path,
    prompts: Sequence[str] = ("",),
    config: SampleConfig = SAMPLING,
    tell: Tell = keep_to_itself,
) -> Callable[[GPT2, int], None]:
    """What `train` takes as `at_validation`: continues each prompt into `out`/samples.jsonl.

    A line is {"step", "prompt", "text", "tokens"}. Lines of the same or a later step, from before
    a resume, are replaced. `tell` is told each text too: `Trackers.text`.
    """
    vocabulary = Tokenizer.load(tokenizer)
    return partial(_sample, vocabulary, out / FILE, tuple(prompts), config, tell)


def _sample(
    tokenizer: Tokenizer,
    path: Path,
    prompts: tuple[str, ...],
    config: SampleConfig,
    tell: Tell,
    model: GPT2,
    step: int,
) -> None:
    n_ctx = model.config.n_ctx
    config = replace(config, max_tokens=min(config.max_tokens, n_ctx))
    asked = [(_beginning(prompt, tokenizer, n_ctx), config) for prompt in prompts]
    was_training = model.training
    model.eval()  # no dropout, which would draw from the training's numbers
    try:
        found = dict(complete(model, tokenizer, asked))
    except ModelError:  # scores that are not finite: the loop has its own word on that
        return
    finally:
        model.train(was_training)
    lines = [line for line in _lines(path) if line["step"] < step]
    for _, sample in sorted(found.items()):
        lines.append(
            {"step": step, "prompt": sample.prompt, "text": sample.text, "tokens": sample.tokens}
        )
        tell(step, "sample", sample.prompt + sample.text)
    with atomic_write(path, "w") as handle:
        handle.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)


def _beginning(prompt: str, tokenizer: Tokenizer, n_ctx: int) -> str:
    """As much of a prompt as fits, whole characters only, as the model reads it."""
    while len(ids := tokenizer.encode(prompt)) > n_ctx:
        prompt = prompt[: len(prompt) // 2]
    return tokenizer.decode(ids)


def _lines(path: Path) -> list[dict[str, Any]]:
    """What is whole of the file."""
    found = []
    for text in path.read_text("utf-8", "replace").splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
            found += [line] if isinstance(line["step"], int) else []
        except (ValueError, LookupError, TypeError):
            continue
    return found
