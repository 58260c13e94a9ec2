"""Numbers as people read them."""

import json
import math
from typing import Any

from gptwo.report.published import parameters_of

TASKS = {  # in the order of the page: title, and what is asked
    "lambada": ("LAMBADA", "the last word of a passage that needs more than its last sentence"),
    "wikitext2": ("WikiText-2", "perplexity of Wikipedia articles, per word of the original file"),
    "wikitext103": ("WikiText-103", "the same text, as the paper reports it"),
    "ptb": ("Penn Treebank", "perplexity of newspaper text, per word of the original file"),
    "enwik8": ("enwik8", "bits per byte of Wikipedia's XML"),
    "text8": ("text8", "bits per character of Wikipedia in 27 characters"),
    "wsc273": ("Winograd schemas", "which of two candidates a pronoun means"),
    "coqa": ("CoQA", "questions about a text, in conversation"),
    "cnn-dailymail": ("CNN/Daily Mail", "summaries that TL;DR: asks for"),
    "wmt14-en-fr": ("WMT14 English-French", "translation that example pairs ask for"),
    "wmt14-fr-en": ("WMT14 French-English", "translation that example pairs ask for"),
    "nq": ("Natural Questions", "questions of knowledge, without a text"),
    "cbt-cn": ("Children's Book Test, common nouns", "which of ten words stands in the gap"),
    "cbt-ne": ("Children's Book Test, named entities", "which of ten names stands in the gap"),
    "1bw": ("One Billion Words", "perplexity of news sentences in random order, per word"),
    "hellaswag": ("HellaSwag", "which of four endings goes on from a beginning; not in the paper"),
    "cloze": (
        "Cloze",
        "which of ten words stands in the gap of the 21st sentence, after the Children's Book "
        "Test; made from held-out documents",
    ),
    "lastword": (
        "Last word",
        "the last word of a passage, after LAMBADA; made from held-out documents",
    ),
    "heldout": ("Held-out text", "perplexity of documents that were trained on and of others"),
    "translate": ("Translations in the text", "which gloss a foreign term is given"),
    "summarise": ("Headlines in the text", "which headline stands over a story"),
    "answer": ("Answers in the text", "which answer follows a question"),
}
ALIASES = {"small": "117M", "medium": "345M", "large": "762M", "xl": "1542M"}


def number(value: Any) -> str:
    """`number(1234567) == "1,234,567"`; a dash for what is not a number."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    return f"{value:,}" if isinstance(value, int) else f"{value:,.4g}"


def compact(value: Any) -> str:
    """`compact(2_615_808) == "2.62M"`, three digits."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, "T"), (1e9, "B"), (1e6, "M"), (1e4, "k")):
        if abs(value) >= 0.9995 * size:
            scaled = value / (1e3 if unit == "k" else size)
            return f"{scaled:.3g}{unit}" if abs(scaled) < 999.5 else f"{scaled:,.0f}{unit}"
    return f"{value:,.0f}" if float(value).is_integer() else f"{value:.3g}"


def size_of(value: Any) -> str:
    """`size_of(1_500_000) == "1.5 MB"`"""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    for size, unit in ((1e12, "TB"), (1e9, "GB"), (1e6, "MB"), (1e3, "kB")):
        if value >= size:
            return f"{value / size:.3g} {unit}"
    return f"{value:,.0f} bytes"


def percent(part: Any, whole: Any = 1) -> str:
    """`percent(1, 3) == "33.3%"`"""
    if not isinstance(part, int | float) or not whole or not math.isfinite(part / whole):
        return "–"
    share = part / whole
    return f"{share:.0%}" if share in (0, 1) else f"{share:.1%}"


def is_share(metric: str) -> bool:
    """Whether a metric lies between 0 and 1."""
    return any(
        word in metric
        for word in ("accuracy", "precision", "recall", "f1", "match", "share", "cut_")
    )


def metric_value(metric: str, value: Any) -> str:
    """A score with the digits that mean something."""
    if not isinstance(value, int | float) or not math.isfinite(value):
        return "–"
    if is_share(metric):
        return f"{100 * value:.1f}%"
    if "bits" in metric or "nats" in metric:
        return f"{value:.3f}"
    if abs(value) >= 1e6:
        return compact(value)
    digits = 2 if abs(value) < 100 else 1 if abs(value) < 1000 else 0
    return f"{value:,.{digits}f}"


def p_value(value: float) -> str:
    """`p_value(0.00002) == "< 0.0001"`"""
    return f"{value:.2g}" if value >= 1e-4 else "< 0.0001"


def plain(name: str) -> str:
    """`plain("raw_bits_per_byte") == "raw bits per byte"`"""
    return name.replace("_", " ")


def paper_size(label: str) -> tuple[str, int]:
    """The paper's label of a size and the parameters of the released model."""
    label = ALIASES.get(label.removeprefix("gpt2-"), label)
    return label, parameters_of(label)


def as_json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False)
