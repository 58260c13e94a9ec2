"""The HTML parser: its rules, and that the kernel and the plain twin read alike."""

import json
import runpy
import subprocess
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from resiliparse.parse.html import HTMLTree, NodeType

from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.html import DEPTH, Node, parse
from gptwo.corpus.extraction.html_tags import ATTRIBUTES, PROPERTY, TAGS, Flag


def kernel() -> Any:
    return pytest.importorskip("gptwo.native._html")


def both(page: str) -> list[Node]:
    """The nodes of a page as the twin reads it; the kernel must read the same."""
    nodes = parse(page)
    plain = [(n.tag, n.parent, n.last, n.flags, n.text, n.attributes) for n in nodes]
    assert kernel().parse(page.encode("utf-8", "surrogatepass")) == plain
    return nodes


def children(nodes: list[Node], at: int) -> Iterator[int]:
    child = at + 1
    while child < nodes[at].last:
        yield child
        child = nodes[child].last


def element(nodes: list[Node], name: str) -> int:
    (found,) = (at for at, node in enumerate(nodes) if TAGS[node.tag] == name)
    return found


def shape(page: str, inside: str = "body") -> str:
    """What an element holds, in brackets: `p(a b(c))`."""
    nodes = both(page)

    def show(at: int) -> str:
        node = nodes[at]
        if not node.tag:
            return node.text
        return f"{TAGS[node.tag].lstrip('#')}({' '.join(map(show, children(nodes, at)))})"

    return " ".join(map(show, children(nodes, element(nodes, inside))))


def text(page: str) -> str:
    return "".join(node.text for node in both(page))


def test_tables_are_those_of_the_twin() -> None:
    assert kernel().tags() == list(zip(TAGS, PROPERTY, strict=True))
    root = Path(__file__).parents[2]
    made = runpy.run_path(str(root / "scripts" / "html_entities.py"))["header"]()
    assert made == (root / "gptwo/native/html_entities.h").read_text(encoding="utf-8").rstrip()


def test_every_tag_is_known_in_either_case() -> None:
    for name in TAGS[2:]:
        both(f"<body><table><{name.upper()} class=a>b</{name}>c<td><{name}y>d</{name}y>e")


# Page -> what the body holds. Where the standard moves or copies nodes, what stays of that.
SHAPES = {
    "void elements": ("a<br>b<img src=x>c<hr>d<input>e</br>f", "a br() b img() c hr() d input() e "
                      "br() f"),
    "a self-closing tag of HTML is open": ("<div/>a</div>b", "div(a) b"),
    "paragraphs": ("<p>a<p>b</p>c", "p(a) p(b) c"),
    "a block ends a paragraph": ("<p>a<div>b</div>c</p>d", "p(a) div(b) c p() d"),
    "so does a list or a heading": ("<p>a<ul><li><p>b<li>c</ul><p>d<h2>e</h2>",
                                    "p(a) ul(li(p(b)) li(c)) p(d) h2(e)"),
    "not inside a button": ("<p><button><div>a</div><p>b</button>c", "p(button(div(a) p(b)) c)"),
    "items": ("<ul><li>a<li>b<ul><li>c</ul><li>d</ul>e", "ul(li(a) li(b ul(li(c))) li(d)) e"),
    "an item ends in a div of it": ("<ul><li><div>a<li>b</ul>", "ul(li(div(a)) li(b))"),
    "not outside its list": ("<ul><li>a<ol></li>b</ol>c</ul>", "ul(li(a ol(b) c))"),
    "definitions": ("<dl><dt>a<dd>b<dt>c</dl>", "dl(dt(a) dd(b) dt(c))"),
    "options": ("<select><optgroup><option>a<option>b<optgroup><option>c</select>d",
                "select(optgroup(option(a) option(b)) optgroup(option(c))) d"),
    "a select in a select ends it": ("<select><option>a<select>b", "select(option(a)) b"),
    "ruby": ("<ruby>a<rp>(<rt>b<rp>)</ruby>", "ruby(a rp(() rt(b) rp()))"),
    "rows and cells": ("<table><tr><td>a<th>b<tr><td>c</table>d",
                       "table(tr(td(a) th(b)) tr(td(c))) d"),
    "parts of a table": (
        "<table><caption>t<colgroup><col><thead><tr><td>a<tbody><tr><td>b<tfoot><td>c</table>",
        "table(caption(t) colgroup(col()) thead(tr(td(a))) tbody(tr(td(b))) tfoot(tr(td(c))))"),
    "a row that is implied": ("<table><td>a</table>", "table(tr(td(a)))"),
    "a cell ends what is open in it": ("<table><td><div><b>a<td>b</table>c",
                                       "table(tr(td(div(b(a))) td(b))) c"),
    "no end tag reaches out of a cell": ("<div><table><td>a</div></p>b</table>c</div>d",
                                         "div(table(tr(td(a p() b))) c) d"),
    "tables in tables": ("<table><td><table><td>a</table>b</table>c",
                         "table(tr(td(table(tr(td(a))) b))) c"),
    "a table right inside a table ends it": ("<table><tr><table><td>a",
                                             "table(tr()) table(tr(td(a)))"),
    "cells without a table": ("a<td>b</td>c", "a b c"),
    "headings": ("<h1>a<h2>b</h1>c", "h1(a) h2(b) c"),
    "stray end tags": ("a</div></span></li></x-y></table>b", "a b"),
    "sections end what is open in them": ("<section><div><b>a</section>b", "section(div(b(a))) b"),
    "phrases": ("<p>a<b>b<i>c</b>d</i>e", "p(a b(b i(c)) d e)"),
    "no phrase ends outside its block": ("<b>a<div>b</b>c</div>d", "other(a div(b c) d)"),
    "custom elements": ("<x-y>a<x-z>b</x-y>c", "other(a other(b)) c"),
    "a link ends a link": ("<a>a<a>b</a>c", "a(a) a(b) c"),
    "or is none when that is too late": ("<a>a<div><a>b</a></div>c", "other(a div(a(b)) c)"),
    "a form in a form": ("<form>a<form>b</form>c", "form(a b) c"),
    "a form that ends in a block of it": ("<form><div>a</form>b</div>c", "other(div(a b) c)"),
    "svg": ("<svg><path/><g/><title>a</title></svg>b", "svg(other() other() title(a)) b"),
    "svg without an end": ("<svg><path/><p>a", "svg(other()) p(a)"),
    "HTML in svg": ("<svg><foreignObject><p>a</p><p>b</p></foreignObject><path/></svg>c",
                    "svg(foreignobject(p(a) p(b)) other()) c"),
    "an image of svg": ("<svg><image/><g/></svg>a<image>b", "svg(image() other()) a image() b"),
    "noscript is read": ("<body><noscript><p>a</noscript>b", "noscript(p(a)) b"),
    "template": ("<div><template></div><td>a</template>b</div>c",
                 "div(template(tr(td(a))) b) c"),
    "body is not ended by its end tag": ("<body>a</body></html>b", "a b"),
}  # fmt: skip


@pytest.mark.parametrize("name", SHAPES)
def test_shapes(name: str) -> None:
    page, expected = SHAPES[name]
    assert shape(page) == expected


# Page -> what the whole of it holds.
PAGES = {
    "nothing": ("", "body()"),
    "white space": (" \n ", "body()"),
    "all implied": ("a", "body(a)"),
    "a head implied": ("<title>t</title>a", "head(title(t)) body(a)"),
    "all given": ("<!doctype html><html><head><meta></head><body>a</body></html>",
                  "head(meta()) body(a)"),
    "what is no head opens the body": ("<head><link><p>a", "head(link()) body(p(a))"),
    "text too": ("<head> <style>s</style> a<script>b</script>",
                 "head(style(s)) body(a script(b))"),
    "noscript stays in the head": ("<head><noscript><img></noscript><title>t</title></head>a",
                                   "head(noscript(img()) title(t)) body(a)"),
    "even without an end": ("<head><noscript><img><body>a", "head(noscript(img())) body(a)"),
    "behind the head": ("</head><head></head><script>a</script>b", "script(a) body(b)"),
    "end tags before the body": ("</p></div></title>", "body()"),
}  # fmt: skip


@pytest.mark.parametrize("name", PAGES)
def test_head_and_body(name: str) -> None:
    page, expected = PAGES[name]
    assert shape(page, inside="html").replace("head() ", "") == expected


def test_late_attributes_of_html_and_body_count_once() -> None:
    nodes = both("a<html lang=en><body class=b><html lang=de><body class=c hidden>")
    assert nodes[0].attributes == {"lang": "en"}
    body = nodes[element(nodes, "body")]
    assert (body.attributes, body.flags) == ({"class": "b"}, 0)


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("a<!-- b -->c<!-->d<!--->e<!-- > -- > --!>f<!---->g<!--->-->h", "acdefg-->h"),
        ("a<!doctype html>b<?php c ?>d</ e>f</>g<!e>h", "abdfgh"),
        ("a<![CDATA[ b ]]>c<svg><![CDATA[<d>]]>]]></svg>", "ac<d>]]>"),
        ("a < b <1> <- </", "a < b <1> <- </"),
        ("a<b c", "a"),
        ("a<b title='>", "a"),
        ("a<!-- b>", "a"),
        ("a\0b<sc\0ript>c\0</script>", "abc"),
        ("a\r\nb\rc\n\r", "a\nb\nc\n\n"),
        ("<pre>\na\n\nb</pre><pre>\r\nc</pre><p>\nd", "a\n\nbc\nd"),
    ],
)
def test_what_is_no_text(page: str, expected: str) -> None:
    assert text(f"<body>{page}") == expected


@pytest.mark.parametrize(
    ("page", "expected"),
    [
        ("<script>a</b>&amp;</script >c", "script(a</b>&amp;) c"),
        ("<script>a</scripts></script/>b", "script(a</scripts>) b"),
        ("<script><!-- <script>a</script> --></script>b", "script(<!-- <script>a</script> -->) b"),
        ("<script><!--> <script>a</script>b", "script(<!--> <script>a) b"),
        ("<script><!-- a</script>b", "script(<!-- a) b"),
        ("<STYLE><!-- a</Style>b", "style(<!-- a) b"),
        ("<textarea>\n<p>a &lt; b</textarea>c", "textarea(<p>a < b) c"),
        ("<xmp><p>&lt;</xmp><iframe><p></iframe>c", "xmp(<p>&lt;) iframe(<p>) c"),
        ("<script>a", "script(a)"),
        ("<plaintext>a</plaintext>", "plaintext(a</plaintext>)"),
        ("<\u017fcript>a</\u017fcript>", "<\u017fcript>a"),  # a long s is no s
    ],
)
def test_raw_text(page: str, expected: str) -> None:
    found = shape(f"<body>{page}")
    assert found == expected


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ("&lt;&gt;&amp;&quot;&apos;&nbsp;&eacute;", "<>&\"'\u00a0\u00e9"),
        ("&AMP;&lt&notin;&notit;&not", "&<\u2209\u00acit;\u00ac"),
        ("&Lt;&lT;&nGt;&ngE;", "\u226a&lT;\u226b\u20d2\u2267\u0338"),
        ("&CounterClockwiseContourIntegral;&CounterClockwiseContourIntegral", "\u2233"
         "&CounterClockwiseContourIntegral"),
        ("&#65;&#x41;&#X41&#65b&#x;&#;&;&", "AAAAb&#x;&#;&;&"),
        ("&#128;&#150;&#x9F;&#129;&#160;", "\u20ac\u2013\u0178\x81\u00a0"),
        ("&#0;&#xD800;&#1114112;&#x10FFFF;", "\ufffd\ufffd\ufffd\U0010ffff"),
        ("&#" + "9" * 5000 + ";&#x" + "0" * 5000 + "41;", "\ufffdA"),
        ("&amp;amp; &ampx &amp=", "&amp; &x &="),
    ],
)  # fmt: skip
def test_characters_by_name_and_number(written: str, read: str) -> None:
    assert text(f"<body>{written}") == read


def attributes(tag: str) -> dict[str, str]:
    return both(f"<body>{tag}")[-1].attributes


def test_attributes() -> None:
    assert attributes("<p class=a id = 'b c' REL=\"d\">") == {"class": "a", "id": "b c", "rel": "d"}
    assert attributes("<p id=1 class ID=2 title=3 lang=>") == {"id": "1", "class": "", "lang": ""}
    assert attributes("<a rel=a/b/>") == {"rel": "a/b/"}
    assert attributes("<p/id=1/class='2'id2=3 =rel=4 rel=5\n>") == {
        "id": "1/class='2'id2=3", "rel": "5"
    }  # fmt: skip
    assert attributes("<a id='?a=1&lt=2&copy;&amp'>") == {"id": "?a=1&lt=2\u00a9&"}
    assert attributes("<p class='a>b\r\nc'>") == {"class": "a>b\nc"}
    every = {name: f"{number}" for number, name in enumerate(sorted(ATTRIBUTES))}
    assert attributes(f"<p {' '.join(f'{k}={v}' for k, v in every.items())} x=1>") == every
    assert attributes("<x-y \u212aind=1 \u017ftyle=2 class=3>") == {"class": "3"}


@pytest.mark.parametrize(
    ("attribute", "flags"),
    [
        ("hidden", Flag.HIDDEN),
        ("hidden=''", Flag.HIDDEN),
        ("aria-hidden=TRUE", Flag.ARIA_HIDDEN),
        ("aria-hidden=false", 0),
        ("style='color: red; Display :\nnone !important'", Flag.NOT_SHOWN),
        ("style=visibility:hidden", Flag.NOT_SHOWN),
        ("style='display:inline'", 0),
        ("style='display:nonsense'", 0),
        ("style='x: d display:no display:&#110;one'", Flag.NOT_SHOWN),
        ("href", Flag.LINK),
        ("href=' #top'", Flag.LINK | Flag.LOCAL_LINK),
        ("href=JavaScript:void(0)", Flag.LINK | Flag.LOCAL_LINK),
        ("href=/#top", Flag.LINK),
        ("data-hidden=1 hidden2", 0),
    ],
)
def test_flags(attribute: str, flags: int) -> None:
    assert both(f"<body><a {attribute}>")[-1].flags == flags


# ---- hostile pages ----

# Each so often that it would fill about `n` bytes.
HOSTILE = {
    "depth": lambda n: "<div>" * (n // 5) + "a",
    "bold": lambda n: "<p>" + "<b>" * (n // 3) + "a",
    "ends": lambda n: "<div>" * 600 + "</div>" * (n // 6),
    "ends held up": lambda n: "<div><table><td>" + "<b>" * 505 + "</div>" * (n // 6),
    "ends of nothing": lambda n: "".join(f"<x-{i}>" for i in range(509)) + "</x-no>" * (n // 7),
    "paragraphs held up": lambda n: "<p><object>" + "<b>" * 505 + "<p></p></p>" * (n // 11),
    "long names": lambda n: f"<{'a' * (n // 1024)}>" * 512 + f"</{'a' * (n // 1024)}b>" * 512,
    "attributes": lambda n: "<p " + "a=1 " * (n // 4) + ">a",
    "attributes that are kept": lambda n: "<p " + "class=1 id=2 " * (n // 13) + ">a",
    "one tag": lambda n: "<a " * (n // 3),
    "a quote": lambda n: '<p title="' + "a>" * (n // 2),
    "a comment": lambda n: "<!--" * (n // 4),
    "dashes": lambda n: "<!--" + "-" * n,
    "a script": lambda n: "<script>" + "<!-- <script></script>" * (n // 22),
    "raw text": lambda n: "<style>" + "</styl" * (n // 6),
    "CDATA": lambda n: "<svg>" + "<![CDATA[ ]]" * (n // 12),
    "svg": lambda n: "<svg>" + "<g>" * 505 + "<path/>" * (n // 7),
    "marks": lambda n: "<" * n,
    "ampersands": lambda n: "&" * n,
    "names": lambda n: f"&{'a' * 40}" * (n // 41),
    "one number": lambda n: "&#" + "1" * n,
    "what grows": lambda n: "&nGt;" * (n // 5),
    "NULs": lambda n: "\0" * n + "a",
    "line ends": lambda n: "\r" * n + "a",
    "no tag": lambda n: "a b " * (n // 4),
    "white space": lambda n: " " * n,
    "a style": lambda n: f'<p style="{"display :" * (n // 18)}{"d  " * (n // 6)}">',
    "a table": lambda n: "<table>" + "<tr><td>a<td>b" * (n // 14),
    "tables": lambda n: "<table><td>" * (n // 11),
    "options": lambda n: "<select>" + "<option>a" * (n // 9),
    "templates": lambda n: "<template>" * (n // 10),
    "paragraphs": lambda n: "</p>" * (n // 4),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_pages_are_read_alike(name: str) -> None:
    nodes = both(HOSTILE[name](20_000))
    depth = [0] * len(nodes)
    for at in range(1, len(nodes)):
        depth[at] = depth[nodes[at].parent] + 1
    assert max(depth) <= DEPTH


def test_deep_elements_become_siblings() -> None:
    nodes = both("<div>" * 100_000 + "deep")
    assert len(nodes) == 100_003
    assert nodes[-1].text == "deep" and nodes[-1].parent == 100_001
    assert nodes[100_001].parent == DEPTH - 2 == nodes[100_000].parent


# In a process that may use neither much time nor much memory: what is not linear would need hours
# for pages of megabytes.
LIMITED = """
import json, resource, sys
from gptwo.native import _html
pages = json.load(sys.stdin)
resource.setrlimit(resource.RLIMIT_CPU, (120, 120))
resource.setrlimit(resource.RLIMIT_AS, (1 << 30, 1 << 30))
print(json.dumps({name: _html.count(page.encode()) for name, page in pages.items()}))
"""


@pytest.mark.parametrize("size", [100_000, 4_000_000])
def test_hostile_pages_take_little_time_and_memory(size: int) -> None:
    kernel()
    pages = {name: page(size) for name, page in HOSTILE.items()}
    pages["a million attributes"] = "<p " + "a=1 " * 1_000_000 + ">a"
    pages["no tag"] = "a b " * 5_000_000
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED],
        input=json.dumps(pages),
        capture_output=True,
        text=True,
        check=True,
    )
    counts = json.loads(ran.stdout)
    assert counts["no tag"] == 3 and counts["a million attributes"] == 4
    assert counts["depth"] == size // 5 + 3
    assert counts["a table"] == size // 14 * 5 + 3


def test_a_page_that_is_too_large_is_refused() -> None:
    page = bytes(1 << 20) * 513
    with pytest.raises(ValueError, match=f"{len(page)} bytes, over {1 << 29}"):
        kernel().parse(page)


# ---- anything ----

NAMES = "p div li ul dl dt dd h1 h2 b a span em code pre form button section svg math path option "
NAMES += "optgroup select title script style textarea xmp iframe noscript template object x-y ruby "
NAMES += "rt rp hr br img image body html head foreignObject table tr td th tbody caption col "
NAMES += "colgroup plaintext P DIV TABLE"
_BITS = (
    "a b|&amp;|&lt|&notit;|&not|&#x41;|&#0;|&#128;|&#xD800;|&nGt;|&|&#;|x < y| |\n|\0|\r\n|ß|"
    "\ud800|\U0001f600|"
    "<!-- c -->|<!-->|<!--->|<!--a--!>|<!x>|<?php x ?>|</ x>|</>|<![CDATA[ x ]] ]]>|"
    '<!doctype html>|<!--<script>|-->|<|</|<!|"|\'|<a href="|>'
)
_GIVEN = (
    "| class='a b'| id=q| href=#x| a| /| hidden=| style='display:none'|/| title='>'| =x| a=b/|"
    " &amp;=&lt;| class='&lt=&lt;'| id=1 id=2|"
)
BITS, GIVEN = _BITS.split("|"), _GIVEN.split("|")
PIECES = st.one_of(
    st.tuples(st.sampled_from(NAMES.split()), st.sampled_from(GIVEN)).map("<{0[0]}{0[1]}>".format),
    st.sampled_from(NAMES.split()).map("</{}>".format),
    st.sampled_from(BITS),
    st.text(max_size=4),
)


@settings(max_examples=400, deadline=None)
@given(st.lists(PIECES, max_size=30).map("".join))
def test_any_page_is_read_alike(page: str) -> None:
    nodes = both(page)
    assert nodes[0].parent == -1 and nodes[0].last == len(nodes)
    for at, node in enumerate(nodes[1:], 1):
        parent = nodes[node.parent]
        assert parent.tag and node.parent < at < node.last <= parent.last
        assert node.tag or (node.text and node.last == at + 1)


# ---- real pages ----


def pages_of(archive: Path) -> Iterator[tuple[str, str]]:
    with tarfile.open(archive) as members:
        for member in members:
            if member.isfile() and member.name.endswith(".html"):
                page = members.extractfile(member)
                assert page is not None
                yield member.name, decode(page.read())


LEFT_OUT = ("script", "style", "template")


def text_of_another_parser(page: str) -> str:
    """The text of a page as lexbor's tree has it."""
    found: list[str] = []
    root = HTMLTree.parse(page).document
    waiting = [root.first_child if root else None]
    while waiting:
        node = waiting.pop()
        if node is None:
            continue
        waiting.append(node.next)
        if node.type == NodeType.ELEMENT:
            if node.tag not in LEFT_OUT:
                waiting.append(node.first_child)
        elif node.type in (NodeType.TEXT, NodeType.CDATA_SECTION):
            found.append(node.value or "")
    return "".join(found)


def text_of(nodes: list[Node]) -> str:
    found: list[str] = []
    at = 0
    while at < len(nodes):
        node = nodes[at]
        found.append(node.text)
        at = node.last if TAGS[node.tag] in LEFT_OUT else at + 1
    return "".join(found)


@pytest.mark.parametrize(
    ("folder", "pages"),
    [
        pytest.param("article_extraction_dev", 91),
        pytest.param("readability_dev", 130, marks=pytest.mark.slow),
        pytest.param("trafilatura_dev", 495, marks=pytest.mark.slow),
    ],
)
def test_real_pages(folder: str, pages: int, data_dir: Path) -> None:
    """Both read them alike, and what they read is the text that another parser finds."""
    count = 0
    for name, page in pages_of(data_dir / "html" / folder / "pages.tar.xz"):
        words, others = text_of(both(page)).split(), text_of_another_parser(page).split()
        assert "".join(words) == "".join(others), name  # less of the head's white space is kept
        count += 1
    assert count == pages
