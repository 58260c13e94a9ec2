"""Comparing short answers as SQuAD and CoQA do: exact match and F1 over words.

Case, punctuation and articles do not count (Rajpurkar et al. 2016, section 6; Reddy et al. 2019).
"""

import re
import string
from collections import Counter
from collections.abc import Sequence

ARTICLES = re.compile(r"\b(a|an|the)\b")
PUNCTUATION = str.maketrans("", "", string.punctuation)


def normalized(answer: str) -> str:
    """`normalized("The U.S.  Army!") == "us army"`"""
    return " ".join(ARTICLES.sub(" ", answer.lower().translate(PUNCTUATION)).split())


def exact_match(answer: str, accepted: Sequence[str]) -> bool:
    return normalized(answer) in {normalized(other) for other in accepted}


def f1(answer: str, reference: str) -> float:
    """Harmonic mean of precision and recall over words; two empty answers agree."""
    ours, theirs = normalized(answer).split(), normalized(reference).split()
    if not ours or not theirs:
        return float(ours == theirs)
    common = sum((Counter(ours) & Counter(theirs)).values())
    return 2 * common / (len(ours) + len(theirs))


def f1_of_many(answer: str, references: Sequence[str]) -> float:
    """CoQA's score: the best F1 against all references but one, averaged over the one left out.

    So a human, whose answer is one of them, is judged by the same rule.
    """
    if len(references) == 1:
        return f1(answer, references[0])
    scores = [f1(answer, reference) for reference in references]
    return sum(max(scores[:i] + scores[i + 1 :]) for i in range(len(scores))) / len(scores)
