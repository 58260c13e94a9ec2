"""Pages made to break an extractor: each a name and its bytes."""

from collections.abc import Callable

WORDS = "Some words of a sentence that says a little, and then a little more of it. "
GERMAN = "Die Mühle über dem Fluß gehört seit Jahren der Familie Größmann, und sie läuft noch. "
JAPANESE = "その水車は何年も前から川の上にあり、今でも家族の手で動かされています。"
CHINESE = "这座水磨坊多年来一直属于这个家庭，至今仍在运转，村里的人每天都来这里磨面。"


def document(body: str, head: str = "") -> str:
    return f"<!doctype html><html><head><title>T</title>{head}</head><body>{body}</body></html>"


def article(text: str, head: str = "") -> str:
    paragraphs = "".join(f"<p>{text * 4}</p>" for _ in range(5))
    return document(f"<article>{paragraphs}</article>", head)


def _encoded(text: str, encoding: str, said: str = "") -> Callable[[], bytes]:
    head = f'<meta charset="{said}">' if said else ""
    return lambda: article(text, head).encode(encoding)


def _big_table() -> bytes:
    row = "<tr>" + "<td>cell text</td>" * 20 + "</tr>"
    return document("<table>" + row * 20_000 + "</table>").encode()


def _nested_tables() -> bytes:
    return document("<table><tr><td>" * 20_000 + WORDS * 10).encode()


def _attributes() -> bytes:
    return document(f"<p {'a=1 ' * 5_000_000}>{WORDS * 20}</p>").encode()


def _attribute() -> bytes:
    return document(f'<p class="{"x " * 10_000_000}">{WORDS * 20}</p>').encode()


# Encodings that the page, or nobody, tells; the text must be right.
ENCODED: dict[str, tuple[Callable[[], bytes], str]] = {
    "latin-1 said to be utf-8": (_encoded(GERMAN, "latin-1", "utf-8"), GERMAN),
    "utf-8 said to be latin-1": (_encoded(GERMAN, "utf-8", "iso-8859-1"), GERMAN),
    "utf-16 without a mark": (_encoded(GERMAN, "utf-16-le"), GERMAN),
    "utf-16 big end first": (_encoded(GERMAN, "utf-16-be"), GERMAN),
    "shift_jis, told": (_encoded(JAPANESE, "shift_jis", "shift_jis"), JAPANESE),
    "shift_jis, untold": (_encoded(JAPANESE, "shift_jis"), JAPANESE),
    "gb18030, told": (_encoded(CHINESE, "gb18030", "gb2312"), CHINESE),
    "gb18030, untold": (_encoded(CHINESE, "gb18030"), CHINESE),
    "windows-1252, untold": (_encoded(GERMAN + "“So it is” – he said. ", "windows-1252"), GERMAN),
}

# What they say does not matter: that they end does.
BROKEN: dict[str, Callable[[], bytes]] = {
    "deep": lambda: document("<div>" * 100_000 + WORDS * 20).encode(),
    "deep and closed": lambda: document("<div>" * 100_000 + WORDS + "</div>" * 100_000).encode(),
    "bold": lambda: document("<p>" + "<b>" * 50_000 + WORDS).encode(),
    "lists in lists": lambda: document(f"<ul><li>{WORDS}" * 50_000).encode(),
    "quotes in quotes": lambda: document("<blockquote>" * 50_000 + WORDS).encode(),
    "big table": _big_table,
    "tables in tables": _nested_tables,
    "no end tags": lambda: document("<p>" + WORDS * 50_000).encode(),
    "open paragraphs": lambda: document(f"<p>{WORDS}" * 100_000).encode(),
    "open comment": lambda: document(f"<p>{WORDS}</p><!--" + WORDS * 100_000).encode(),
    "open script": lambda: document(f"<p>{WORDS}</p><script>" + "x<y;" * 1_000_000).encode(),
    "open attribute": lambda: document(f'<p>{WORDS}</p><a href="' + "x" * 2_000_000).encode(),
    "a name without end": lambda: document("<" + "x" * 5_000_000).encode(),
    "only <": lambda: b"<" * 2_000_000,
    "only &": lambda: document("&" * 2_000_000).encode(),
    "entities": lambda: document("<p>" + "&amp;&#0;&#xd800;&#x110000;&bogus;" * 50_000).encode(),
    "scripts between words": lambda: document("<script>1</script>word " * 50_000).encode(),
    "headers in headers": lambda: document(f"<header>{WORDS}" * 5_000).encode(),
    "links": lambda: document(f"<p><a href=/>{WORDS}</a></p>" * 20_000).encode(),
    "line breaks": lambda: document("<p>" + "a<br>" * 200_000).encode(),
    "20 MB of attributes": _attributes,
    "a class of 20 MB": _attribute,
    "20 MB without a tag": lambda: (WORDS * 270_000).encode(),
    "NULs": lambda: b"\0" * 1_000_000,
    "NULs in tags": lambda: document("<p\0>\0" + WORDS.replace(" ", "\0") * 200).encode(),
    "lone surrogates": lambda: document("<p>\ud800" + WORDS * 20).encode("utf-8", "surrogatepass"),
    "noise": lambda: bytes((i * i * 7919 >> 5) & 255 for i in range(300_000)),
    "json": lambda: b'{"a": [' + b'"<b>", ' * 100_000 + b"0]}",
    "self-closing": lambda: b'<!DOCTYPE html/><html lang="en" />' + article(WORDS).encode(),
    "cut in a letter": lambda: article(GERMAN).encode()[:700],
    "empty": lambda: b"",
}
