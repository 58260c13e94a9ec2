"""Wikipedia is known by its addresses, in all languages, by those of mirrors, and by its words."""

import bz2
import json
import lzma
import random
import re
from collections.abc import Iterator
from functools import partial
from itertools import pairwise
from math import comb
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest
from hypothesis import given
from hypothesis import strategies as st
from one_process import line_of, number_of, sentence
from page_files import html, rows_of
from test_build_corpus import prose

from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.extraction.extract import extract_text
from gptwo.corpus.overlap import encyclopedia
from gptwo.corpus.overlap.dump import plain, read_articles
from gptwo.corpus.overlap.encyclopedia import (
    Encyclopedia,
    articles_file,
    encyclopedia_file,
    most_of,
    open_encyclopedia,
    overlaps,
    sampling,
)
from gptwo.corpus.overlap.mirrors import MIRRORS, copies_wikipedia
from gptwo.corpus.overlap.wikipedia import excluded, wikipedia
from gptwo.corpus.shards import Draft
from gptwo.errors import DataError
from gptwo.pool import Task

# ---- addresses ----

LANGUAGES = "ar ast be-tarask bg ceb cs de el en es fa fr he hi id it ja ko nl pl pt ru simple sv"
LANGUAGES += " th tr uk vi war zh zh-classical zh-min-nan zh-yue"


def reasons(urls: list[str], **changes: Any) -> list[str]:
    drafts = [Draft(url=url, text="words") for url in urls]
    wikipedia(drafts, CorpusConfig(**changes), lambda number: None)
    return [draft.reason for draft in drafts]


@pytest.mark.parametrize("language", LANGUAGES.split())
def test_every_language_is_excluded(language: str) -> None:
    urls = [
        f"https://{language}.wikipedia.org/wiki/A",
        f"http://{language}.m.wikipedia.org./wiki/A",
        f"//{language.upper()}.Wikipedia.ORG/wiki/A",
        f"https://{language}-m-wikipedia-org.translate.goog/wiki/A?_x_tr_sl=en",
        f"https://web.archive.org/web/2015/https://{language}.wikipedia.org/wiki/A",
    ]
    assert reasons(urls) == ["excluded-host"] * 3 + ["wikipedia-mirror"] * 2


def test_mirrors_and_pages_within_pages_are_known() -> None:
    within = [
        "https://translate.google.com/translate?sl=de&u=http%3A%2F%2Fde.wikipedia.org%2Fwiki%2FX",
        "http://a.example/proxy?u=https%253A%252F%252Fen.m.wikipedia.org%252Fwiki%252FX",
        "https://webcache.googleusercontent.com/search?q=cache:ab:en.wikipedia.org/wiki/X",
        "https://archive.ph/2020/https://zh.wikipedia.org/zh-cn/X",
        "https://en-wikipedia-org.proxy.library.example/wiki/X",
    ]
    assert reasons(within) == ["wikipedia-mirror"] * len(within)
    assert reasons([f"https://www.{host}/page" for host in MIRRORS if host != "wikiwand.com"]) == [
        "wikipedia-mirror"
    ] * (len(MIRRORS) - 1)
    others = [
        "https://www.thefreedictionary.com/word", "https://en.wiktionary.org/wiki/word",
        "https://notwikipedia.org/wiki/A", "https://a.example/wikipedia.org",
        "mailto:a@wikipedia.org",
        "https://whois.example/wikipedia.org/whois", "https://a.example/notwikipedia.org/wiki/A",
        "https://a.example/?q=wikipedia", "http://[bad/wikipedia.org/wiki/", "", "notes.txt",
    ]  # fmt: skip
    assert reasons(others) == [""] * len(others)
    assert reasons(within, wikipedia_mirrors=False) == [""] * len(within)
    moved = Draft(url="http://short.example/x", final_url="https://wiki2.org/en/X", text="words")
    wikipedia([moved], CorpusConfig(), lambda number: None)
    assert (moved.reason, moved.detail) == ("wikipedia-mirror", "wiki2.org")
    assert copies_wikipedia("https://ar.knowpia.com/x") == "ar.knowpia.com"
    assert excluded("wikipedia.example", ("wikipedia",)) and not excluded("awiki.org", ("wiki",))


# ---- wikitext ----


@pytest.mark.parametrize(
    ("wikitext", "text"),
    [
        ("'''Ada''' is [[England|English]] and [[old]]s.", "Ada is English and olds."),
        ("One{{cite|{{a}}|[[b]]}}<ref name='x'>no [[c]]</ref> two<ref name=x />.", "One two."),
        ("A<!-- no {{ -->b{| class=x\n| no {{c}}\n|}d", "Abd"),
        ("[[File:a.jpg|thumb|A [[dog|big dog]] sits]][http://a.example/b c] [//d.org]e", " c e"),
        ("[[Category:Dogs]] [[:Category:Cats]] [[de:Hund]]", " :Category:Cats de:Hund"),
        ("H<sub>2</sub>O<br/>and&nbsp;more __TOC__<math>no</math>", "H2O and\xa0more "),
        ("{{a|b=|}} c {{d|{|\n|}}} e", " c } e"),
        ("one {{ two", "one "),
        ("one [[two|three", "one two|three"),
        ("one }} |} ]] two <ref> three", "one    two  three"),
        ("x <!-- y", "x  y"),
    ],
)  # fmt: skip
def test_wikitext_becomes_the_text_that_is_read(wikitext: str, text: str) -> None:
    assert plain(wikitext) == text


@given(st.text("ab{}[]|<>!-/re f'=\n&;:", max_size=200))
def test_any_wikitext_is_survived(text: str) -> None:
    assert len(plain(text)) <= len(text)


@pytest.mark.parametrize(
    "piece",
    [
        "{{",
        "[[",
        "{|",
        "<ref>",
        "<!--",
        "[//",
        "[//a ",
        "}}",
        "]]",
        "<br ",
        "'",
        "&",
        "[[a|",
        "{{[[",
        "<",
    ],
)
def test_open_marks_without_end_cost_no_more_than_their_length(piece: str) -> None:
    plain(piece * (400_000 // len(piece)))  # a square of it would not end


# ---- dumps ----


def dump(pages: list[tuple[str, str, str]], names: str = "") -> bytes:
    """A MediaWiki dump of (title, namespace, text)."""
    body = "".join(
        f"<page><title>{title}</title><ns>{space}</ns><revision><text>{text}</text></revision></page>"
        for title, space, text in pages
    )
    head = f"<siteinfo><namespaces>{names}</namespaces></siteinfo>"
    space = "http://www.mediawiki.org/xml/export-0.10/"
    return f'<mediawiki xmlns="{space}" xml:lang="en">{head}{body}</mediawiki>'.encode()


def test_articles_of_a_dump(tmp_path: Path) -> None:
    path = tmp_path / "dump.xml.bz2"
    pages = [("A &amp; B", "0", "Some [[Datei:x|no]]text"), ("Talk:A", "1", "no")]
    moved = b"<page><title>R</title><ns>0</ns><redirect title='A'/><text>no</text></page>"
    names = '<namespace key="6">Datei</namespace>'
    data = dump(pages, names).replace(b"</mediawiki>", moved + b"</mediawiki>")
    path.write_bytes(bz2.compress(data))
    assert list(read_articles(path)) == [("A & B", "Some text")]


def test_dumps_that_are_none_or_cut_are_refused(tmp_path: Path) -> None:
    whole = bz2.compress(dump([("A", "0", "words " * 9999)]))
    bad = {
        "cut.bz2": (whole[:-20], "damaged"),
        "cut.xml": (dump([("A", "0", "words")])[:-9], "not whole XML"),
        "page.html": (b"<html><p>a</p></html>", "not a MediaWiki dump"),
        "text.txt": (b"some words", "not whole XML"),
        "empty.xml": (b"", "not whole XML"),
    }
    for name, (data, message) in bad.items():
        path = tmp_path / name
        path.write_bytes(data)
        with pytest.raises(DataError, match=message):
            list(read_articles(path))
    source = tmp_path / "s.jsonl"
    source.write_text(json.dumps({"text": prose(1)}) + "\n")
    with pytest.raises(DataError, match=r"cut\.bz2 is damaged"):  # before anything is read
        build_corpus(
            [source], tmp_path / "out", CorpusConfig(wikipedia_dump=(str(tmp_path / "cut.bz2"),))
        )
    assert not (tmp_path / "out" / "manifest.json").exists()
    assert not list((tmp_path / "out").rglob("read"))
    path = tmp_path / "none.xml"
    path.write_bytes(dump([("Talk:A", "1", "words")]))
    with pytest.raises(DataError, match="no article"):
        index_of([path], tmp_path / "index")


# ---- words ----


def index_of(dumps: list[Path], folder: Path) -> Encyclopedia:
    folder.mkdir()
    config, every = CorpusConfig(), sampling(dumps)
    tables = [folder / f"{number}.parquet" for number in range(len(dumps))]
    for table, path in zip(tables, dumps, strict=True):
        articles_file(Task(output=table, input=(path, every)), config, lambda number: None)
    out = folder / "index.json"
    encyclopedia_file(Task(output=out, input=(tables, every)), config, lambda number: None)
    return open_encyclopedia(out)


def test_what_shares_the_words_of_a_dump_is_dropped(tmp_path: Path) -> None:
    """Through the whole line, for any number of workers."""
    articles = {f"Title {n}": prose(n, 16) for n in range(6)}
    path = tmp_path / "dump.xml.bz2"
    path.write_bytes(bz2.compress(dump([(t, "0", text) for t, text in articles.items()])))
    copy = articles["Title 3"].upper().replace(" ", "  ")
    half = f"{articles['Title 4']}\n\n{prose(50, 20)}"
    less = f"{articles['Title 5'][:350]}\n\n{prose(51, 16)}"
    texts = [prose(60), copy, half, less, " ".join(articles["Title 1"].split()[:12])]
    source = tmp_path / "s.jsonl"
    rows = [{"text": text, "url": f"http://a.example/{n}"} for n, text in enumerate(texts)]
    source.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = CorpusConfig(wikipedia_dump=(str(path),), language="", rules="none")
    manifest = build_corpus([source], tmp_path / "out", config, workers=2)
    dropped = {number_of(row): row for row in rows_of(tmp_path / "out", "dropped")}
    assert sorted(dropped) == [1, 2]  # a fifth would do; 12 words tell nothing
    assert {row["reason"] for row in dropped.values()} == {"wikipedia-text"}
    assert re.fullmatch(r"1\.00 of \d+ 8-grams, Title 3", dropped[1]["detail"])
    assert dropped[2]["detail"].endswith("Title 4")
    assert manifest.config["wikipedia_dump"] == ["dump.xml.bz2"]
    assert set(manifest.inputs) == {"s.jsonl", "dump.xml.bz2"}
    assert build_corpus([source], tmp_path / "again", config, workers=1) == manifest


def test_of_a_large_dump_a_sample_is_enough(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    articles = [sentence(n, 400) for n in range(30)]
    paths = [tmp_path / "one.xml", tmp_path / "two.xml"]
    for path, part in zip(paths, (articles[:10], articles[10:]), strict=True):
        path.write_bytes(dump([(text[:40], "0", text) for text in part]))
    whole = index_of(paths, tmp_path / "whole")
    monkeypatch.setattr(encyclopedia, "MOST", 4_000)
    monkeypatch.setattr(encyclopedia, "MOST_TITLED", 2_000)
    part = index_of(paths, tmp_path / "part")
    assert whole.every == 1 and part.every > 3
    assert part.members.nbytes < 1.6 * 4_000 and len(part.titled) < 2_200
    texts = [*articles, *(sentence(100 + n, 400) for n in range(30))]
    copies, others = overlaps(texts, part)[:30], overlaps(texts, part)[30:]
    assert min(copy.share for copy in copies) == 1.0
    assert [most_of(copy, part) for copy in copies] == [text[:40].strip() for text in articles]
    assert max(other.share for other in others) < 0.1
    (short,) = overlaps([" ".join(articles[1].split()[:14])], part)
    assert short.share == 0 < short.asked  # too little to judge by


def test_chance_drops_no_text() -> None:
    """At the fewest hits, for every number of hashes they may be a share of."""
    hits, share, rate = encyclopedia.LEAST, CorpusConfig().wikipedia_share, 0.01
    for n in range(hits, 400):
        least = max(hits, int(share * n + 0.999))
        tail = sum(comb(n, i) * rate**i * (1 - rate) ** (n - i) for i in range(least, n + 1))
        assert tail < 1e-6, n


# ---- the real dump ----


@pytest.fixture(scope="module")
def raw_articles(data_dir: Path) -> dict[str, str]:
    path = data_dir / "text" / "enwiki_106_articles.xml.bz2"
    root = ElementTree.fromstring(bz2.decompress(path.read_bytes()))
    space = root.tag.partition("}")[0] + "}"
    pages = {
        page.findtext(f"{space}title") or "": page.findtext(f"{space}revision/{space}text") or ""
        for page in root.iter(f"{space}page")
        if page.find(f"{space}redirect") is None and page.findtext(f"{space}ns") == "0"
    }
    assert len(pages) == 106
    return pages


def as_page(wikitext: str, title: str) -> str:
    """An article as a browser gets it, by rules of its own: paragraphs, links, notes by number."""
    text = re.sub(r"<ref[^<>]*?/>|(?s:<ref.*?</ref>)|(?s:<!--.*?-->)", "<sup>[1]</sup>", wikitext)
    while (less := re.sub(r"\{\{[^{}]*\}\}", "", text)) != text:
        text = less
    lines = [line for line in text.split("\n") if re.match(r"['\w(\"\[]", line) and len(line) > 80]
    lines = [line for line in lines if not re.match(r"\[\[(?:File|Image|Category):", line)]
    body = "\n\n".join(lines)
    body = re.sub(r"\[\[(?:[^\[\]|]*\|)?([^\[\]|]*)\]\]", r"<a href='/wiki/x'>\1</a>", body)
    body = re.sub(r"'''(.*?)'''", r"<b>\1</b>", body)
    return html(re.sub(r"''(.*?)''", r"<i>\1</i>", body), title)


def windows(text: str, size: int) -> Iterator[str]:
    """Stretches of whole paragraphs."""
    edges = [0, *(found.end() for found in re.finditer(r"\n\n", text)), len(text)]
    begin = 0
    for _, edge in pairwise(edges):
        if edge - begin >= size:
            yield text[begin:edge]
            begin = edge


@pytest.mark.slow
def test_real_articles_are_known_in_pages_and_in_parts_and_nothing_else_is(
    tmp_path: Path, data_dir: Path, raw_articles: dict[str, str]
) -> None:
    known = index_of([data_dir / "text" / "enwiki_106_articles.xml.bz2"], tmp_path / "index")
    rendered = {title: as_page(text, title) for title, text in raw_articles.items()}
    long = [title for title, page in rendered.items() if len(page) > 4_000]  # no mere lists
    pages = {title: extract_text(rendered[title]) for title in long[:40]}
    whole = overlaps(list(pages.values()), known)
    assert min(found.share for found in whole) > 0.6
    assert [most_of(found, known) for found in whole] == list(pages)

    with lzma.open(sorted((data_dir / "text" / "classic_books").glob("*.xz"))[0], "rt") as lines:
        books = [json.loads(next(lines))["text"] for _ in range(12)]
    with lzma.open(data_dir / "text" / "news_articles_3824.jsonl.xz", "rt") as lines:
        news = [json.loads(line)["text"] for line in lines]
    chance = random.Random(0)
    other = [window for book in books for window in windows(book, 2_000)]
    mixed = []
    for text in pages.values():  # two parts of a copy among three of another text
        part = next(windows(text, 2_000), "")[:2_500]
        if len(part) >= 2_000:
            mixed.append(
                f"{chance.choice(other)[:1_500]}\n\n{part}\n\n{chance.choice(other)[:1_500]}"
            )
    assert len(mixed) > 30
    assert min(found.share for found in overlaps(mixed, known)) >= 0.2

    topics = re.compile("|".join(f" {title} " for title in raw_articles if len(title) > 5))
    same = [text for text in [*news, *other] if topics.search(text)]
    assert len(same) > 100
    assert max(found.share for found in overlaps([*same, *news, *other], known)) < 0.1
    line = line_of(tmp_path / "line", [*pages.values(), *mixed, *same], CorpusConfig())
    index = line.index_dumps([data_dir / "text" / "enwiki_106_articles.xml.bz2"])
    line.then("wikipedia", partial(wikipedia, index=index))
    counts = line.split(tmp_path / "line")
    dropped = rows_of(tmp_path / "line", "dropped")
    assert sorted(map(number_of, dropped)) == list(range(len(pages) + len(mixed)))
    assert counts["stages"][0]["dropped"] == {"wikipedia-text": len(pages) + len(mixed)}
