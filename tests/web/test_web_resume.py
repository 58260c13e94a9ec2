"""crawl: stopped, killed and started again, nothing is fetched twice and nothing lost."""

import json
import random
import signal
import socket
import subprocess
import sys
import time
from collections import Counter
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from web_site import (
    Site,
    hang,
    link_folder,
    moved,
    ok,
    outcomes,
    page_responses,
    reply,
    run_crawl,
)

from gptwo.artifacts import open_folder, stage
from gptwo.errors import DataError, Interrupted, NetworkError, ResourceError
from gptwo.progress import Reporter
from gptwo.web import archive as archiving
from gptwo.web import crawl as crawling
from gptwo.web.archive import Archive, read_notes, recover, segment_of

SCRIPT = Path(__file__).with_name("web_crawl_script.py")
SMALL = {"segment_links": 5, "concurrency": 2}  # as in the script


def fill(site: Site, n: int = 40) -> list[str]:
    """Pages on four hosts, some of them missing, some reached by a redirect."""
    urls = [f"http://h{i % 4}.example/{i}" for i in range(n)]
    for i, url in enumerate(urls):
        site.pages[url[7:]] = ok(f"<p>page {i}") if i % 7 else reply(404)
        if i % 10 == 3:
            site.pages[url[7:]] = moved(f"/to/{i}")
            site.pages[f"h{i % 4}.example/to/{i}"] = ok(f"<p>page {i}")
    return urls


def committed(links: Path, pages: Path) -> set[str]:
    """Links that have their note."""
    urls = pq.read_table(links / "links.parquet").column("url").to_pylist()
    return {
        urls[note["link"]]
        for path in (pages / ".work").glob("fetched-*.jsonl")
        for note, _ in read_notes(path)
    }


def archived(pages: Path) -> Counter[str]:
    return Counter(r.url for r in page_responses(pages))


def undisturbed(site: Site, tmp_path: Path, urls: list[str]) -> str:
    link_folder(tmp_path / "quiet", urls)
    fingerprint = run_crawl(site, tmp_path / "quiet", urls, concurrency=3).fingerprint
    site.hits.clear()
    return fingerprint


def check_whole(site: Site, tmp_path: Path, urls: list[str], fingerprint: str) -> None:
    manifest = open_folder(tmp_path / "pages", "pages")
    assert manifest.fingerprint == fingerprint
    assert outcomes(tmp_path / "pages") == outcomes(tmp_path / "quiet" / "pages")
    assert set(outcomes(tmp_path / "pages")) == set(urls)
    assert archived(tmp_path / "pages") == archived(tmp_path / "quiet" / "pages")
    assert set(archived(tmp_path / "pages").values()) == {1}
    assert not (tmp_path / "pages" / ".work").exists()


def test_a_finished_crawl_asks_for_nothing(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    first = run_crawl(site, tmp_path, urls)
    assert first.counts["fetched"] == 34 and first.counts["outcomes"] == {"http-404": 6, "ok": 34}
    assert first.counts["links"] == 40
    assert first.counts["bytes"] == sum(
        len(f"<p>page {i}") for i in range(40) if i % 7 or i % 10 == 3
    )
    before = site.connections
    assert run_crawl(site, tmp_path, urls) == first
    assert site.connections == before


def test_the_fingerprint_is_of_the_content(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    for name in ("again", "other"):
        link_folder(tmp_path / name, urls)
    assert run_crawl(site, tmp_path / "again", urls, segment_links=3).fingerprint == fingerprint
    site.pages[urls[1][7:]] = ok("<p>changed")
    assert run_crawl(site, tmp_path / "other", urls).fingerprint != fingerprint


@pytest.mark.parametrize("after", [1, 9, 23, 37])
def test_killed_at_any_page(site: Site, tmp_path: Path, after: int) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    links, pages = link_folder(tmp_path, urls), tmp_path / "pages"
    site.delay_seconds = 0.01
    child = subprocess.Popen([sys.executable, SCRIPT, links, pages, site.address])
    while len(site.urls()) < after and child.poll() is None:
        time.sleep(0.002)
    assert child.poll() is None
    child.kill()
    child.wait()
    kept, before = committed(links, pages), len(site.hits)
    assert after * 3 // 4 - 4 <= len(kept) < len(urls), "only what was under way has no note"
    with pytest.raises(DataError, match="unfinished"):
        open_folder(pages, "pages")
    time.sleep(0.05)  # what was under way when the child died
    before = len(site.hits)
    run_crawl(site, tmp_path, urls, **SMALL)
    asked = {f"http://{hit.url}" for hit in site.hits[before:]}
    assert asked & kept == set(), "noted, yet fetched again"
    assert asked >= set(urls) - kept
    check_whole(site, tmp_path, urls, fingerprint)


@pytest.mark.slow
def test_killed_ten_times_at_random(site: Site, tmp_path: Path) -> None:
    """kill -9 at any moment, again and again: the server's log has no page twice but those that
    were under way, and the result is that of a crawl that was left alone."""
    urls = fill(site, 400)
    fingerprint = undisturbed(site, tmp_path, urls)
    links, pages = link_folder(tmp_path, urls), tmp_path / "pages"
    site.delay_seconds = 0.03
    chance = random.Random(7)
    under_way: set[str] = set()
    kept: set[str] = set()
    for kill in range(10):
        child = subprocess.Popen([sys.executable, SCRIPT, links, pages, site.address, "8"])
        before = len(site.hits)
        goal = before + chance.randrange(10, 45)
        while len(site.hits) < goal and child.poll() is None:
            time.sleep(0.001)
        time.sleep(chance.random() * 0.01)
        assert child.poll() is None, f"it ended before kill {kill}"
        child.send_signal(signal.SIGKILL)
        child.wait()
        killed = time.monotonic()
        time.sleep(0.05)
        # What had come a moment before the kill is written; what came later may not be.
        under_way |= {hit.url for hit in site.hits[before:] if hit.ended > killed - 0.5}
        assert kept <= committed(links, pages), "lost"
        kept = committed(links, pages)
    run_crawl(site, tmp_path, urls, segment_links=5, concurrency=8)
    asked = Counter(site.urls())
    twice = {url for url, n in asked.items() if n > 1}
    assert twice <= under_way, "stored, yet fetched again"
    assert len(kept) > 50
    check_whole(site, tmp_path, urls, fingerprint)


def test_stopped_on_request_with_pages_under_way(site: Site, tmp_path: Path) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    reporter = Reporter(quiet=True)
    site.pages[urls[20][7:]] = hang  # would hold the stop up for long
    page = site.pages[urls[31][7:]]

    def stop(connection: socket.socket) -> None:
        reporter.stop_requested = True
        hang(connection)

    site.pages[urls[31][7:]] = stop
    began = time.monotonic()
    with pytest.raises(Interrupted):
        run_crawl(site, tmp_path, urls, reporter, **{**SMALL, "concurrency": 4}, page_seconds=30)
    assert time.monotonic() - began < 25, "it did not wait for the page that hangs"
    kept = committed(tmp_path / "links", tmp_path / "pages")
    assert len(kept) > 5, "what had arrived is kept, full segment or not"
    site.pages[urls[20][7:]], site.pages[urls[31][7:]] = ok("<p>page 20"), page
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **{**SMALL, "concurrency": 4}, page_seconds=30)
    assert {f"http://{url}" for url in site.urls()} & kept == set()
    check_whole(site, tmp_path, urls, fingerprint)


@pytest.mark.parametrize("name", ["pages-00003.warc.gz", "fetched.parquet", "manifest.json"])
def test_killed_between_two_files(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Killed just before the file `name` has its place."""
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    real = Path.replace

    def replace(self: Path, target: Path) -> Path:
        if Path(target).name == name and "pages" in Path(target).parts:
            raise RuntimeError("killed")
        return real(self, target)

    with monkeypatch.context() as patch:
        patch.setattr(Path, "replace", replace)
        with pytest.raises(RuntimeError, match="killed"):
            run_crawl(site, tmp_path, urls, **SMALL)
    kept = committed(tmp_path / "links", tmp_path / "pages")
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **SMALL)
    assert {f"http://{url}" for url in site.urls()} & kept == set()
    assert (site.hits == []) == (name != "pages-00003.warc.gz")
    check_whole(site, tmp_path, urls, fingerprint)


def test_a_segment_that_was_deleted_is_fetched_again(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    with monkeypatch.context() as patch:
        patch.setattr(crawling, "_commit", lambda made, *rest: made.folder)  # stopped just then
        run_crawl(site, tmp_path, urls, **SMALL)
    (tmp_path / "pages" / "pages-00001.warc.gz").unlink()
    with (tmp_path / "pages" / "pages-00003.warc.gz").open("ab") as handle:
        handle.truncate(100)
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **SMALL)
    assert 10 <= len(site.urls()) <= 20
    check_whole(site, tmp_path, urls, fingerprint)


def half_done(site: Site, tmp_path: Path) -> tuple[list[str], str]:
    """A crawl that was stopped with some pages in an open segment."""
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    reporter = Reporter(quiet=True)
    page = site.pages[urls[31][7:]]

    def stop(connection: socket.socket) -> None:
        reporter.stop_requested = True
        hang(connection)

    site.pages[urls[31][7:]] = stop
    real = Archive._finish
    with pytest.MonkeyPatch.context() as patch, pytest.raises(Interrupted):
        # As a kill leaves it: the open segment is not closed.
        patch.setattr(Archive, "_finish", lambda self: None if self._links < 900 else real(self))
        run_crawl(site, tmp_path, urls, reporter, segment_links=1000, page_seconds=30)
    site.pages[urls[31][7:]] = page
    site.hits.clear()
    return urls, fingerprint


@pytest.mark.parametrize(
    "harm",
    [
        "cut pages",
        "cut notes",
        "torn note",
        "flipped bit",
        "zeros",
        "no pages",
        "no notes",
        "words",
    ],
)
def test_an_open_segment_is_cut_behind_the_last_whole_page(
    site: Site, tmp_path: Path, harm: str
) -> None:
    """What a loss of power may leave of the files that were being written."""
    urls, fingerprint = half_done(site, tmp_path)
    work = tmp_path / "pages" / ".work"
    pages, notes = work / "pages-00000.warc.gz", work / "fetched-00000.jsonl"
    data, lines = pages.read_bytes(), notes.read_bytes().splitlines(keepends=True)
    assert len(lines) >= 10
    ends = [json.loads(line)["end"] for line in lines]
    if harm == "cut pages":
        pages.write_bytes(data[: ends[5] + 7])
    elif harm == "cut notes":
        notes.write_bytes(b"".join(lines[:6]))
    elif harm == "torn note":
        notes.write_bytes(b"".join(lines[:6]) + lines[6][:40])
    elif harm == "flipped bit":
        middle = (ends[5] + ends[6]) // 2
        pages.write_bytes(data[:middle] + bytes([data[middle] ^ 1]) + data[middle + 1 :])
    elif harm == "zeros":
        pages.write_bytes(data[: ends[5]] + bytes(len(data) - ends[5]))
    elif harm == "words":
        notes.write_bytes(b"".join(lines[:6]) + b"[1]\nwords\n" + b"".join(lines[6:]))
    else:
        (pages if harm == "no pages" else notes).unlink()
    kept = 0 if harm.startswith("no ") else 6
    run_crawl(site, tmp_path, urls, segment_links=1000, page_seconds=30)
    assert len({url for url in site.urls() if "/to/" not in url}) == len(urls) - kept
    check_whole(site, tmp_path, urls, fingerprint)


@pytest.mark.parametrize("waiting", [1, 2000])
def test_a_full_disk_while_pages_come(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, waiting: int
) -> None:
    """Exit code 5, and what was written before is not asked for again."""
    monkeypatch.setattr(archiving, "WAITING_PAGES", waiting)
    urls = fill(site)
    fingerprint = undisturbed(site, tmp_path, urls)
    real, written = Archive._append, []

    def append(self: Archive, link: int, page: object) -> None:
        if len(written) == 12:
            raise OSError(28, "No space left on device")
        written.append(link)
        real(self, link, page)  # type: ignore[arg-type]

    with monkeypatch.context() as patch:
        patch.setattr(Archive, "_append", append)
        with pytest.raises(ResourceError, match="No space left"):
            run_crawl(site, tmp_path, urls, **SMALL)
    kept = committed(tmp_path / "links", tmp_path / "pages")
    assert len(kept) >= 10
    site.hits.clear()
    run_crawl(site, tmp_path, urls, **SMALL)
    assert {f"http://{url}" for url in site.urls()} & kept == set()
    check_whole(site, tmp_path, urls, fingerprint)


def test_large_pages_do_not_gather_in_memory(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Fetching waits for the disk; and a segment ends by bytes as well."""
    monkeypatch.setattr(archiving, "WAITING_BYTES", 10_000)
    real, most = Archive._write, [0]

    def slow(self: Archive, ready: list) -> None:
        most[0] = max(most[0], sum(len(page.answer.body) for _, page in ready))
        time.sleep(0.02)
        real(self, ready)

    monkeypatch.setattr(Archive, "_write", slow)
    chance = random.Random(1)
    urls = [f"http://{i}.example/{i}" for i in range(40)]
    site.pages |= {url[7:]: ok(chance.randbytes(4000)) for url in urls}
    run_crawl(site, tmp_path, urls, concurrency=4, segment_bytes=40_000)
    assert most[0] <= 10_000 + 4 * 4000
    sizes = [path.stat().st_size for path in (tmp_path / "pages").glob("pages-*.warc.gz")]
    assert len(sizes) >= 4 and max(sizes) < 46_000


def test_segment_numbers_may_grow_long(tmp_path: Path) -> None:
    assert segment_of(Path("pages-00007.warc.gz")) == 7
    assert segment_of(Path("fetched-123456.jsonl")) == 123_456
    with stage(tmp_path / "new", kind="pages", config={}, inputs={}) as made:
        assert recover(made, lambda note: None) == 0


def test_a_damaged_link_folder_is_refused(site: Site, tmp_path: Path) -> None:
    links = link_folder(tmp_path, fill(site))
    table = links / "links.parquet"
    data = bytearray(table.read_bytes())
    data[len(data) // 2] ^= 1
    table.write_bytes(data)
    with pytest.raises(DataError, match=r"links\.parquet .*does not match its SHA-256"):
        run_crawl(site, tmp_path, [])
    table.write_bytes(data[:-10])
    with pytest.raises(DataError, match=r"links\.parquet has"):
        run_crawl(site, tmp_path, [])
    (links / "manifest.json").unlink()
    with pytest.raises(DataError, match="has no manifest"):
        run_crawl(site, tmp_path, [])
    assert site.hits == [] and not (tmp_path / "pages").exists()


def test_without_a_network_nothing_is_noted(site: Site, tmp_path: Path) -> None:
    urls = [f"http://{i}.example/page" for i in range(10)]
    for url in urls:
        site.pages[url.removeprefix("http://")] = hang
        site.pages[url.removeprefix("http://").replace("page", "robots.txt")] = hang
    quick = {"page_seconds": 0.1, "retries": 0}
    with pytest.raises(NetworkError, match=r"not one of 10 links .*timeout 10"):
        run_crawl(site, tmp_path, urls, **quick)
    assert committed(tmp_path / "links", tmp_path / "pages") == set()
    site.pages.update({url.removeprefix("http://"): ok("<p>") for url in urls})
    for url in urls:
        del site.pages[url.removeprefix("http://").replace("page", "robots.txt")]
    assert run_crawl(site, tmp_path, urls, **quick).counts["fetched"] == 10


@pytest.mark.parametrize("comes_back", [False, True])
def test_the_network_goes_away_in_the_middle(
    site: Site, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, comes_back: bool
) -> None:
    """Links that nobody answered are not called dead before a host that had answered is asked."""
    monkeypatch.setattr("gptwo.web.outage.PROBE_SECONDS", 0.05)
    urls = [f"http://{i:02d}.example/page" for i in range(60)]
    site.pages |= {url[7:]: ok("<p>") for url in urls}
    real, asked = Site.serve, [0]

    def serve(self: Site, connection: socket.socket) -> None:
        asked[0] += 1
        probed = comes_back and asked[0] > 100
        if asked[0] > 30 and not probed:
            connection.close()
        else:
            real(self, connection)

    quick = {"retries": 0, "concurrency": 1, "page_seconds": 1.0, "host_failures": 1}
    with monkeypatch.context() as patch:
        patch.setattr(Site, "serve", serve)
        if comes_back:
            asked[0] = 71  # so that it answers when it is asked again
            run_crawl(site, tmp_path, urls, **quick)
            assert Counter(outcomes(tmp_path / "pages").values())["connection"] == 29
            return
        with pytest.raises(NetworkError, match=r"not one of \d+ links could be reached"):
            run_crawl(site, tmp_path, urls, **quick)
    kept = committed(tmp_path / "links", tmp_path / "pages")
    assert 10 < len(kept) <= 30
    run_crawl(site, tmp_path, urls, **quick)
    assert set(outcomes(tmp_path / "pages").values()) == {"ok"}
