"""The HTML parser: its rules, and that the kernel and the plain twin read alike."""

import runpy
from pathlib import Path
from typing import Any

import pytest

from gptwo.corpus.html import parse
from gptwo.corpus.html_tags import PROPERTY, TAGS, Flag


def kernel() -> Any:
    return pytest.importorskip("gptwo.native._html")


def both(page: str) -> list[Any]:
    """The nodes of a page as the twin reads it; the kernel must read the same."""
    nodes = parse(page)
    plain = [(n.tag, n.parent, n.last, n.flags, n.text, n.attributes) for n in nodes]
    assert kernel().parse(page.encode("utf-8", "surrogatepass")) == plain
    return nodes


def shape(page: str) -> str:
    """The body of a page in brackets: `p(a b(c))`."""
    nodes = both(page)

    def show(at: int) -> str:
        node = nodes[at]
        if not node.tag:
            return node.text
        inside, child = [], at + 1
        while child < node.last:
            inside.append(show(child))
            child = nodes[child].last
        return f"{TAGS[node.tag]}({' '.join(inside)})"

    (body,) = (i for i, node in enumerate(nodes) if TAGS[node.tag] == "body")
    return show(body).removeprefix("body(").removesuffix(")")


def test_tables_are_those_of_the_twin() -> None:
    assert kernel().tags() == list(zip(TAGS, PROPERTY, strict=True))
    root = Path(__file__).parents[2]
    made = runpy.run_path(str(root / "scripts" / "html_entities.py"))["header"]()
    assert made == (root / "gptwo/native/html_entities.h").read_text(encoding="utf-8").rstrip()


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<p>one<p>two", "p(one) p(two)"),
        ("<p>one<div>two</div>three", "p(one) div(two) three"),
        ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "ul(li(a) li(b ul(li(c))) li(d)) e"),
        ("<dl><dt>a<dd>b<dt>c</dl>", "dl(dt(a) dd(b) dt(c))"),
        ("<table><td>a<td>b<tr><td>c</table>d", "table(tr(td(a) td(b)) tr(td(c))) d"),
        ("<h1>a<h2>b</h1>c", "h1(a) h2(b) c"),
        ("a</div>b", "a b"),
    ],
)
def test_end_tags_that_are_left_out(page: str, expected: str) -> None:
    assert shape(page) == expected


def test_attributes() -> None:
    page = "<a CLASS='x &amp; y' id=top href=#here hidden style='DISPLAY : none' class=no>b</a>"
    (link,) = (n for n in both(page) if TAGS[n.tag] == "a")
    assert link.attributes == {"class": "x & y", "id": "top", "href": "#here"}
    assert link.flags == Flag.HIDDEN | Flag.NOT_SHOWN | Flag.LINK | Flag.LOCAL_LINK
