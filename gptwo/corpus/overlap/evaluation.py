"""Evaluation sets as texts to look for: whatever format a set comes in, its examples.

A file is told by its content: JSON lines, one JSON value, XML, or lines of text; compression is
undone. In JSON every string that is running text counts, but for the sets of `JOINED`, whose fields
only together are what a document would hold.
"""

import json
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import takewhile
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gptwo.corpus.shards import clean
from gptwo.corpus.sources import list_files
from gptwo.corpus.words import normalise
from gptwo.errors import DataError
from gptwo.streams import DAMAGE, MAGIC, decompressed

REMEDY = "an evaluation set is JSON, JSON lines, XML or lines of text, compressed or not"
SUFFIXES = (".gz", ".xz", ".zst", ".bz2")
MALFORMED = (ValueError, LookupError, TypeError, AttributeError)  # records of another shape
MOST_BYTES = 1 << 30  # of one file, decompressed: it is read as a whole

# Tokenised sets write "did n't", which splits into other words than "didn't" does. What they have
# replaced is a gap: no document holds it.
_SPLIT_NOT = re.compile(r"(?<=\w) (?=n't\b)", re.IGNORECASE)
_UNKNOWN = re.compile(r"<unk>")
_MARKUP = re.compile("<[?!A-Za-z]")
_CLOZE = re.compile(r"(\d+) (.*)")  # a line of the Children's Book Test


@dataclass(frozen=True, kw_only=True)
class Piece:
    """Running text of an example.

    `number` is the example's line or place in its set, from 1; `whole` the number of words of what
    the text is a part of, where a set has replaced some.
    """

    set: str
    number: int
    text: str
    whole: int


def find_sets(paths: list[Path]) -> dict[str, Path]:
    """Name of each set -> its file, in order of names; raises `DataError` for what is missing."""
    found: dict[str, Path] = {}
    for path in paths:
        if not path.exists():
            raise DataError(f"{path} does not exist", remedy="check corpus.decontaminate")
        files = list_files(path) if path.is_dir() else [path]
        if not files:
            raise DataError(f"{path} is an empty folder", remedy=REMEDY)
        home = path if path.is_dir() else path.parent
        for file in files:
            name = str(file.relative_to(home))
            for suffix in SUFFIXES:
                name = name.removesuffix(suffix)
            name = name.removesuffix(".jsonl").removesuffix(".json")
            if found.setdefault(name, file) != file:
                raise DataError(
                    f"{found[name]} and {file} are both {name}", remedy="give their common folder"
                )
    return dict(sorted(found.items()))


def read_set(name: str, path: Path) -> Iterator[Piece]:
    """The pieces of all examples of a file; one that is damaged is an error, not a smaller set."""
    try:
        with decompressed(path) as handle:
            data = handle.read(MOST_BYTES + 1)
    except DAMAGE as damage:
        raise DataError(f"{path} is damaged: {damage}", remedy="get the file again") from damage
    if len(data) > MOST_BYTES:
        raise DataError(f"{path} is over {MOST_BYTES >> 30} GB", remedy="give it in parts")
    if not data.strip():
        raise DataError(f"{path} is empty", remedy=REMEDY)
    if data.startswith(b"version https://git-lfs"):
        raise DataError(f"{path} is a Git LFS pointer", remedy="fetch it with git lfs pull")
    if b"\0" in data or data.startswith((*MAGIC, b"PK\3\4", b"PAR1")):
        raise DataError(f"{path} is not text", remedy=REMEDY)
    text = data.decode("utf-8-sig", "replace")
    try:
        for number, pieces in _examples(text):
            for piece in pieces:
                whole = len(normalise(piece).split())
                for part in _UNKNOWN.split(_SPLIT_NOT.sub("", piece)):
                    if part.strip():
                        yield Piece(set=name, number=number, text=clean(part), whole=whole)
    except (*MALFORMED, RecursionError, ElementTree.ParseError) as error:
        raise DataError(f"{path}: {str(error)[:120]}", remedy=REMEDY) from error


def _examples(text: str) -> Iterator[tuple[int, list[str]]]:
    start = text.lstrip()[:2]
    if start.startswith(("{", "[")):
        yield from enumerate(map(_pieces, _records(text)), 1)
    elif _MARKUP.match(start):
        for number, element in enumerate(ElementTree.fromstring(text), 1):
            yield number, [" ".join("".join(element.itertext()).split())]
    elif _is_cloze(text):
        yield from enumerate(_stories(text), 1)
    else:
        yield from enumerate(([line] for line in text.split("\n")), 1)


def _records(text: str) -> Iterator[Any]:
    """The records of JSON lines, of a list, or of the field `data` of one object."""
    lines = [line for line in text.split("\n") if line.strip()]
    try:
        first = json.loads(lines[0])
    except ValueError:
        lines = [text]  # one value over many lines
        first = json.loads(text)
    if len(lines) > 1:
        yield from map(json.loads, lines)
        return
    if isinstance(first, dict) and isinstance(first.get("data"), list):
        first = first["data"]
    yield from first if isinstance(first, list) else [first]


def _pieces(record: Any) -> list[str]:
    fields = set(record) if isinstance(record, dict) else set()
    for needed, join in JOINED.items():
        if fields.issuperset(needed):
            return join(record)
    return list(_strings(record))


def _strings(value: Any) -> Iterator[str]:
    """Every string in it that has a space: names and addresses have none."""
    if isinstance(value, str):
        if " " in value:
            yield value
    elif isinstance(value, dict | list):
        for item in value.values() if isinstance(value, dict) else value:
            yield from _strings(item)


def _hellaswag(record: dict[str, Any]) -> list[str]:
    """The context with its true ending: the others were never written by anyone."""
    endings, label = record["endings"], str(record.get("label", ""))
    true = [endings[int(label)]] if label.isdecimal() else endings
    return [f"{record['ctx']} {ending}" for ending in true]


def _winograd(record: dict[str, Any]) -> list[str]:
    """Both readings, and what they begin with: there a document goes on with a pronoun."""
    options = record["context_options"]
    whole = [f"{option} {record['continuation']}" for option in options]
    pairs = zip(options[0].split(), options[-1].split(), strict=False)
    return [*whole, " ".join(one for one, _ in takewhile(lambda pair: pair[0] == pair[1], pairs))]


def _coqa(record: dict[str, Any]) -> list[str]:
    """The story, the questions, the answers; not the passages of the story that they point to."""
    turns = [*record["questions"], *record.get("answers", ())]
    return [record["story"], *(turn["input_text"] for turn in turns)]


JOINED: dict[tuple[str, ...], Callable[[dict[str, Any]], list[str]]] = {
    ("ctx", "endings"): _hellaswag,
    ("context_options", "continuation"): _winograd,
    ("story", "questions"): _coqa,
}


def _is_cloze(text: str) -> bool:
    lines = text.lstrip().split("\n", 21)[:21]
    return all(line.startswith(f"{number} ") for number, line in enumerate(lines, 1)) and (
        len(lines) == 21
    )


def _stories(text: str) -> Iterator[list[str]]:
    """Twenty numbered lines and a question with its answer: one text."""
    story: list[str] = []
    for line in text.split("\n"):
        found = _CLOZE.match(line)
        if not found:
            continue
        if found[1] == "1" and story:
            yield [" ".join(story)]
            story = []
        sentence, *rest = found[2].split("\t")
        story.append(sentence.replace("XXXXX", rest[0]) if rest else sentence)
    if story:
        yield [" ".join(story)]
