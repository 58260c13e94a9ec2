"""Children's Book Test, validation: a word cut out of the 21st sentence (paper section 3.2).

Common nouns and named entities, 2,000 questions each. The paper reports the validation split,
because a book of the test split is in WebText, and undoes the tokenisation.
"""

import hashlib
from pathlib import Path
from typing import Any

from gptwo.errors import DataError
from gptwo.zeroshot import cbt_format
from gptwo.zeroshot.candidates import CHOICE, baselines, question, record, summary
from gptwo.zeroshot.cbt_format import Question
from gptwo.zeroshot.sources import DataFile
from gptwo.zeroshot.task import Bench, Example, Task, scored

FOLDER = "eval/cbt"
QUESTIONS = 2_000


def archived(kind: str) -> DataFile:
    """The questions of one kind, CN or NE, inside the archive that its authors publish."""
    return DataFile(
        path=f"{FOLDER}/CBTest.tgz",
        size=120_547_669,
        sha256="932df0cadc1337b2a12b4c696b1041c1d1c6d4b6bd319874c6288f02e4a61e92",
        member=f"CBTest/data/cbtest_{kind}_valid_2000ex.txt",
    )


def book_test(kind: str) -> Task:
    """The task of one kind, from the archive or from the file taken out of it."""

    def protocol(bench: Bench) -> dict[str, Any]:
        return {
            "version": 1,
            "split": "validation",
            "text": "20 sentences and the 21st with spaces between, tokenisation undone",
            "choice": CHOICE,
            "limit": bench.limit_protocol("questions"),
            "window": bench.n_ctx,
            "eot_prefix": False,
        }

    def data(bench: Bench) -> dict[str, Any]:
        file, loose = archived(kind), _loose(bench, kind)
        if loose is None:
            questions = cbt_format.read(bench.sources.read(file).decode("utf-8"), file.member)
            return {**file.describe(), "questions": len(questions)}
        content = loose.read_bytes()
        return {
            "file": f"{FOLDER}/{file.member}",
            "bytes": len(content),
            "sha256": hashlib.sha256(content).hexdigest(),
            "proof": f"{QUESTIONS:,} questions in the published format; no hash of this file alone "
            "is published",
            "questions": len(_checked(content, loose)),
        }

    def examples(bench: Bench) -> list[Example]:
        file, loose = archived(kind), _loose(bench, kind)
        if loose is None:
            found = cbt_format.read(bench.sources.read(file).decode("utf-8"), file.member)
        else:
            found = _checked(loose.read_bytes(), loose)
        chosen = found[: bench.config.limit or None]
        return [
            question(bench, {"id": number, **asked.facts()}) for number, asked in enumerate(chosen)
        ]

    return Task(
        protocol=protocol,
        data=data,
        examples=examples,
        solve=scored(record),
        summary=summary,
        baselines=baselines,
    )


def _loose(bench: Bench, kind: str) -> Path | None:
    """The file taken out of the archive, where the archive is not there and it is."""
    folder, file = bench.sources.data, archived(kind)
    if folder is None or (folder / file.path).exists():
        return None
    path = folder / FOLDER / file.member
    return path if path.is_file() else None


def _checked(content: bytes, path: Path) -> list[Question]:
    """The questions of a file that no hash proves: as many as published, none of them twice."""
    try:
        found = cbt_format.read(content.decode("utf-8"), str(path))
    except UnicodeDecodeError as error:
        raise DataError(
            f"{path} is not UTF-8 (byte {error.start:,})", remedy="fetch the published file again"
        ) from error
    different = len(set(found))
    if (len(found), different) != (QUESTIONS, QUESTIONS):
        raise DataError(
            f"{path} has {len(found):,} questions, {different:,} of them different, not "
            f"{QUESTIONS:,}",
            remedy="fetch the published file again",
        )
    return found


COMMON_NOUNS = book_test("CN")
NAMED_ENTITIES = book_test("NE")
