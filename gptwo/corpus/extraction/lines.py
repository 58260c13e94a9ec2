"""The flat tree of a page -> its lines: what a reader sees between two breaks.

A line is a run of text without the edge of a block or a double <br> in it: a paragraph, an item, a
cell, a heading, a whole <pre>. The plain twin of the first half of native/extract.c.
"""

from dataclasses import dataclass

from gptwo.corpus.extraction.html import Node
from gptwo.corpus.extraction.html_tags import TAG, Flag


def tags(names: str) -> frozenset[int]:
    return frozenset(TAG[name] for name in names.split())


# Nothing inside these is text of the page.
UNREAD = tags(
    "script style noscript template head title iframe svg math button select textarea input "
    "datalist option optgroup object applet embed canvas video audio map progress meter output "
    "dialog frameset noframes noembed rt rp"
)
# A line ends where one of these begins or ends,
BLOCKS = tags(
    "html body header footer nav aside main article section search hgroup address div p h1 h2 h3 "
    "h4 h5 h6 ul ol menu dir li dl dt dd blockquote pre listing xmp plaintext figure figcaption "
    "picture hr center details summary table caption thead tbody tfoot tr td th form fieldset "
    "legend label marquee"
)
VERBATIM = tags("pre listing xmp plaintext")  # unless it is inside one of these.
HEADINGS = tags("h1 h2 h3 h4 h5 h6")  # A link to # in one of these is only its anchor.

_TEXT, _BR, _A = TAG["#text"], TAG["br"], TAG["a"]

# Control characters, what has no width, and private use (icons of a font) say nothing.
_DROP = dict.fromkeys(
    [*range(9), *range(14, 28), 127, 0xAD, 0x200B, *range(0xE000, 0xF900), 0xFEFF]
)
_TO_SPACE = dict.fromkeys(
    map(ord, "\v\f\r\x1c\x1d\x1e\x1f\x85\xa0\u1680\u2028\u2029\u202f\u205f\u3000"), " "
)
_TO_SPACE |= dict.fromkeys(range(0x2000, 0x200B), " ")


@dataclass(slots=True)
class Line:
    node: int  # the innermost block around it
    text: str
    size: int  # bytes of the text, as UTF-8
    linked: int  # bytes of it that are inside links, white space aside
    verbatim: bool


def read_lines(nodes: list[Node]) -> list[Line]:
    """The lines of a page in the order of its source."""
    reader = _Reader()
    blocks = [0]  # open ones
    links = verbatim = at = 0  # where the links and the <pre> that are open end
    while at < len(nodes):
        while nodes[blocks[-1]].last <= at:
            blocks.pop()
            reader.edge(at < verbatim)
        node = nodes[at]
        if node.tag == _TEXT:
            reader.text(node.text, blocks[-1], at < links, at < verbatim)
        elif node.tag in UNREAD:
            at = node.last
            continue
        elif node.tag in BLOCKS:
            reader.edge(at < verbatim)
            blocks.append(at)
            if node.tag in VERBATIM:
                verbatim = max(verbatim, node.last)
        elif node.tag == _BR:
            reader.line_break(at < verbatim)
        elif node.tag == _A and node.flags & Flag.LINK:
            to_itself = node.flags & Flag.LOCAL_LINK and nodes[blocks[-1]].tag in HEADINGS
            links = max(links, 0 if to_itself else node.last)
        at += 1
    reader.end()
    return reader.lines


class _Reader:
    """The line that is being read, in pieces, and those before it."""

    def __init__(self) -> None:
        self.lines: list[Line] = []
        self.pieces: list[str] = []
        self.gap = ""  # white space since the last word
        self.node = self.linked = 0
        self.verbatim = False

    def text(self, text: str, node: int, linked: bool, verbatim: bool) -> None:
        text = text.translate(_DROP)
        words = text.split()
        if not self.pieces:
            if not (text if verbatim else words):
                return
            self.node, self.verbatim = node, verbatim
        if linked:
            self.linked += sum(len(word.encode()) for word in words)
        if verbatim:
            self.pieces += [text.translate(_TO_SPACE)] if text else []
            return
        if text[:1].isspace():
            self.gap = self.gap or " "
        if not words:
            return
        if self.pieces:
            self.pieces.append(self.gap)
        self.pieces.append(" ".join(words))
        self.gap = " " if text[-1].isspace() else ""

    def line_break(self, verbatim: bool) -> None:
        """One is a line feed, the second ends the line."""
        if verbatim:
            self.pieces += ["\n"] if self.pieces else []
        elif self.gap == "\n":
            self.end()
        elif self.pieces:
            self.gap = "\n"

    def edge(self, verbatim: bool) -> None:
        """A block begins or ends."""
        if not verbatim:
            self.end()
        elif self.pieces and not self.pieces[-1].endswith("\n"):
            self.pieces.append("\n")

    def end(self) -> None:
        text = "".join(self.pieces)
        if self.verbatim:
            text = text.rstrip()
            start = len(text) - len(text.lstrip())
            text = text[text.rfind("\n", 0, start) + 1 :]  # blank lines before it go
        if text:
            self.lines.append(Line(self.node, text, len(text.encode()), self.linked, self.verbatim))
        self.pieces, self.gap, self.linked, self.verbatim = [], "", 0, False
