"""A MediaWiki dump (XML, compressed or not) as plain texts of articles, one after another.

The texts are for comparing words, not for reading: templates, tables, notes and pictures are left
out, of a link its label stays. Each character is looked at once, whatever the brackets do.
"""

import html
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

from gptwo.errors import DataError
from gptwo.streams import DAMAGE, decompressed

REMEDY = "get a dump called pages-articles from dumps.wikimedia.org"
FILE, CATEGORY = "6", "14"  # keys of namespaces that show no text
_NAMES = ("file", "image", "category")

_MARK = re.compile(
    r"<!--|</?(?:ref|math|gallery|timeline|score|syntaxhighlight|imagemap)\b[^<>]*>"
    r"|\{\{|\}\}|\{\||\|\}(?!\})|\[\[|\]\]",
    re.IGNORECASE,
)
_TAG_NAME = re.compile(r"</?(\w+)")
_CLOSING = {"}}": "{{", "|}": "{|", "]]": "[["}
_EXTERNAL = re.compile(r"\[(?:https?:)?//[^\s\[\]]*+([^\[\]\n]*+)\]")  # possessive: linear
_QUOTES = re.compile(r"'{2,5}|__[A-Z]+__")
_BREAKS = re.compile(r"<(?:br|p|/p|div|/div|li|td|hr|blockquote)\b[^<>]*>", re.IGNORECASE)
_TAGS = re.compile(r"</?[A-Za-z][^<>]*>")


def read_articles(path: Path) -> Iterator[tuple[str, str]]:
    """Title and plain text of every article; pages of other kinds and redirects are left out.

    Raises `DataError` for what is no dump, or is cut short: half of it would leave the other half
    in the corpus.
    """
    try:
        with decompressed(path) as handle:
            yield from _articles(handle, path)
    except DAMAGE as damage:
        raise DataError(f"{path} is damaged: {damage}", remedy=REMEDY) from damage
    except ElementTree.ParseError as error:
        raise DataError(f"{path} is not whole XML: {error}", remedy=REMEDY) from error


def _articles(handle: Any, path: Path) -> Iterator[tuple[str, str]]:
    events = ElementTree.iterparse(handle, events=("start", "end"))
    _, root = next(events)
    if _name(root) != "mediawiki":
        raise DataError(f"{path} is <{_name(root)}>, not a MediaWiki dump", remedy=REMEDY)
    hidden: set[str] = set(_NAMES)
    for event, element in events:
        if event == "start":
            continue
        if _name(element) == "namespace" and element.get("key") in (FILE, CATEGORY):
            hidden.add((element.text or "").lower())
        elif _name(element) == "page":
            parts = {_name(part): part for part in element.iter()}
            if "redirect" not in parts and _text(parts, "ns") in ("", "0"):
                yield _text(parts, "title"), plain(_text(parts, "text"), frozenset(hidden))
            root.clear()


def _name(element: ElementTree.Element) -> str:
    return element.tag.rpartition("}")[2]


def _text(parts: dict[str, ElementTree.Element], name: str) -> str:
    return (parts[name].text or "").strip() if name in parts else ""


def plain(wikitext: str, hidden: frozenset[str] = frozenset(_NAMES)) -> str:
    """The running text of a page; `hidden` are the namespaces, in lower case, of links to drop.

    >>> plain("'''Ada''' was [[England|English]].<ref>{{cite}}</ref>")
    'Ada was English.'
    """
    text = _unwrap(wikitext, hidden)
    text = _EXTERNAL.sub(r"\1", text)
    text = _QUOTES.sub("", text)
    text = _TAGS.sub("", _BREAKS.sub(" ", text))
    return html.unescape(text)


def _unwrap(text: str, hidden: frozenset[str]) -> str:
    """What lies in no template, table, note or comment, and the labels of links."""
    open_marks: list[str] = []
    out: list[list[str]] = [[]]  # one more for each open link
    dropping = 0  # open templates and tables
    place = 0
    unclosed: set[str] = set()
    while found := _MARK.search(text, place):
        mark, start, end = found[0], found.start(), found.end()
        if not dropping:
            out[-1].append(text[place:start])
        place = end
        if mark[0] == "<":
            place = _after(text, mark, end, unclosed)
        elif mark in ("{{", "{|"):
            open_marks.append(mark)
            dropping += 1
        elif mark == "[[":
            open_marks.append(mark)
            out.append([])
        elif _CLOSING[mark] in open_marks[-_DEPTH:]:
            while (opened := open_marks.pop()) != _CLOSING[mark]:
                dropping -= _close(opened, out, hidden)
            dropping -= _close(opened, out, hidden)
    if not dropping:
        out[-1].append(text[place:])
    return "".join(part for parts in out for part in parts)


_DEPTH = 64  # open marks among which a closing one finds its own


def _close(opened: str, out: list[list[str]], hidden: frozenset[str]) -> int:
    """Close a mark; 1 when it was one whose content is dropped."""
    if opened != "[[":
        return 1
    link = "".join(out.pop())
    target, _, label = link.partition("|")
    if target.partition(":")[0].strip().lower() not in hidden:
        out[-1].append(label or target)
    return 0


def _after(text: str, mark: str, end: int, unclosed: set[str]) -> int:
    """Where the text goes on after a comment or an element that shows none.

    What is not closed is passed over, and not looked for again.
    """
    if mark == "<!--":
        closing = "-->"
    else:
        found = _TAG_NAME.match(mark)
        if mark.startswith("</") or mark.endswith("/>") or not found:
            return end
        closing = f"</{found[1].lower()}"
    if closing in unclosed:
        return end
    at = text.find(closing, end)
    if at < 0:
        unclosed.add(closing)
        return end
    return text.find(">", at) + 1 or len(text)
