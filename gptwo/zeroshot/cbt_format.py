"""The files of the Children's Book Test: twenty numbered sentences, a question, candidates.

A question is 21 lines and an empty one. Lines are numbered from 1; the last holds, between tabs,
the sentence with XXXXX for the word, the word, nothing, and the candidates with | between them. The
text is tokenised as the Penn Treebank: `` and '' for quotes, -LRB- for a bracket, do n't.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from gptwo.errors import DataError
from gptwo.zeroshot.detokenize import BOOKS, detokenize

SENTENCES = 20
GAP = "XXXXX"
BAR = "\0"  # stands for a candidate that is itself |


@dataclass(frozen=True, kw_only=True, slots=True)
class Question:
    """As it is in the file: tokens with single spaces between them."""

    sentences: tuple[str, ...]
    query: str
    answer: str
    candidates: tuple[str, ...]

    def facts(self) -> dict[str, object]:
        """As prose: what is before the gap, the space there, what is after, and the candidates."""
        text, _ = detokenize(" ".join((*self.sentences, self.query)), BOOKS)
        before, _, rest = text.partition(GAP)
        words = [detokenize(word, BOOKS)[0] for word in self.candidates]
        context = before.rstrip(" ")
        return {
            "context": context,
            "space": before[len(context) :],
            "rest": rest,
            "query": detokenize(self.query, BOOKS)[0],
            "options": words,
            "answer": self.candidates.index(self.answer),
        }


def read(text: str, name: str) -> list[Question]:
    """All questions of a file; `name` is told when it is not of this format (`DataError`)."""
    blocks = [block for block in text.split("\n\n") if block.strip()]
    return [_question(block, f"{name}, question {n:,}") for n, block in enumerate(blocks, 1)]


def _question(block: str, where: str) -> Question:
    lines = []
    for number, line in enumerate(block.strip("\n").split("\n"), 1):
        label, _, rest = line.partition(" ")
        if label != str(number):
            raise DataError(
                f"{where}, line {number} begins with {label[:20]!r} and not with its number",
                remedy="fetch the published file again",
            )
        lines.append(rest)
    fields = lines[-1].split("\t")
    if len(lines) != SENTENCES + 1 or len(fields) != 4 or GAP not in fields[0]:
        raise DataError(
            f"{where} has {len(lines)} lines and {len(fields)} fields in the last, not "
            f"{SENTENCES + 1} and 4 with {GAP} in the first",
            remedy="fetch the published file again",
        )
    query, answer, _, listed = fields
    candidates = _candidates(listed)
    if answer not in candidates:
        raise DataError(
            f"{where}: the answer {answer!r} is none of its candidates {listed!r}",
            remedy="fetch the published file again",
        )
    return Question(
        sentences=tuple(lines[:-1]), query=query, answer=answer, candidates=tuple(candidates)
    )


def _candidates(listed: str) -> list[str]:
    """`a|b` are two, `a|||b` three, of which one is a bar itself."""
    marked = f"|{listed}|".replace("|||", f"|{BAR}|")
    return [word.replace(BAR, "|") for word in marked[1:-1].split("|")]


def write(questions: Iterable[Question]) -> str:
    """`read(write(questions), ...) == questions`."""
    blocks = []
    for question in questions:
        last = "\t".join((question.query, question.answer, "", "|".join(question.candidates)))
        lines = enumerate((*question.sentences, last), 1)
        blocks.append("".join(f"{number} {line}\n" for number, line in lines))
    return "".join(f"{block}\n" for block in blocks)
