"""Perplexity of a text: what WikiText-2, PTB and One Billion Words have in common.

The probability of the text's BPE tokens is divided by the units of the ORIGINAL file, its words and
one <eos> per line, so that models with other tokens can be compared (paper section 3.1).
"""

import io
import math
from collections.abc import Sequence
from itertools import groupby
from typing import Any

from gptwo.records import Interval
from gptwo.zeroshot.baselines import compressed_bits_per_byte
from gptwo.zeroshot.detokenize import Rules, detokenize
from gptwo.zeroshot.intervals import bootstrap, perplexity
from gptwo.zeroshot.score import Score
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench, Example, Record, Summary, Task, scored

BLOCK_TOKENS = 1024  # the bootstrap draws stretches of text, not single windows


def running_text(file: DataFile, rules: Rules, artefacts: str, *, shuffled: bool = False) -> Task:
    """The task of scoring `file` as it is and de-tokenised; `artefacts` says what is undone.

    The lines of a `shuffled` file do not follow each other: each is scored alone, its end included.
    """
    streams = "every line alone, its end too" if shuffled else "the whole text as one stream"

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "scored": f"{streams}, as it is (raw) and de-tokenised",
            "detokeniser": artefacts,
            "unit": "words between white space and one <eos> per line of the original file",
            "limit": bench.limit_protocol("lines"),
            **bench.windows_protocol(),
        }

    def data(bench: Bench) -> dict[str, Any]:
        text = _text(file, bench)
        lines = text.count("\n")
        return {
            **file.describe(),
            "lines": lines,
            "units": len(text.split()) + lines,
            "text_bytes": len(text.encode()),
        }

    def examples(bench: Bench) -> list[Example]:
        original = _text(file, bench)
        texts = {"detokenised": detokenize(original, rules)[0], "raw": original}
        return [
            Example(requests=[window], facts={"text": name})
            for name, text in texts.items()
            for part in (lines_of(text) if shuffled else [text])
            for window in bench.windows(part)
        ]

    def summary(records: list[Record], bench: Bench) -> Summary:
        facts = data(bench)
        units = {"perplexity": facts["units"], "bits_per_byte": facts["text_bytes"]}
        metrics: dict[str, float] = {}
        intervals: dict[str, Interval] = {}
        for name, prefix in (("detokenised", ""), ("raw", "raw_")):
            windows = [record for record in records if record["text"] == name]
            values, spread = measures(windows, units, bench)
            metrics |= {prefix + metric: value for metric, value in values.items()}
            intervals |= {prefix + metric: value for metric, value in spread.items()}
        return {**metrics, "units": float(facts["units"])}, intervals

    def baselines(examples: list[Example], bench: Bench) -> dict[str, dict[str, float]]:
        return {"xz": {"raw_bits_per_byte": compressed_bits_per_byte(_text(file, bench).encode())}}

    return Task(
        protocol=protocol,
        data=data,
        examples=examples,
        solve=scored(window_record),
        summary=summary,
        baselines=baselines,
    )


def window_record(example: Example, scores: list[Score]) -> Record:
    nats = -sum(score.logprob for score in scores)
    tokens = sum(len(score.token_logprobs) for score in scores)
    return {**example.facts, "tokens": tokens, "nats": nats}


def _text(file: DataFile, bench: Bench) -> str:
    text = bench.sources.read(file).decode("utf-8")
    if bench.config.limit:
        text = "".join(lines_of(text)[: bench.config.limit])
    return text


def lines_of(text: str) -> list[str]:
    """Its lines with their ends; unlike `splitlines`, only a line feed ends one."""
    return list(io.StringIO(text, newline="\n"))


def measures(windows: Sequence[Record], units: dict[str, int], bench: Bench) -> Summary:
    """Each metric's value and interval, by what its number of units is: bits or perplexities.

    The perplexity per token and the number of tokens come with them.
    """
    blocks = _blocks(windows)
    nats, tokens = [block[0] for block in blocks], [block[1] for block in blocks]
    total, count = sum(nats), sum(tokens)
    metrics: dict[str, float] = {}
    intervals: dict[str, Interval] = {}
    for name, number in {**units, "token_perplexity": count}.items():

        def finish(nats_per_token: float, name: str = name, number: int = number) -> float:
            rate = nats_per_token * count / number
            return rate / math.log(2) if name.startswith("bits") else perplexity(rate)

        metrics[name] = finish(total / count)
        intervals[name] = bootstrap(
            nats, tokens, finish, resamples=bench.config.resamples, seed=bench.config.seed
        )
    return {**metrics, "tokens": float(count)}, intervals


def _blocks(windows: Sequence[Record]) -> list[tuple[float, int]]:
    """(nats, tokens) of stretches of about BLOCK_TOKENS."""
    numbered, before = [], 0
    for window in windows:
        numbered.append((before // BLOCK_TOKENS, window))
        before += window["tokens"]
    blocks = []
    for _, group in groupby(numbered, key=lambda pair: pair[0]):
        members = [window for _, window in group]
        blocks.append((sum(w["nats"] for w in members), sum(w["tokens"] for w in members)))
    return blocks
