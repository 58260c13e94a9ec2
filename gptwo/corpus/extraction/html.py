"""HTML -> a flat tree: the plain twin of native/html.h, where the rules are explained.

Nodes lie in document order. Node 0 is <html>; the descendants of node i are i + 1 ... last - 1.
"""

import re
from collections import Counter
from dataclasses import dataclass, field

from gptwo.corpus.extraction.html_tags import BIT, PROPERTY, TAG
from gptwo.corpus.extraction.html_tokens import SPACE, Tag, comment_end, raw_end, read_tag, unescape

DEPTH = 512  # open elements; deeper ones become siblings

_SPECIAL, _PHRASE, _SCOPE = BIT["SPECIAL"], BIT["SPECIAL"] | BIT["PLAIN"], BIT["SCOPE"]
_TABLE, _ROWS, _ROW, _CELL = BIT["TABLE"], BIT["ROWS"], BIT["ROW"], BIT["CELL"]
_HEADING, _DEFINITION, _RUBY = BIT["HEADING"], BIT["DEFINITION"], BIT["RUBY"]
_RAW_ENTITIES = BIT["RAW_ENTITIES"]

_MARKUP = re.compile(r"<(?:[a-zA-Z!?]|/.)", re.DOTALL)


@dataclass(slots=True)
class Node:
    """A text (tag 0) or an element; `tag` is an index of html_tags.TAGS."""

    tag: int
    parent: int  # -1 of <html>
    last: int = 0  # past the last descendant
    flags: int = 0  # html_tags.Flag
    text: str = ""
    attributes: dict[str, str] = field(default_factory=dict[str, str])


@dataclass(slots=True)
class _Open:
    node: int
    tag: int
    name: str  # "" of one that no end tag ends


def parse(page: str) -> list[Node]:
    """The nodes of a page in document order."""
    parser = _Parser(page.replace("\r\n", "\n").replace("\r", "\n").replace("\0", ""))
    parser.run()
    return parser.nodes


class _Parser:
    def __init__(self, page: str):
        self.page = page
        self.nodes: list[Node] = []
        self.stack: list[_Open] = []
        self.names = Counter[str]()  # of the open elements
        self.place = "before head"

    def run(self) -> None:
        page, at = self.page, 0
        self.open(Tag("html"))
        while at < len(page):
            found = _MARKUP.search(page, at)
            mark = found.start() if found else len(page)
            if mark > at:
                self.text(page[at:mark], entities=True)
            at = self.markup(mark) if found else mark
        if self.place != "body":
            self.open_body()
        self.pop_to(0)

    def markup(self, at: int) -> int:
        """Read the markup whose < is at `at`; where it ends."""
        page = self.page
        ends = page[at + 1] == "/"
        first = page[at + 1 + ends]
        if not (first.isascii() and first.isalpha()):
            return self.other(at)
        tag, at = read_tag(page, at + 1 + ends)
        if not tag:
            return len(page)
        if ends:
            self.end_tag(tag)
            return at
        raw = self.start_tag(tag)
        if tag.name in ("pre", "listing", "textarea") and page[at : at + 1] == "\n":
            at += 1
        if not raw:
            return at
        stop = raw_end(page, at, tag.name)
        self.text(page[at:stop], entities=bool(PROPERTY[tag.number] & _RAW_ENTITIES))
        return stop

    def other(self, at: int) -> int:
        """<!...>, <?...> and </ before what is no name; where they end."""
        page = self.page
        if page.startswith("<!--", at):
            return comment_end(page, at)
        cdata = page.startswith("<![CDATA[", at) and self.foreign()
        stop = page.find("]]>" if cdata else ">", at + 9 * bool(cdata))
        if cdata:
            self.text(page[at + 9 : stop if stop >= 0 else len(page)], entities=False)
        return stop + (3 if cdata else 1) if stop >= 0 else len(page)

    # The open elements

    def pop_to(self, depth: int) -> None:
        for top in self.stack[depth:]:
            self.nodes[top.node].last = len(self.nodes)
            self.names[top.name] -= 1
        del self.stack[depth:]

    def add(self, node: Node) -> None:
        node.parent = self.stack[-1].node if self.stack else -1
        self.nodes.append(node)
        node.last = len(self.nodes)

    def open(self, tag: Tag) -> None:
        self.pop_to(DEPTH - 1)
        self.add(Node(tag.number, 0, flags=tag.flags, attributes=tag.attributes))
        self.stack.append(_Open(len(self.nodes) - 1, tag.number, tag.name))
        self.names[tag.name] += 1

    def open_body(self) -> None:
        self.pop_to(1)
        self.open(Tag("body"))
        self.place = "body"

    def outside(self) -> bool:
        """Whether what comes is neither inside the body nor inside an element of the head."""
        return self.place != "body" and len(self.stack) <= 1 + (self.place == "head")

    def find(self, kinds: int, bars: int = 0) -> int:
        """Where the innermost open element of `kinds` is, 0 when none before one of `bars`."""
        for at in range(len(self.stack) - 1, 0, -1):
            if PROPERTY[self.stack[at].tag] & kinds:
                return at
            if PROPERTY[self.stack[at].tag] & bars:
                return 0
        return 0

    def find_tag(self, name: str, bars: int) -> int:
        """The same of elements with a name."""
        if not self.names[name]:
            return 0
        for at in range(len(self.stack) - 1, 0, -1):
            if self.stack[at].name == name:
                return at
            if PROPERTY[self.stack[at].tag] & bars:
                return 0
        return 0

    def end(self, found: int) -> bool:
        if found:
            self.pop_to(found)
        return found > 0

    def close_p(self) -> bool:
        return self.end(self.find_tag("p", _SCOPE | BIT["BUTTON"]))

    def foreign(self) -> int:
        """Where <svg> or <math> is open whose own content is being read, else 0."""
        if not self.names["svg"] and not self.names["math"]:
            return 0
        for at in range(len(self.stack) - 1, 0, -1):
            if self.stack[at].name in ("svg", "math"):
                return at
            if self.stack[at].name == "foreignobject":
                return 0
        return 0

    def end_foreign(self) -> int:
        """End <svg> and <math>; returns 0."""
        while at := self.foreign():
            self.pop_to(at)
        return 0

    def foreign_end(self, name: str) -> bool:
        """Whether an end tag ends an element of <svg> or <math>. There all names are alike."""
        svg = self.foreign()
        found = self.find_tag(name, 0) if svg else 0
        if svg and name in ("p", "br"):
            return bool(self.end_foreign())
        return found >= svg and self.end(found)

    def fade(self, found: int) -> None:
        """An element that would have to end inside a block begun in it is no longer what it was."""
        if not found:
            return
        faded = self.stack[found]
        self.names[faded.name] -= 1
        faded.name = ""
        faded.tag = self.nodes[faded.node].tag = TAG["#other"]

    # Start tags

    def start_of_page(self, tag: Tag) -> bool:
        """<html>, <head>, <body>; for any other tag head or body are opened if need be."""
        if tag.name == "html":
            self.adopt(0, tag)
        elif tag.name == "head":
            if self.place == "before head":
                self.open(tag)
                self.place = "head"
        elif tag.name == "body":
            if self.place != "body":
                self.open_body()
            self.adopt(self.stack[1].node, tag)
        else:
            if self.outside():
                if not PROPERTY[tag.number] & BIT["IN_HEAD"]:
                    self.open_body()
                elif self.place == "before head":
                    self.open(Tag("head"))
                    self.place = "head"
            return False
        return True

    def adopt(self, node: int, tag: Tag) -> None:
        """Attributes of a second <html> or <body> count when the first was implied."""
        if not self.nodes[node].attributes:
            self.nodes[node].attributes = tag.attributes
            self.nodes[node].flags = tag.flags

    def to_place_in_table(self, tag: Tag) -> bool:
        """End what a part of a table cannot be inside of; False when there is no table."""
        kind, wanted = PROPERTY[tag.number], _TABLE
        if not self.names["table"] and not self.names["template"]:
            return False
        if kind & _CELL:
            wanted |= _ROWS | _ROW
        if kind & _ROW:
            wanted |= _ROWS
        found = self.find(wanted)
        if tag.name == "col" and self.stack[-1].name == "colgroup":
            found = len(self.stack) - 1
        if not found:
            return False
        self.pop_to(found + 1)
        if kind & _CELL and self.stack[-1].name != "tr":
            self.open(Tag("tr"))
        return True

    def make_place(self, tag: Tag) -> bool:
        """End what the start of an element ends; False when the tag is to be ignored."""
        name, kind = tag.name, PROPERTY[tag.number]
        if kind & BIT["TABLE_PART"]:
            return self.to_place_in_table(tag)
        if name == "form" and self.names["form"]:
            return False
        if name == "li":
            self.end(self.find_tag("li", _SPECIAL))
        if kind & _DEFINITION:
            self.end(self.find(_DEFINITION, _SPECIAL))
        if kind & BIT["CLOSES_P"]:
            self.close_p()
        top = self.stack[-1]
        if PROPERTY[top.tag] & kind & (_HEADING | _RUBY):
            self.pop_to(-1)
        if name == "table" and self.stack[self.find(_SCOPE)].name == "table":
            self.pop_to(self.find(_SCOPE))
        if name == "button":
            self.end(self.find_tag("button", _SCOPE))
        if name == "select" and self.end(self.find_tag("select", _SCOPE)):
            return False
        if name in ("option", "optgroup") and top.name == "option":
            self.pop_to(-1)
        if name == "optgroup" and self.stack[-1].name == "optgroup":
            self.pop_to(-1)
        if name == "a" and not self.end(self.find_tag("a", _PHRASE)):
            self.fade(self.find_tag("a", _SCOPE))
        return True

    def start_tag(self, tag: Tag) -> bool:
        """Whether raw text follows."""
        kind = PROPERTY[tag.number]
        svg = self.end_foreign() if kind & BIT["NOT_SVG"] else self.foreign()
        if not svg and (self.start_of_page(tag) or not self.make_place(tag)):
            return False
        self.open(tag)
        closes = tag.self_closing and (svg or tag.name in ("svg", "math"))
        if closes or (not svg and kind & BIT["VOID"]):
            self.pop_to(-1)
        return not svg and bool(kind & (BIT["RAW"] | _RAW_ENTITIES))

    def end_tag(self, tag: Tag) -> None:
        name, kind = tag.name, PROPERTY[tag.number]
        if self.foreign_end(name):
            return
        if name in ("html", "body"):
            return  # what follows belongs there too
        if name == "head":
            if self.place == "head":
                self.pop_to(1)
                self.place = "after head"
        elif name == "br":
            self.start_tag(Tag("br"))
        elif name == "p":
            if not self.outside() and not self.close_p():
                self.start_tag(Tag("p"))  # an empty one, as the standard has it
                self.close_p()
        elif kind & _HEADING:
            self.end(self.find(_HEADING, _SCOPE))
        elif name == "template":
            self.end(self.find_tag(name, 0))
        elif name == "table" or kind & BIT["TABLE_PART"]:
            self.end(self.find_tag(name, _TABLE))
        elif kind & BIT["BLOCK"]:
            self.end(self.find_tag(name, _SCOPE | BIT["LIST"] * (name == "li")))
        elif not self.end(self.find_tag(name, _PHRASE)) and kind & BIT["FADES"]:
            self.fade(self.find_tag(name, _SCOPE))

    def text(self, text: str, entities: bool) -> None:
        """A run of text; what is white space outside head and body is left out."""
        if self.outside():
            text = text.lstrip(SPACE)
            if text:
                self.open_body()
        if text:
            self.add(Node(0, 0, text=unescape(text, attribute=False) if entities else text))
