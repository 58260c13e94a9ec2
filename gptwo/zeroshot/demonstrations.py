"""Where a text shows by itself how to translate, to summarise and to answer.

Each finder gives the places of one document, by patterns plain enough to state in a protocol.
"""

import re
from collections.abc import Iterator

from gptwo.zeroshot.probes import Demonstration
from gptwo.zeroshot.sources import Document
from gptwo.zeroshot.words import STOP_WORDS, WORD, sentences, set_of

BEFORE = 400  # characters of the text before a gloss or a question that are shown
STORY = 1500  # characters of a story that are shown
STORY_WORDS = 100  # a story has at least so many
HEADLINE_WORDS = (4, 20)
GLOSS_WORDS = 6
REPLY_CHARACTERS = (12, 160)
QUESTION_CHARACTERS = (12, 300)
# A bracket that begins so is a remark of the author's and no gloss.
REMARKS = set_of(
    """
    this that these those so as see who whom whose which what there here he she it they we you i its
    my our said but and or for from to in on by with when where not no than if at because though
    like also now then such after before many all some just very always only born called named
    chapter vol page fig p pp
    """
)

# "_señor_, which means 'sir'"; "_pronunciamiento_ (a rising)"
GLOSS = re.compile(
    r"""(?:_(?P<italic>[^_\n]{2,40})_|["“](?P<quoted>[^"“”\n]{2,40})[,]?["”])
    (?P<frame>(?:\ ,|,)?[ ]
      (?: \(? (?:which\ (?:means|meant|signifies|signified|is\ to\ say)
          |meaning|signifying|signifies|signified|i\.\ ?e\.|that\ is\ to\ say|that\ is,|literally
          |in\ English|means|meant|translated) [,:]?\ ["“'‘]?
      | (?P<bracket>\(["“'‘]?) ))
    (?P<gloss>[A-Za-z][^"“”()_.,;:!?\n—]{1,60}?)
    (?=[.,;:!?)"”]|'\W|’\W|\ ?--|—)""",
    re.VERBOSE,
)
REPLY = re.compile(r"(\n\n[\"“])([^\"“”\n]+)(?=[\"”])")
ASKED = re.compile(r"[\"“][^\"“”\n]+\?[\"”]\Z")
TURN = re.compile(r"(?m)^Q(?:uestion)?[.:] ?([^\n]+)(\n+A(?:nswer)?[.:])( ?[^\n]+)")


def translations(document: Document) -> Iterator[Demonstration]:
    """Foreign words and what they mean, as the author explains them."""
    text = document.text
    for match in GLOSS.finditer(text):
        gloss, term = match["gloss"].strip(), match["italic"] or match["quoted"]
        found = WORD.findall(gloss)
        remark = match["bracket"] is not None and found[0].lower() in REMARKS
        none = gloss.isupper() or gloss.lower() in STOP_WORDS or len(found) > GLOSS_WORDS
        if remark or none or not _foreign(term):
            continue
        start = match.start("frame")
        space = "" if match["frame"][-1:] in "\"“'‘(" else " "
        yield Demonstration(
            before=text[max(start - BEFORE, 0) : start],
            frame=match["frame"].removesuffix(" "),
            answer=f"{space}{gloss}",
        )


def _foreign(term: str) -> bool:
    """No word of the term is an English word of grammar, which foreign terms rarely share."""
    found = [word.lower() for word in WORD.findall(term)]
    return bool(found) and not any(word in STOP_WORDS for word in found)


def headlines(document: Document) -> Iterator[Demonstration]:
    """A story and its headline: the title that its source gave it, or a first line like one."""
    first, _, story = document.text.partition("\n")
    title = document.title
    if title:
        story = document.text
    elif not first.rstrip().endswith((".", "!", "?", ",", ";", ":")):
        title = first.strip(" #*_")
    low, high = HEADLINE_WORDS
    story = story.strip()
    if low <= len(title.split()) <= high and len(story[:4000].split()) >= STORY_WORDS:
        spans = [span for span in sentences(story[: STORY + 400]) if span[1] <= STORY]
        shown = story[: spans[-1][1]] if spans else story[:STORY]
        yield Demonstration(before=shown, frame="\nTL;DR:", answer=f" {title}")


def replies(document: Document) -> Iterator[Demonstration]:
    """A question and its answer: turns marked Q and A, and questions in talk with the reply."""
    text = document.text
    for match in TURN.finditer(text):
        reply = match[3].strip()
        if _fits(match[1], reply):
            start = match.start(2)
            yield Demonstration(
                before=text[max(start - BEFORE, 0) : start], frame=match[2], answer=f" {reply}"
            )
    for match in REPLY.finditer(text):
        start = match.start()
        asked = ASKED.search(text[max(start - BEFORE, 0) : start])
        if asked and _fits(asked.group(), match[2]):
            yield Demonstration(
                before=text[max(start - BEFORE, 0) : start], frame=match[1], answer=match[2]
            )


def _fits(question: str, reply: str) -> bool:
    """Whole, of a usual length, and not a question in its turn."""
    (a, b), (c, d) = QUESTION_CHARACTERS, REPLY_CHARACTERS
    return a <= len(question) <= b and c <= len(reply) <= d and not reply.endswith("?")
