"""Two models on the same examples: what the second gains, and whether it is more than chance.

Examples are matched by what they ask, one by one, so that hard and easy ones cancel out. Shares of
right answers are compared by McNemar's exact test and Agresti and Min's interval (2005); averages,
perplexities, bits and BLEU by the paired bootstrap, of whole texts where one has several answers.
"""

import json
import math
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import differences, read_json
from gptwo.errors import DataError
from gptwo.report.reading import DAMAGE, is_number, told
from gptwo.streams import decompressed

Record = dict[str, Any]
RESAMPLES = 2000
SEED = 0
Z = 1.959963984540054  # 97.5% quantile of the normal distribution
IDENTITY = ("id", "document", "split", "kind", "query", "question", "target", "options", "gold",
            "source", "reference", "text")  # fmt: skip
ALSO_CALLED = {"accuracy": "right"}
PARTS = ("split", "kind", "text")  # fields that name the part of a set that a metric is of
MAIN_TEXT = "detokenised"
WINDOW = {"text", "tokens", "nats"}  # all that a record of a stretch of running text holds
STRETCH_TOKENS = 1024  # windows of one text are drawn in stretches


class Refused(Exception):  # noqa: N818 - the two cannot be compared, nothing is wrong
    """Why not."""


@dataclass(frozen=True)
class Measure:
    """A metric of both models, which is `finish(sum of sums, sum of counts)`.

    Sums are of each example, one number or a row of them; counts are its answers or units; `order`
    is what each example is judged by, higher being better. `is_share` says that sums are 0 or 1.
    """

    sums: tuple[np.ndarray, np.ndarray]
    counts: np.ndarray
    finish: Callable[[Any, float], float]
    order: tuple[np.ndarray, np.ndarray]
    is_share: bool = False


def compare_pair(first: Path, second: Path) -> dict[str, Any]:
    """What the run `second` gains over `first` on each task that both have scored.

    Returns plain values: `rows`, one for each task and metric, `task metric n first second
    difference low high p wins losses ties`, difference being second minus first and wins the
    examples on which the second does better; and `refused`, task -> why it is not compared: another
    protocol, other data, or samples that are gone.
    """
    rows: list[dict[str, Any]] = []
    refused: dict[str, str] = {}
    names = [{p.stem for p in (run / "scores").glob("*.json")} for run in (first, second)]
    for task in sorted(names[0] & names[1]):
        try:
            found = [_open(run / "scores", task) for run in (first, second)]
            rows += _rows(task, *found)
        except Refused as why:
            refused[task] = str(why)
        except DAMAGE as error:
            refused[task] = told(error)
    return {"rows": rows, "refused": refused}


def _open(scores: Path, task: str) -> tuple[dict[str, Any], list[Record]]:
    result = read_json(scores / f"{task}.json")
    path = scores / f"{task}.samples.jsonl.zst"
    if not path.exists():
        raise DataError(f"{path} is missing", remedy="run gptwo eval again")
    with decompressed(path) as lines:
        return result, [json.loads(line) for line in lines][1:]  # the first says whose they are


def _rows(
    task: str,
    first: tuple[dict[str, Any], list[Record]],
    second: tuple[dict[str, Any], list[Record]],
) -> list[dict[str, Any]]:
    results = first[0], second[0]
    old, new = ({k: r[k] for k in ("protocol", "data")} for r in results)
    if changed := differences(old, new):
        raise Refused(f"the runs differ in {'; '.join(changed[:3])}")
    pairs = matched(first[1], second[1], [r["model"] for r in results])
    rows = []
    for metric in results[0]["intervals"]:
        values = [result["metrics"].get(metric) for result in results]
        found = _measure(metric, values, pairs) if all(map(is_number, values)) else None
        if found:
            rows.append({"task": task, "metric": metric, **judged(found)})
    return rows


def matched(
    first: Sequence[Record], second: Sequence[Record], models: Sequence[dict[str, Any]] = ({}, {})
) -> list[tuple[Record, Record]]:
    """Records of the same examples, in the order of the first; `Refused` where they are not."""
    windows = bool(first) and set(first[0]) <= WINDOW
    tokenizers = {str(model.get("tokenizer_fingerprint")) for model in models}
    if windows and len(tokenizers) > 1:
        raise Refused("their tokenizers differ, so that a window of one is no window of the other")
    keyed = [_keyed(records) for records in (first, second)]
    alone = len(keyed[0].keys() ^ keyed[1].keys())
    if alone or not first:
        raise Refused(f"{alone:,} examples are in one of them alone, {len(first):,} in the first")
    return [(record, keyed[1][key]) for key, record in keyed[0].items()]


def _keyed(records: Sequence[Record]) -> dict[tuple[str, int], Record]:
    """Records by what they ask; examples that ask the same are told apart by their order."""
    seen: Counter[str] = Counter()
    found = {}
    for record in records:
        asked = json.dumps([record.get(name) for name in IDENTITY])
        found[asked, seen[asked]] = record
        seen[asked] += 1
    return found


def _measure(
    metric: str, values: Sequence[float], pairs: list[tuple[Record, Record]]
) -> Measure | None:
    """The metric's numbers for each example; None where the samples do not hold them."""
    pairs, name = _part(metric, pairs)
    name = name if name in pairs[0][0] else ALSO_CALLED.get(name, name)
    if name in pairs[0][0]:
        kept = [[np.atleast_1d(pair[i][name]).astype(float) for pair in pairs] for i in (0, 1)]
        counts = np.array([len(value) for value in kept[0]], float)
        first, second = (np.array([value.sum() for value in side]) for side in kept)
        share = isinstance(pairs[0][0][name], bool)
        means = first / counts, second / counts
        return Measure((first, second), counts, _mean, order=means, is_share=share)
    if name == "bleu":
        return _bleu(pairs)
    is_rate = "perplexity" in name or name.startswith("bits_per")
    if not is_rate or "nats" not in pairs[0][0]:
        return None
    first, second = _stretches(pairs)
    scale = math.log(2) if name.startswith("bits_per") else 1.0
    rates = [v * scale if scale != 1 else math.log(v) for v in values]
    units = [float(side.sum()) / rate for side, rate in zip((first, second), rates, strict=True)]
    if min(map(abs, units)) <= 0 or abs(units[0] / units[1] - 1) > 1e-3:
        return None  # of other units: per token of another tokenizer
    counts = np.full(len(first), units[0] / len(first))

    def finish(nats: float, number: float) -> float:
        return nats / number / scale if scale != 1 else math.exp(min(nats / number, 700))

    return Measure((first, second), counts, finish, order=(-first, -second))


def _mean(total: float, number: float) -> float:
    return float(total / number)


def _bleu(pairs: list[tuple[Record, Record]]) -> Measure | None:
    """BLEU of a corpus from the counts of its sentences; None without sacrebleu."""
    try:
        from sacrebleu.metrics.bleu import BLEU
    except ImportError:
        return None
    bleu, sides, scores = BLEU(effective_order=True), [], []  # of sentences too short for 4-grams
    for i in (0, 1):
        found = [
            bleu.sentence_score(pair[i]["translation"], [pair[i]["reference"]]) for pair in pairs
        ]
        rows = [[f.sys_len, f.ref_len, *f.counts, *f.totals] for f in found]
        sides.append(np.array(rows, float))
        scores.append(np.array([f.score for f in found]))

    def finish(total: np.ndarray, number: float) -> float:
        sys_len, ref_len, *counts = (int(value) for value in total)
        matches, ngrams = counts[:4], counts[4:]
        return BLEU.compute_bleu(matches, ngrams, sys_len, ref_len, smooth_method="exp").score

    return Measure((sides[0], sides[1]), np.ones(len(pairs)), finish, (scores[0], scores[1]))


def _part(
    metric: str, pairs: list[tuple[Record, Record]]
) -> tuple[list[tuple[Record, Record]], str]:
    """The pairs that a metric is of, and its name among them: raw_perplexity is of the raw text."""
    for field in PARTS:
        for value in {str(pair[0].get(field)) for pair in pairs}:
            if metric.startswith(f"{value}_"):
                part = [pair for pair in pairs if str(pair[0].get(field)) == value]
                return part, metric.removeprefix(f"{value}_")
    main = [pair for pair in pairs if pair[0].get("text") == MAIN_TEXT]
    return main or pairs, metric


def _stretches(pairs: list[tuple[Record, Record]]) -> tuple[np.ndarray, np.ndarray]:
    """Nats of both, windows that follow each other in a text added up to stretches."""
    if not set(pairs[0][0]) <= WINDOW:
        return tuple(np.array([pair[i]["nats"] for pair in pairs], float) for i in (0, 1))  # type: ignore[return-value]
    places = np.cumsum([0, *(pair[0]["tokens"] for pair in pairs)])[:-1] // STRETCH_TOKENS
    groups = [list(g) for _, g in groupby(range(len(pairs)), key=lambda i: places[i])]
    sides = (
        np.array([sum(pairs[k][i]["nats"] for k in group) for group in groups], float)
        for i in (0, 1)
    )
    return next(sides), next(sides)


def judged(found: Measure) -> dict[str, Any]:
    """Both values, their difference with its 95% interval and p, and on how many each is better."""
    first, second = found.sums
    total = float(found.counts.sum())
    better = found.order[1] - found.order[0]
    wins, losses = int((better > 1e-12).sum()), int((better < -1e-12).sum())
    values = found.finish(first.sum(axis=0), total), found.finish(second.sum(axis=0), total)
    if found.is_share:
        low, high = share_interval(wins, losses, len(first))
        p = mcnemar(wins, losses)
    else:
        low, high, p = bootstrap_difference(found)
    return {
        "n": len(first),
        "first": values[0],
        "second": values[1],
        "difference": values[1] - values[0],
        "low": low,
        "high": high,
        "p": p,
        "wins": wins,
        "losses": losses,
        "ties": len(first) - wins - losses,
    }


def mcnemar(wins: int, losses: int) -> float:
    """The two-sided exact p of so many examples that only one of the two got right.

    >>> mcnemar(9, 1)
    0.021484375
    """
    n, fewer = wins + losses, min(wins, losses)
    tail = sum(math.comb(n, k) for k in range(fewer + 1))
    return min(1.0, 2 * tail / 2**n)


def share_interval(wins: int, losses: int, n: int) -> tuple[float, float]:
    """Agresti and Min's 95% interval of a difference of paired shares: half an example to each."""
    b, c, m = wins + 0.5, losses + 0.5, n + 2
    middle = (b - c) / m
    half = Z * math.sqrt(max((b + c) - (b - c) ** 2 / m, 0)) / m
    return max(middle - half, -1.0), min(middle + half, 1.0)


def bootstrap_difference(found: Measure) -> tuple[float, float, float]:
    """95% interval and two-sided p of the difference when examples are drawn anew together."""
    generator = np.random.default_rng(SEED)
    first, second = found.sums
    drawn = []
    for _ in range(RESAMPLES):
        chosen = generator.integers(len(first), size=len(first))
        units = float(found.counts[chosen].sum())
        values = [found.finish(side[chosen].sum(axis=0), units) for side in (first, second)]
        drawn.append(values[1] - values[0])
    low, high = np.quantile(drawn, [0.025, 0.975])
    below, above = (np.array(drawn) <= 0).sum(), (np.array(drawn) >= 0).sum()
    return float(low), float(high), min(1.0, 2 * (min(below, above) + 1) / (RESAMPLES + 1))


def lines_of(pairs: Sequence[dict[str, Any]]) -> str:
    """Comparisons as lines for a terminal."""
    form = "{:<16} {:<32} {:>8} {:>10} {:>10} {:>11}  {:<24} {:>8} {:>7} {:>7}"
    head = ("task", "metric", "n", "first", "second", "difference", "95% interval", "p")
    lines = []
    for pair in pairs:
        lines += ["", f"{pair['second']} against {pair['first']}"]
        lines.append(form.format(*head, "better", "worse"))
        for row in pair["rows"]:
            numbers = (f"{row[k]:.4g}" for k in ("first", "second", "difference"))
            interval = f"{row['low']:.4g} to {row['high']:.4g}"
            counts = (f"{row['p']:.2g}", row["wins"], row["losses"])
            lines.append(
                form.format(row["task"], row["metric"], row["n"], *numbers, interval, *counts)
            )
        lines += [f"{task}: not compared: {why}" for task, why in pair["refused"].items()]
    return "\n".join(lines)
