"""The main text of a page, fast: `--extractor bulk`. The plain twin of native/extract.c.

Every line of a page has a value: the bytes of prose in it, or minus those in links. The `frame` is
the element of the greatest sum: what is around it adds menus, and no prose. The `core` is the
innermost element in it with most of that sum, or with half of it when it says that it is the
article. Elements whose tag or class says that they are something else do not count, unless they
hold so much of the page's prose that the name must mean something else there.

Kept are the core, siblings of the same class up to the frame, and prose between the title and the
core; of those not the lines and lists that are mostly links, nor headings with nothing below them.
No rule looks at what a line says, so that all languages are treated alike.
"""

import re
from collections.abc import Callable
from functools import lru_cache
from itertools import accumulate
from typing import Any

from gptwo.corpus.extraction.html import Node, parse
from gptwo.corpus.extraction.html_tags import TAG, Flag
from gptwo.corpus.extraction.lines import HEADINGS, Line, read_lines, tags
from gptwo.errors import DataError

# How a word in the class or id of what is not the article begins; after = the whole word.
# An element with one of the first is left out unless it holds 60% of the page's prose,
PARTS = (
    "comment kommentar coment respond footer =nav navi navbar =menu breadcrumb sidebar cookie "
    "consent related relacionad recommend newsletter subscri =share sharing popup overlay paywall "
    "=login"
)
# with one of these unless all elements with this word hold 40%: they name whole layouts, too.
PIECES = (
    "promo sponsor =ad =ads advert banner widget toolbar pagin =author byline =bio avatar =tag "
    "=tags =meta caption credit copyright disclaimer =print rating =category date timestamp "
    "trending popular follow =search =legal =rail"
)
TAGS_OF_PIECES = "nav footer aside figcaption menu"
NAMES = f"{PARTS} {PIECES} {TAGS_OF_PIECES}".split()
NOT_SHOWN = len(NAMES)  # the bit of what is hidden, a part
_PARTS_BITS = (1 << len(PARTS.split())) - 1 | 1 << NOT_SHOWN
_TAG_BITS = {TAG[name]: 1 << NOT_SHOWN - 5 + i for i, name in enumerate(TAGS_OF_PIECES.split())}
_ROLES = {"navigation": "nav", "contentinfo": "footer", "complementary": "aside"}
POSTS = {"hentry", "publish"}  # beside these blogs list the tags and categories of an article

MOST = 1 << 29  # bytes of a page
PARAGRAPH = 80  # bytes outside links from which a line is prose
SENTENCE = 20  # a longer line is, too, when it ends as a sentence does
TITLE = 300  # the first <h1>, with fewer bytes kept before it, is the title: text begins there
LABEL = 60  # a shorter line can be a heading whatever its tag

_ARTICLE = tags("article main")
_LISTS, _CELLS = tags("ul ol dl dir menu table"), tags("td th")
_BODY, _H1, _LI, _TR = TAG["body"], TAG["h1"], TAG["li"], TAG["tr"]
_WORD = re.compile(r"[A-Za-z]+")
_HUMP = re.compile(r"[A-Z]?[a-z]+|[A-Z]+(?![a-z])")  # of a word in camel case
_ENDS = tuple(".!?:…\"'”’»)]。！？")

Total = Callable[[int], int]  # of an element, over the lines in it


def extract_bulk(html: str) -> str:
    """The main text of a page, "" when there is none.

    Paragraphs, headings and code are separated by an empty line. Items of lists are lines that
    begin with "- ", rows of tables lines like "| a | b |".
    """
    page = html.encode("utf-8", "replace")
    if len(page) > MOST:
        raise DataError(
            f"a page of {len(page):,} bytes; at most {MOST:,} are read",
            remedy="cap pages when they are fetched",
        )
    kernel = _kernel()
    return kernel.extract(page) if kernel else plain_extract(page.decode())


def _kernel() -> Any:
    try:
        from gptwo.native import _extract  # type: ignore[import-not-found]
    except ImportError:
        return None
    return _extract


def plain_extract(html: str) -> str:
    """The twin of `extract_bulk` without a kernel."""
    nodes = parse(html)
    return join(nodes, main_lines(nodes, read_lines(nodes)))


# ---- what lines and elements say ----


def value(line: Line) -> int:
    """How much a line speaks for the element that it is in, in bytes."""
    own = line.size - line.linked
    if own >= PARAGRAPH and line.linked * 2 < line.size:
        return own - line.linked
    if line.size > SENTENCE and line.linked * 10 < line.size * 3 and line.text.endswith(_ENDS):
        return line.size
    return -line.linked - line.linked // 2


def words(names: str) -> list[str]:
    """The words of a class or id, and the parts of those in camel case, in lower case."""
    out: list[str] = []
    for word in _WORD.findall(names):
        out.append(word.lower())
        if not (word[1:].islower() or word.isupper()):  # shorter parts are often made by machines
            out += [part.lower() for part in _HUMP.findall(word) if len(part) > 3]
    return out


def names(node: Node) -> int:
    """The bits of NAMES and NOT_SHOWN that hold for an element."""
    if node.tag == TAG["#text"] or node.tag in (TAG["html"], TAG["head"], _BODY):
        return 0
    bits = _TAG_BITS.get(node.tag, 0)
    bits |= _TAG_BITS.get(TAG.get(_ROLES.get(node.attributes.get("role", "").lower(), ""), 0), 0)
    if node.flags & (Flag.HIDDEN | Flag.NOT_SHOWN):
        bits |= 1 << NOT_SHOWN
    if node.tag in _ARTICLE:
        return bits
    found = words(node.attributes.get("class", ""))
    if POSTS.isdisjoint(found):
        for word in found + words(node.attributes.get("id", "")):
            bits |= _bits_of(word)
    return bits


@lru_cache(4096)
def _bits_of(word: str) -> int:
    bits = 0
    for bit, name in enumerate(NAMES[:-5]):
        if word == name[1:] if name[0] == "=" else word.startswith(name):
            bits |= 1 << bit
    return bits


def says_article(node: Node) -> bool:
    return (
        node.tag in _ARTICLE
        or node.attributes.get("role", "").lower() == "main"
        or "articlebody" in node.attributes.get("itemprop", "").lower()
    )


# ---- where the article is ----


def totals(nodes: list[Node], lines: list[Line], numbers: list[int]) -> Total:
    """The sum of some number of each line, for any element."""
    own = [0] * len(nodes)
    for line, number in zip(lines, numbers, strict=True):
        own[line.node] += number
    sums = [0, *accumulate(own)]
    return lambda at: sums[nodes[at].last] - sums[at]


def find_foreign(nodes: list[Node], prose: Total) -> list[bool]:
    """Of each node, whether it is in something that is not the article."""
    every = prose(0)
    bits = [names(node) for node in nodes]
    held, until = [0] * (NOT_SHOWN + 1), [0] * (NOT_SHOWN + 1)
    for at, some in enumerate(bits):
        while some:
            bit = some.bit_length() - 1
            some ^= 1 << bit
            if at >= until[bit]:
                held[bit] += prose(at)
                until[bit] = nodes[at].last
    layout = sum(1 << bit for bit, size in enumerate(held) if size * 5 > every * 2)
    foreign: list[bool] = []
    for at, node in enumerate(nodes):
        foreign.append(
            (at > 0 and foreign[node.parent])
            or bits[at] & ~_PARTS_BITS & ~layout != 0
            or (bits[at] & _PARTS_BITS != 0 and prose(at) * 5 <= every * 3)
        )
    return foreign


def find_core(nodes: list[Node], foreign: list[bool], score: Total) -> tuple[int, int]:
    """Frame and core, elements."""
    frame, best = 0, 0
    for at, node in enumerate(nodes):
        if not foreign[at] and node.tag != TAG["#text"]:
            now = score(at)
            if now > best or (now == best > 0 and at < nodes[frame].last):
                frame, best = at, now
    core, at = frame, frame
    while best and at < nodes[core].last:
        if not foreign[at] and nodes[at].tag != TAG["#text"]:
            now = score(at)
            if now * 20 >= best * 17 or (now * 2 >= best and says_article(nodes[at])):
                core = at
        at += 1
    return frame, core


def spread(
    nodes: list[Node], foreign: list[bool], score: Total, frame: int, core: int
) -> list[bool]:
    """Of each node, whether it is in the core or in one of its like up to the frame."""
    inside = [False] * len(nodes)
    for at in range(core, nodes[core].last):
        inside[at] = True
    at = core
    while at != frame:
        kind = (nodes[at].tag, nodes[at].attributes.get("class"))
        up = nodes[at].parent
        beside = up + 1
        while beside < nodes[up].last:
            node = nodes[beside]
            like = kind[1] and kind == (node.tag, node.attributes.get("class"))
            if like and not foreign[beside] and score(beside) > 0:
                inside[beside : node.last] = [True] * (node.last - beside)
            beside = node.last
        at = up
    return inside


# ---- what of it is kept ----


def find_lists(nodes: list[Node], lines: list[Line]) -> list[bool | None]:
    """Of each node, whether it is in a list or table, by whether that is mostly links."""
    size = totals(nodes, lines, [line.size for line in lines])
    linked = totals(nodes, lines, [line.linked for line in lines])
    out: list[bool | None] = []
    for at, node in enumerate(nodes):
        above = out[node.parent] if at else None
        if above is None and node.tag in _LISTS and size(at):
            above = linked(at) * 10 > size(at) * 7
        out.append(above)
    return out


def main_lines(nodes: list[Node], lines: list[Line]) -> list[Line]:
    """The lines of the main text."""
    values = [value(line) for line in lines]
    foreign = find_foreign(nodes, totals(nodes, lines, [max(number, 0) for number in values]))
    counted = [
        0 if foreign[line.node] else number for line, number in zip(lines, values, strict=True)
    ]
    score = totals(nodes, lines, counted)
    frame, core = find_core(nodes, foreign, score)
    inside = spread(nodes, foreign, score, frame, core)
    title = max(
        (at for at in range(core) if nodes[at].tag == _H1 and not foreign[at]), default=frame
    )
    lists = find_lists(nodes, lines)
    kept: list[int] = []
    links = [False] * (len(lines) + 1)  # left out as such
    size, titled = 0, False
    for number, line in enumerate(lines):
        at = line.node
        if foreign[at] or not (inside[at] or (title < at < core and values[number] > 0)):
            continue
        few = line.linked * 2 > line.size and line.size - line.linked < PARAGRAPH
        if nodes[at].tag == _H1 and not titled and size < TITLE:
            kept, size, titled = [], 0, True
        elif few if lists[at] is None else lists[at]:
            links[number] = True
        else:
            kept.append(number)
            size += line.size
    return _without_empty_headings(nodes, lines, kept, links)


def _without_empty_headings(
    nodes: list[Node], lines: list[Line], kept: list[int], links: list[bool]
) -> list[Line]:
    """`kept` but for headings above nothing, above links, or above a heading of their rank.

    A short line that ends with a colon is one, too; above links any is that is no sentence.
    """
    out: list[Line] = []
    below = 0  # tag of the line that follows
    for number in reversed(kept):
        line, tag = lines[number], nodes[lines[number].node].tag
        heading = tag in HEADINGS
        colon = line.size < LABEL and line.text.endswith(":")
        label = line.size < LABEL and not line.text.endswith(_ENDS)
        if (heading or colon) and not out:
            continue
        if (heading or colon or label) and links[number + 1]:
            continue
        if heading and below in HEADINGS and below <= tag:
            continue
        out.append(line)
        below = tag
    return out[::-1]


# ---- text ----


def join(nodes: list[Node], lines: list[Line]) -> str:
    """Lines -> text."""
    item, row = nearest(nodes, _LI), nearest(nodes, _TR)
    cells = count_cells(nodes, lines, row)
    out: list[str] = []
    seen: set[int] = set()
    before, before_row = "", 0
    for line in lines:
        at = line.node
        tag, kind, text = nodes[at].tag, "", line.text
        if cells.get(row[at], 0) > 1:
            kind, text = "row", "| " + text.replace("\n", " ") + " |"
        elif item[at] and item[at] not in seen and tag not in HEADINGS and not line.verbatim:
            kind, text = "item", "- " + text.replace("\n", " ")
        seen.add(item[at])
        if kind == "row" == before and row[at] == before_row:
            text = text[1:]
        elif out:
            out.append("\n" if kind and kind == before else "\n\n")
        out.append(text)
        before, before_row = kind, row[at]
    return "".join(out)


def nearest(nodes: list[Node], tag: int) -> list[int]:
    """Of each node, the innermost element of a tag that it is in; 0 when there is none."""
    out: list[int] = []
    for at, node in enumerate(nodes):
        out.append(at if node.tag == tag else out[node.parent] if at else 0)
    return out


def count_cells(nodes: list[Node], lines: list[Line], row: list[int]) -> dict[int, int]:
    """How many cells a row has, if each of them is one line and there is nothing else."""
    cells: dict[int, int] = {}
    last: dict[int, int] = {}
    for line in lines:
        at = row[line.node]
        alone = nodes[line.node].tag in _CELLS and last.get(at) != line.node
        if not alone or line.verbatim:
            cells[at] = -len(lines)
        cells[at] = cells.get(at, 0) + 1
        last[at] = line.node
    return cells
