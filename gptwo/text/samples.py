"""Continuations of prompts: several at once, printed, written to a file, or asked for in turn."""

import json
import sys
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from gptwo.artifacts import Manifest, atomic_write, stage
from gptwo.errors import Interrupted, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
from gptwo.text.engine import Engine, Text
from gptwo.text.generate import Held, stream
from gptwo.tokens.tokenizer import Tokenizer

ROWS = 32  # texts at once


@dataclass(frozen=True, kw_only=True)
class Completion:
    """A text that has ended: `tokens` were drawn for it; `finish` is "stop" or "length"."""

    prompt: str
    text: str
    seed: int
    tokens: int
    finish: str
    logprobs: list[dict[str, Any]]

    def line(self) -> dict[str, Any]:
        """As an object of JSON, without log-probabilities where none were asked for."""
        values = asdict(self)
        return values if self.logprobs else {k: v for k, v in values.items() if k != "logprobs"}


def complete(
    model: GPT2,
    tokenizer: Tokenizer,
    asked: Iterable[tuple[str | Sequence[int], SampleConfig]],
    reporter: Reporter = SILENT,
) -> Iterator[tuple[int, Completion]]:
    """Continue (prompt, settings) pairs together; yields (place in `asked`, text) as each ends.

    A prompt is text or the tokens of one.

    Raises `UsageError` for a prompt that does not fit, before anything is drawn.
    """
    asked = list(asked)
    prompts = [tokenizer.encode(p) if isinstance(p, str) else list(p) for p, _ in asked]
    longest = max(
        (len(p) + c.max_tokens for p, (_, c) in zip(prompts, asked, strict=True)), default=0
    )
    engine = Engine(model, eot=tokenizer.eot, rows=min(ROWS, len(asked)), length=longest + 1)
    places: dict[Text, int] = {}
    for i, (_, config) in enumerate(asked):
        places[engine.submit(prompts[i], config)] = i
    return _complete(engine, tokenizer, asked, places, reporter)


def _complete(
    engine: Engine,
    tokenizer: Tokenizer,
    asked: Sequence[tuple[str | Sequence[int], SampleConfig]],
    places: dict[Text, int],
    reporter: Reporter,
) -> Iterator[tuple[int, Completion]]:
    held = {text: Held(text.config.stop) for text in places}
    said: dict[Text, str] = dict.fromkeys(places, "")
    known = dict.fromkeys(places, 0)  # tokens whose bytes were taken
    while held:
        reporter.check()
        for text in engine.step():
            for token in text.ids[known[text] :]:
                said[text] += held[text].push(tokenizer.token_bytes(token))
            known[text] = len(text.ids)
            stopped = held[text].stopped
            if stopped and not text.finish:
                engine.cancel(text)
            if stopped or text.finish:
                said[text] += held.pop(text).end()
                prompt, config = asked[places[text]]
                yield (
                    places[text],
                    Completion(
                        prompt=prompt if isinstance(prompt, str) else tokenizer.decode(prompt),
                        text=said.pop(text),
                        seed=config.seed,
                        tokens=len(text.ids),
                        finish="stop" if stopped else text.finish,
                        logprobs=_told(text, tokenizer),
                    ),
                )


def _told(text: Text, tokenizer: Tokenizer) -> list[dict[str, Any]]:
    """Log-probabilities for people: each token by its text, which may be part of a character."""

    def named(token: int, logprob: float) -> dict[str, Any]:
        spelt = tokenizer.token_bytes(token).decode("utf-8", "replace")
        return {"id": token, "token": spelt, "logprob": logprob}

    return [
        named(token, logprob) | {"top": [named(*pair) for pair in best]}
        for token, (logprob, best) in zip(text.ids, text.logprobs, strict=False)
    ]


def seeds(prompt: str, config: SampleConfig, n: int) -> list[tuple[str, SampleConfig]]:
    """`n` continuations of a prompt, each with a seed of its own: seed, seed + 1, ..."""
    return [(prompt, replace(config, seed=config.seed + i)) for i in range(n)]


def write_samples(
    model: GPT2,
    tokenizer: Tokenizer,
    prompts: list[str],
    out: Path,
    config: SampleConfig,
    *,
    n: int,
    inputs: dict[str, str],
    reporter: Reporter = SILENT,
) -> Manifest:
    """`n` continuations of each prompt into out/samples.jsonl; kind "samples"."""
    settings = {**asdict(config), "prompts": prompts, "n": n}
    with stage(out, kind="samples", config=settings, inputs=inputs) as made:
        if made.done:
            return made.done
        asked = [pair for prompt in prompts for pair in seeds(prompt, config, n)]
        found: dict[int, Completion] = {}
        with reporter.bar("samples", len(asked), "texts") as bar:
            for place, completion in complete(model, tokenizer, asked, reporter):
                found[place] = completion
                bar.advance()
        lines = [found[place].line() for place in range(len(asked))]
        with atomic_write(made.folder / "samples.jsonl", "w") as handle:
            handle.writelines(json.dumps(line, ensure_ascii=False) + "\n" for line in lines)
        return made.commit(counts={"samples": len(lines)})


def print_samples(
    model: GPT2,
    tokenizer: Tokenizer,
    prompt: str,
    config: SampleConfig,
    *,
    n: int,
    as_json: bool,
    streamed: bool = True,
    reporter: Reporter,
) -> None:
    """Continuations to stdout: one is streamed, several come in the order of their seeds.

    With `as_json` one object a line. Speed goes to stderr.
    """
    if n < 1:
        raise UsageError(f"n must be at least 1, found {n}", remedy="ask for one or more")
    prompt = tokenizer.decode(tokenizer.encode(prompt))  # as the model reads it: always printable
    started = time.monotonic()
    if n == 1 and streamed and not as_json:
        tokens = _print_streaming(model, tokenizer, prompt, config, reporter)
    else:
        tokens = 0
        for own in _in_order(complete(model, tokenizer, seeds(prompt, config, n), reporter)):
            heading = f"=== seed {own.seed}\n" if n > 1 else ""
            line = json.dumps(own.line(), ensure_ascii=False)
            _print((line if as_json else heading + prompt + own.text) + "\n")
            tokens += own.tokens
    seconds = max(time.monotonic() - started, 1e-9)
    reporter.say(f"{tokens} tokens in {seconds:.1f}s, {tokens / seconds:,.0f} tokens/s")


def _in_order(found: Iterable[tuple[int, Completion]]) -> Iterator[Completion]:
    """By place, each as soon as those before it have come."""
    early: dict[int, Completion] = {}
    following = 0
    for place, completion in found:
        early[place] = completion
        while following in early:
            yield early.pop(following)
            following += 1


def _print_streaming(
    model: GPT2, tokenizer: Tokenizer, prompt: str, config: SampleConfig, reporter: Reporter
) -> int:
    """Prompt and continuation as it comes; returns the number of tokens of the continuation."""
    pieces = stream(model, tokenizer, prompt, config)
    _print(prompt)
    text = ""
    for piece in pieces:
        reporter.check()
        text += piece
        _print(piece)
    _print("\n")
    return len(tokenizer.encode(text))


def _print(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def converse(
    model: GPT2,
    tokenizer: Tokenizer,
    config: SampleConfig,
    *,
    ask: Callable[[], str],
    reporter: Reporter,
) -> None:
    """Prompts line by line until the end of the input; a signal stops the text, not the program.

    `ask` returns a line, or raises EOFError when there are no more and KeyboardInterrupt when the
    line is given up. Each text has the next seed, so that the same prompt gives another one.
    """
    while True:
        try:
            prompt = ask()
        except EOFError:
            return _print("\n")
        except KeyboardInterrupt:
            _print("\n")
            continue
        try:
            print_samples(model, tokenizer, prompt, config, n=1, as_json=False, reporter=reporter)
        except Interrupted:
            reporter.stop_requested = False
            _print("\n")
        except UsageError as error:
            reporter.say(f"{error.message} ({error.remedy})")
        config = replace(config, seed=config.seed + 1)
