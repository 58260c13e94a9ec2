"""Sentences and words of English prose, by rules plain enough to state in a protocol."""

import re

WORD = re.compile(r"\w+(?:['’]\w+)*")
PIECE = re.compile(r"\w+(?:['’]\w+)*|[^\w\s]")  # words and single punctuation marks
STARTS = re.compile(r" ['\"“‘]?\w| ['\"“‘]\Z")  # a token that begins a word
GOES_ON = re.compile(r"\w|['’-]\w")  # a token that goes on with one
BREAK = re.compile(r"""[.!?]["'”’)\]]*(\s+)(?=["'“‘(\[]?[A-Z])|(\s*\n\s*\n\s*)""")


def set_of(words: str) -> frozenset[str]:
    """Words between white space."""
    return frozenset(words.split())


ABBREVIATIONS = set_of(
    """
    mr mrs ms dr prof rev hon gen col capt lt sgt maj adm gov sen rep pres st jr sr no vol vs etc
    inc co corp ltd jan feb mar apr jun jul aug sept sep oct nov dec
    """
)
# Words that carry grammar, not content: the filter of LAMBADA (paper section 3.3) and the words
# no built-in question asks for.
STOP_WORDS = set_of(
    """
    a an the this that these those and or but nor so yet if then than because as until while of at
    by for with about against between into through during before after above below to from up down
    in out on off over under again further once here there when where why how all any both each
    few more most other some such no not only own same too very can will just should would could
    may might must shall do does did doing done have has had having be am is are was were been
    being i me my mine myself we us our ours ourselves you your yours yourself yourselves he him
    his himself she her hers herself it its itself they them their theirs themselves what which
    who whom whose also upon every either neither much many one now ever never
    """
)


def is_stop_word(word: str) -> bool:
    """Whether a word, as it stands in a text, is a stop word: `is_stop_word('"The')`"""
    return " ".join(WORD.findall(word)).lower() in STOP_WORDS


def words(text: str) -> list[str]:
    """Words and punctuation marks, lower case: the units of the n-gram baseline."""
    return [piece.lower() for piece in PIECE.findall(text)]


def sentences(text: str) -> list[tuple[int, int]]:
    """(start, end) of each sentence, white space between them left out."""
    spans, start = [], 0
    for match in BREAK.finditer(text):
        before = WORD.findall(text, max(start, match.start() - 12), match.start())
        last = before[-1].lower() if before else ""
        if match.group(1) is not None and (last in ABBREVIATIONS or _initial(last)):
            continue
        spans.append((start, match.start(1) if match.group(1) is not None else match.start(2)))
        start = match.end()
    spans.append((start, len(text.rstrip())))
    return [(first, end) for first, end in spans if text[first:end].strip()]


def _initial(word: str) -> bool:
    return len(word) == 1 and word != "i" and word.isalpha()
