"""extract: main text and its layout, encodings, and pages that break an extractor."""

import hashlib
import os
import re
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from extraction_metric import load_sets
from hostile_pages import BROKEN, ENCODED, WORDS, document
from page_files import html

from gptwo.corpus.config import EXTRACTOR_NAMES, CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.extraction.both import agreement
from gptwo.corpus.extraction.extract import EXTRACTORS, extract_file, extract_text
from gptwo.corpus.extraction.quality import extract_once
from gptwo.corpus.read import read_unit, shards_of
from gptwo.corpus.shards import Draft, read_shard, write_shard
from gptwo.corpus.sources import find_units
from gptwo.errors import DataError
from gptwo.pool import Job, Pool, Task
from gptwo.progress import SILENT

PROSE = "\n\n".join(
    f"Paragraph {i} tells at some length, and in whole sentences, what happened in the town."
    for i in range(6)
)
ALL = sorted(EXTRACTORS)


def extract(drafts: list[Draft], folder: Path, **settings: float | str) -> list[Draft]:
    write_shard(folder / "in.parquet", drafts)
    config = CorpusConfig(**settings)  # type: ignore[arg-type]
    out = folder / "out.parquet"
    extract_file(Task(input=folder / "in.parquet", output=out), config, lambda position: None)
    return read_shard(out, kept=False)


def test_every_extractor_has_a_name_in_the_settings() -> None:
    assert set(EXTRACTORS) == set(EXTRACTOR_NAMES)
    with pytest.raises(ValueError, match="extractor must be one of quality, bulk, both"):
        CorpusConfig(extractor="dragnet")


@pytest.mark.parametrize("extractor", ALL)
def test_the_main_text_in_paragraphs(extractor: str) -> None:
    text = extract_text(html(PROSE), extractor)
    assert PROSE in text
    assert "Buy one" not in text and "Copyright" not in text


@pytest.mark.parametrize("extractor", ALL)
def test_letters_are_written_in_one_way(extractor: str) -> None:
    apart, together = "a\u0308 e\u0301", "\u00e4 \u00e9"
    page = document(f"<p>{apart} {WORDS * 9}</p><p>{together} {WORDS * 8}</p>")
    text = extract_text(page, extractor)
    assert apart not in text and text.count(together) == 2


BODY = """
<h2>A heading <em>of</em> two</h2>
<p>One <b>bold</b> word, a <a href="/x">link</a>, H<sub>2</sub>O,&nbsp;soft&shy;ly.</p>
<p>Roses are red,<br>violets are blue</p>
<ul><li>one <i>item</i></li><li>two<ul><li>inner</li></ul></li></ul>
<pre><code>def f(x):
    return x

print(f(1))</code></pre>
<pre>plain
  indented</pre>
<blockquote><p>Quoted once.</p><p>Quoted twice.</p></blockquote>
<table><tr><th>year</th><th>wheels</th></tr><tr><td>1900</td><td>two</td></tr></table>
"""
LAID_OUT = """A heading of two

One bold word, a link, H2O, softly.

Roses are red,
violets are blue

- one item
- two
  - inner

def f(x):
    return x

print(f(1))

plain
  indented

Quoted once.

Quoted twice.

| year | wheels |
| 1900 | two |"""


def test_layout() -> None:
    text = extract_once(document(f"<article><p>{WORDS * 5}</p>{BODY}<p>{WORDS * 6}</p></article>"))
    blocks = text.split("\n\n")
    assert blocks[0] == (WORDS * 5).strip() and blocks[-1] == (WORDS * 6).strip()
    assert "\n\n".join(blocks[1:-1]) == LAID_OUT


def test_a_table_for_its_looks_and_a_list_of_texts_give_paragraphs() -> None:
    long, other = (WORDS * 6).strip(), (WORDS * 7).strip()
    table = f"<table><tr><td><p>{long}</p><p>{other}</p></td><td>aside</td></tr></table>"
    items = f"<ul><li>short</li><li><p>{long}</p><p>{other}</p></li><li>end</li></ul>"
    text = extract_once(document(f"<article><p>{WORDS * 3}</p>{table}</article>"))
    assert f"{long}\n\n{other}\n\naside" in text
    text = extract_once(document(f"<article><p>{WORDS * 3}</p>{items}<p>{WORDS * 9}</p></article>"))
    assert f"- short\n\n{long}\n\n{other}\n\n- end" in text


def test_what_trafilatura_keeps_too_often_is_left_out() -> None:
    header = "<header><h1>The title</h1><p>By the author of it, on a day in May.</p></header>"
    link = '<p><a href="/other">Read more: another article that is not this one</a></p>'
    text = extract_once(document(f"<article>{header}<p>{WORDS * 9}</p>{link}</article>"))
    assert text == (WORDS * 9).strip()
    whole = document(f"<header><article><p>{WORDS * 9}</p></article></header>")
    assert extract_once(whole) == (WORDS * 9).strip()  # a header that holds everything


def test_quality_takes_what_bulk_finds_where_it_finds_little(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("gptwo.corpus.extraction.quality.extract_once", lambda page: "short text")
    for found, expected in (("x" * 30, "short text"), ("x" * 31, "x" * 31)):
        monkeypatch.setattr(
            "gptwo.corpus.extraction.quality.extract_bulk", lambda page, text=found: text
        )
        assert extract_text("<p>", "quality") == expected


def test_both_keep_what_two_found() -> None:
    first = "Title\n\nOne two three.\n\n- a b\n- c d\n\nShare this"
    second = "One two  three. c d!"
    assert agreement(first, second) == "One two three.\n\n- c d"
    assert agreement("", "anything") == "anything"  # one that found nothing is not believed
    assert agreement("only this here", "something else, and longer") == "something else, and longer"
    assert agreement("{\n}\n\nOne two", "One two") == "{\n}\n\nOne two"  # no words, no doubt


@pytest.mark.parametrize("name", ENCODED)
def test_encodings(name: str) -> None:
    page, text = ENCODED[name]
    assert text.strip() in decode(page())


def test_encodings_that_lie_or_break() -> None:
    umlauts = "Größe, Übung, Ärger, Fuß, Öl, süß, Löwe, Tür, Käse, Müll, Äpfel, für, schön, "
    cut = (umlauts * 3).encode()[:-3] + b"\xc3"
    assert decode(cut) == (umlauts * 3)[:-3] + "\ufffd"
    assert decode(cut, "utf-8") == decode(cut) == decode(cut, "no-such-charset")
    assert decode("naïve".encode("latin-1"), "utf-8") == "naïve"
    pair = "\U0001f600".encode("utf-16-be")  # as two surrogates, each encoded by itself
    surrogates = "".join(chr(int.from_bytes(pair[i : i + 2])) for i in (0, 2))
    assert decode(surrogates.encode("utf-8", "surrogatepass")) == "\U0001f600"
    for order in ("le", "be"):
        assert (
            decode("<p>水車は、今でも。</p>".encode(f"utf-16-{order}")) == "<p>水車は、今でも。</p>"
        )
    assert decode(b"<p>\xed\xa0\x80 lone") == "<p>\ufffd lone"


def test_pages_without_markup_and_closed_at_once() -> None:
    assert extract_text('{"title": "' + WORDS * 9 + '"}') == ""
    closed = '<!DOCTYPE html><html lang="en" />' + html(PROSE).partition("<html>")[2]
    assert PROSE in extract_text(closed)


def run_stage(drafts: list[Draft], folder: Path, job: Job, **settings: float | str) -> list[Draft]:
    """The stage as a corpus runs it: in worker processes, from work files to work files."""
    shards = [drafts[i : i + 100] for i in range(0, len(drafts), 100)]
    tasks = []
    for number, shard in enumerate(shards):
        write_shard(folder / "in" / f"{number}.parquet", shard)
        out = folder / "out" / f"{number}.parquet"
        tasks.append(Task(input=folder / "in" / f"{number}.parquet", output=out))
    config = CorpusConfig(**settings)  # type: ignore[arg-type]
    with Pool(config, 1, SILENT, preload="gptwo.corpus.build") as pool:
        pool.run("extract", job, tasks)
    out = [draft for task in tasks for draft in read_shard(task.output, kept=False)]
    assert [draft.url for draft in out] == [draft.url for draft in drafts]
    return out


@pytest.mark.slow
@pytest.mark.parametrize("extractor", ["bulk", "both"])
def test_broken_pages_cost_only_themselves(extractor: str, tmp_path: Path) -> None:
    """Whole pages before, between and after. `both` runs all that `quality` does."""
    good = html(PROSE).encode()
    drafts = [Draft(payload=good, url="good 0")]
    for name, make in BROKEN.items():
        drafts += [Draft(payload=make(), url=name), Draft(payload=good, url=f"good after {name}")]
    settings = {"extractor": extractor, "document_seconds": 0.2}
    for draft in run_stage(drafts, tmp_path, extract_file, **settings):
        if draft.url.startswith("good"):
            assert PROSE in draft.text, draft.url
        assert bool(draft.text) != bool(draft.reason), draft.url
        assert draft.reason in ("", "no-main-text", "too-slow", "too-much-memory"), draft.url
        assert "\0" not in draft.text
        draft.text.encode()  # no lone surrogates


@pytest.mark.slow
def test_real_pages_and_archives(data_dir: Path, tmp_path: Path) -> None:
    """None is lost to anything but holding no text; the slow extractors get a sample."""
    pages = [page for pages in load_sets(data_dir) for page, _ in pages.pages]
    whole = [Draft(payload=page, url=f"page {n}") for n, page in enumerate(pages)]
    archived = archived_pages(data_dir / "warc", tmp_path)
    assert len(archived) > 200
    for extractor, step in (("bulk", 1), ("both", 40)):
        few = whole[::step]
        drafts = few + archived[::step]
        out = run_stage(drafts, tmp_path / extractor, extract_file, extractor=extractor)
        assert {draft.reason for draft in out} <= {"", "no-main-text"}  # of links alone, in 2008
        assert sum(not draft.text for draft in out[: len(few)]) <= len(few) // 100


def archived_pages(folder: Path, tmp_path: Path) -> list[Draft]:
    """HTML of every archive that is whole enough to be read."""
    drafts = []
    for number, unit in enumerate(find_units([folder])):
        mark = tmp_path / "read" / f"{number:05}.json"
        try:
            read_unit(Task(input=unit, output=mark), CorpusConfig(), lambda position: None)
        except DataError:  # nothing but damage
            continue
        for shard in shards_of(mark):
            drafts += [d for d in read_shard(shard) if d.payload is not None]
    return drafts


def with_a_killer(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """The job of the stage, with an extractor that some page brings down."""

    def killer(page: str) -> str:
        if "bring it down" in page:
            os.kill(os.getpid(), signal.SIGSEGV)
        return page

    EXTRACTORS["quality"] = killer
    extract_file(task, config, at)


def test_a_page_that_kills_its_worker_costs_only_itself(tmp_path: Path) -> None:
    pages = [f"<p>page {number}" for number in range(250)]
    for number in (130, 131):
        pages[number] = f"<p>bring it down {number}"
    drafts = [Draft(payload=page.encode(), url=page) for page in pages]
    for number, draft in enumerate(run_stage(drafts, tmp_path, with_a_killer)):
        if number in (130, 131):
            assert (draft.reason, draft.detail) == ("killed-the-extractor", "SIGSEGV")
        else:
            assert (draft.reason, draft.text) == ("", pages[number])


def with_no_return(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """An extractor whose native code some page keeps busy for ever, deaf to signals."""

    def deaf(page: str) -> str:
        return hashlib.pbkdf2_hmac("sha1", b"", b"", 1 << 30).hex() if "keep busy" in page else page

    EXTRACTORS["quality"] = deaf
    extract_file(task, config, at)


def test_native_code_that_does_not_come_back_ends_with_its_worker(tmp_path: Path) -> None:
    drafts = [Draft(payload=page, url="") for page in (b"<p>one", b"<p>keep busy", b"<p>three")]
    out = run_stage(drafts, tmp_path, with_no_return, document_seconds=0.1)
    assert [draft.text for draft in out] == ["<p>one", "", "<p>three"]
    assert (out[1].reason, out[1].detail) == ("killed-the-extractor", "SIGVTALRM")


def remember_memory(task: Task, config: CorpusConfig, at: Callable[[int], None]) -> None:
    """What is held before a task: its pool gives back what the one before has freed."""
    kilobytes = re.findall(r"VmRSS:\s+(\d+)", Path("/proc/self/status").read_text())
    task.output.with_suffix(".rss").write_text(f"{os.getpid()} {kilobytes[0]}")
    extract_file(task, config, at)


@pytest.mark.slow
@pytest.mark.parametrize(("extractor", "pages"), [("bulk", 100), ("quality", 10)])
def test_memory_stays_flat_over_many_pages(extractor: str, pages: int, tmp_path: Path) -> None:
    """Ten shards in one process, a page in the third that needs hundreds of megabytes."""
    tasks = []
    for shard in range(10):
        bodies = [f"<h2>{n} of {shard}</h2>" + f"<p>{n} {WORDS * 9}</p>" * 40 for n in range(pages)]
        drafts = [Draft(payload=document(f"<article>{b}</article>").encode()) for b in bodies]
        if shard == 2:
            drafts.append(Draft(payload=BROKEN["big table"]()))
        write_shard(tmp_path / f"{shard}.in", drafts)
        tasks.append(Task(input=tmp_path / f"{shard}.in", output=tmp_path / f"{shard}.out"))
    config = CorpusConfig(extractor=extractor, document_seconds=5)
    with Pool(config, 1, SILENT, preload="gptwo.corpus.build") as pool:
        pool.run("extract", remember_memory, tasks)
    seen = [task.output.with_suffix(".rss").read_text().split() for task in tasks]
    assert len({process for process, _ in seen}) == 1
    held = [int(kilobytes) / 1024 for _, kilobytes in seen]
    assert max(held) < held[1] + 48, held


def test_time_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def endless(page: str) -> str:
        while True:
            pass

    monkeypatch.setitem(EXTRACTORS, "quality", endless)
    (out,) = extract([Draft(payload=b"<p>")], tmp_path, document_seconds=0.1)
    assert (out.reason, out.detail) == ("too-slow", "more than 0.1 s")


def test_memory_is_capped(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def hungry(page: str) -> str:
        return "x" * (3 << 30)  # more than the heap of a test process may hold free

    monkeypatch.setitem(EXTRACTORS, "quality", hungry)
    (out,) = extract([Draft(payload=b"<p>")], tmp_path, document_memory_mb=64)
    assert (out.reason, out.detail) == ("too-much-memory", "more than 64 MB")


def test_an_error_is_that_pages(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def picky(page: str) -> str:
        if "bad" in page:
            raise AttributeError("no such thing")
        return page

    monkeypatch.setitem(EXTRACTORS, "quality", picky)
    bad, good = extract([Draft(payload=b"<p>bad"), Draft(payload=b"<p>good")], tmp_path)
    assert (bad.reason, bad.detail) == ("not-parsed", "AttributeError: no such thing")
    assert good.text == "<p>good" and len(good.id) == 32


def test_texts_pass_through_and_empty_pages_are_named(tmp_path: Path) -> None:
    drafts = [
        Draft(text="already text", id="kept"),
        Draft(payload=b"<html><body></body></html>"),
        Draft(payload=html(PROSE).encode()),
    ]
    text, empty, page = extract(drafts, tmp_path)
    assert (text.text, text.id, text.reason) == ("already text", "kept", "")
    assert empty.reason == "no-main-text"
    assert PROSE in page.text and page.payload is None and len(page.id) == 32
