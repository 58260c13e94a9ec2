"""What trafilatura found, as text: paragraphs with an empty line between them.

The lines of a list, of a table, of verse and of code stay together.
"""

import re
from collections.abc import Iterable, Iterator
from typing import Any

VERSE_CHARACTERS = 100  # no line of verse or of an address is longer; what is, is a paragraph
CELL_CHARACTERS = 300  # no cell of a table, no item of a list is longer; what is, holds paragraphs

_SPACE = re.compile(r"\s+")
# trafilatura's names, and HTML's where it took something over as it was.
_ROWS, _CELLS = ("row", "tr"), ("cell", "td", "th")
_TEXTS = ("p", "head", "quote", "list", "item", "table", "div", "li", "article", "section")
_BLOCKS = frozenset((*_TEXTS, *_ROWS, *_CELLS))
_INLINE = frozenset(("hi", "ref", "del", "code", "lb", "a", "b", "i", "em", "strong", "span", "u"))
# Control characters, and the soft hyphen, which nobody sees.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x84\x86-\x9f\u00ad]")


def lay_out(body: Any) -> str:
    """The text of an element that holds `p`, `head`, `list`, `quote`, `code` and `table`."""
    return _UNSEEN.sub("", "\n\n".join(_blocks(body)))


def _blocks(parent: Any) -> Iterator[str]:
    loose = [_space(parent.text)]  # what stands between blocks
    for child in parent:
        if child.tag in _BLOCKS or (child.tag == "code" and parent.tag != "p"):
            yield from _paragraphs(loose)
            loose = []
            yield from _block(child)
        else:
            apart = "" if child.tag in _INLINE else " "
            loose += [apart, _inline(child), apart]
        loose.append(_space(child.tail))
    yield from _paragraphs(loose)


def _block(element: Any) -> Iterator[str]:
    if element.tag == "code":
        yield from _code(element)
    elif element.tag == "list":
        yield from _list(element)
    elif element.tag == "table":
        yield from _table(element)
    else:
        yield from _blocks(element)


def _paragraphs(pieces: Iterable[str]) -> Iterator[str]:
    """Text with line breaks in it: short lines are one block, as in verse."""
    lines = [" ".join(line.split()) for line in "".join(pieces).split("\n")]
    lines = [line for line in lines if line]
    if max(map(len, lines), default=0) > VERSE_CHARACTERS:
        yield from lines
    elif lines:
        yield "\n".join(lines)


def _list(element: Any) -> Iterator[str]:
    """A line for each item, farther in for the items of a list in a list."""
    lines: list[str] = []
    for indent, item in _items(element, ""):
        text = _one_line(item, without="list")
        if len(text) > CELL_CHARACTERS and len(item.findall("p")) > 1:
            yield from _together(lines)
            lines = []
            yield from _blocks(item)
        elif text:
            lines.append(f"{indent}- {text}")
    yield from _together(lines)


def _items(element: Any, indent: str) -> Iterator[tuple[str, Any]]:
    for item in element:
        yield indent, item
        for inner in item.findall("list"):
            yield from _items(inner, indent + "  ")


def _table(element: Any) -> Iterator[str]:
    """A line for each row; a table that holds paragraphs was there for its looks."""
    rows = [[(cell, _one_line(cell)) for cell in row] for row in element.iter(*_ROWS)]
    if any(len(text) > CELL_CHARACTERS for row in rows for _, text in row):
        for row in rows:
            for cell, _ in row:
                yield from _blocks(cell)
    else:
        full = [[text for _, text in row] for row in rows if any(text for _, text in row)]
        yield from _together([f"| {' | '.join(row)} |" for row in full])


def _code(element: Any) -> Iterator[str]:
    lines = "".join(_verbatim(element)).split("\n")
    text = "\n".join(line.rstrip() for line in lines).strip("\n")
    if text:
        yield text


def _together(lines: list[str]) -> Iterator[str]:
    if lines:
        yield "\n".join(lines)


def _one_line(element: Any, without: str = "") -> str:
    return " ".join(_inline(element, without).split())


def _inline(element: Any, without: str = "") -> str:
    """The text in an element; a line end stands for a line break alone."""
    if element.tag == "lb":
        return "\n"
    out = [_space(element.text)]
    for child in element:
        if child.tag != without:
            apart = "" if child.tag in _INLINE else " "
            out += [apart, _inline(child), apart]
        out.append(_space(child.tail))
    return "".join(out)


def _verbatim(element: Any) -> Iterator[str]:
    """The text in an element with the space in it as it is."""
    yield "\n" if element.tag == "lb" else element.text or ""
    for child in element:
        yield from _verbatim(child)
        yield child.tail or ""


def _space(text: str | None) -> str:
    return _SPACE.sub(" ", text) if text else ""
