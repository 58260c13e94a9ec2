"""Questions in the format of the Children's Book Test from books of your own.

    python scripts/make_cbt.py BOOKS... --out DATA --questions 2000

BOOKS are JSON lines with a `text`, plain or .xz. The procedure is that of the built-in task
`cloze`; sentences are tokenised by NLTK's Penn Treebank rules, as the published files are by like
ones. Out come DATA/eval/cbt/CBTest/data/cbtest_{CN,NE}_valid_2000ex.txt, which
`gptwo eval MODEL cbt-cn cbt-ne --data DATA` reads, and on stdout how many of their sentences, read
back, are what they were made from.
"""

import argparse
import json
import lzma
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

from nltk.tokenize import NLTKWordTokenizer

from gptwo.artifacts import atomic_write
from gptwo.zeroshot import cbt_format
from gptwo.zeroshot.detokenize import BOOKS, detokenize
from gptwo.zeroshot.tasks import cloze
from gptwo.zeroshot.words import sentences

KINDS = {"nouns": "CN", "names": "NE"}
TOKENIZE = NLTKWordTokenizer().tokenize
PASSAGES = 400  # of a book, at most


def documents(paths: Iterable[Path]) -> Iterator[tuple[str, str]]:
    """(name, text) of every book."""
    for path in paths:
        opened = lzma.open if path.suffix == ".xz" else open
        with opened(path, "rt", encoding="utf-8") as handle:
            for number, line in enumerate(handle):
                yield f"{path.name}:{number}", json.loads(line)["text"]


def tokenized(text: str) -> str:
    return " ".join(TOKENIZE(text, convert_parentheses=True))


def as_published(facts: dict[str, Any]) -> cbt_format.Question:
    """A question of `cloze` as the files hold it."""
    return cbt_format.Question(
        sentences=tuple(tokenized(sentence) for sentence in shown(facts)),
        query=tokenized(facts["query"].replace("____", cbt_format.GAP)),
        answer=facts["options"][facts["answer"]],
        candidates=tuple(sorted(facts["options"])),
    )


def shown(facts: dict[str, Any]) -> list[str]:
    context = facts["context"]
    return [context[a:b] for a, b in sentences(context)][: cbt_format.SENTENCES]


def plain(text: str) -> str:
    """White space and the kind of quotes do not survive tokenisation."""
    for curly, straight in (("\u201c", '"'), ("\u201d", '"'), ("\u2018", "'"), ("\u2019", "'")):
        text = text.replace(curly, straight)
    return " ".join(text.split())


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("books", nargs="+", type=Path)
    parser.add_argument("--out", required=True, type=Path)
    parser.add_argument("--questions", type=int, default=2_000)
    call = parser.parse_args()
    found: dict[str, list[cbt_format.Question]] = {kind: [] for kind in KINDS}
    same = total = 0
    for name, text in documents(call.books):
        for facts in cloze.questions(name, text, 0, PASSAGES):
            made = found[facts["kind"]]
            before = shown(facts)
            if len(made) == call.questions or len(before) < cbt_format.SENTENCES:
                continue
            made.append(as_published(facts))
            for sentence, tokens in zip(before, made[-1].sentences, strict=True):
                total += 1
                same += plain(detokenize(tokens, BOOKS)[0]) == plain(sentence)
        if all(len(made) == call.questions for made in found.values()):
            break
    folder = call.out / "eval/cbt/CBTest/data"
    for kind, made in found.items():
        with atomic_write(folder / f"cbtest_{KINDS[kind]}_valid_2000ex.txt") as handle:
            handle.write(cbt_format.write(made).encode())
    counts = {KINDS[kind]: len(made) for kind, made in found.items()}
    print(json.dumps({"questions": counts, "sentences": total, "read_back_as_they_were": same}))


if __name__ == "__main__":
    main()
