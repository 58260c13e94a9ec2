"""crawl: what becomes of each kind of page, and how hosts are treated."""

import gzip
import random
import socket
import subprocess
import sys
import threading
import time
from email.utils import formatdate
from pathlib import Path

import pytest
from web_site import (
    PAGE,
    Site,
    endless,
    hang,
    moved,
    ok,
    outcome_of,
    outcomes,
    page_responses,
    records,
    reply,
    rows,
    run_crawl,
    send_then_close,
)

from gptwo.errors import UsageError
from gptwo.web.config import CrawlConfig
from gptwo.web.fetch import _retry_after
from gptwo.web.names import UnknownNameError
from gptwo.web.request import Answer

# Pages


def test_an_ordinary_page(site: Site, tmp_path: Path) -> None:
    site.pages["a.example/page?q=1"] = ok("<p>Hello", "text/html; charset=utf-8")
    url = "http://user:secret@a.example/page?q=1#part"
    manifest = run_crawl(site, tmp_path, [url])
    row = rows(tmp_path / "pages")[url]
    assert (row["outcome"], row["status"], row["bytes"], row["final_url"]) == (
        "ok", 200, 8, "http://a.example/page?q=1",
    )  # fmt: skip
    assert manifest.counts == {
        "links": 1, "fetched": 1, "outcomes": {"ok": 1}, "bytes": 8, "link_rot": {"alive": 1},
    }  # fmt: skip
    assert manifest.kind == "pages" and "fetched.parquet" in manifest.files
    (hit,) = (hit for hit in site.hits if "robots" not in hit.url)
    assert hit.headers["host"] == "a.example" and hit.headers["user-agent"].startswith("gptwo/")
    assert hit.headers["accept-encoding"] == "gzip"
    assert site.urls(robots=True) == ["a.example/robots.txt", "a.example/page?q=1"]


def test_addresses_that_are_not_ascii(site: Site, tmp_path: Path) -> None:
    site.pages["xn--bcher-kva.example/caf%C3%A9?%C3%BC=1"] = ok("<p>é")
    site.pages["b.example/page"] = moved("/Übersicht mit Leerzeichen".encode().decode("latin-1"))
    site.pages["b.example/%C3%9Cbersicht%20mit%20Leerzeichen"] = ok("<p>Ü")
    urls = ["http://Bücher.example/café?ü=1", "http://b.example/page"]
    run_crawl(site, tmp_path, urls)
    assert set(outcomes(tmp_path / "pages").values()) == {"ok"}
    pages = page_responses(tmp_path / "pages")
    found = {row["final_url"] for row in rows(tmp_path / "pages").values()}
    assert {page.url for page in pages} == found
    assert all(url.isascii() for url in found)


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (ok("%PDF", "application/pdf"), "content-type"),
        (ok("<p>", "TEXT/HTML;charset=x"), "ok"),
        (ok("words", "text/plain"), "ok"),
        (ok("<p>", "application/xhtml+xml"), "ok"),
        (reply(200, "<p>of unknown type"), "ok"),
        (ok(""), "ok"),
        (reply(204), "http-204"),
        (reply(404, "gone", content_type="text/html"), "http-404"),
        (reply(403), "http-403"),
        (reply(301), "http-301"),
        (reply(302, "", location=""), "http-302"),
        (reply(599), "http-599"),
        (ok("x" * 2001), "too-large"),
        (ok("x" * 2000), "ok"),
        (endless, "too-large"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\n<p>half"), "truncated"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\n<p>"),
         "truncated"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n"),
         "bad-http|truncated"),
        (send_then_close(b"HTTP/1.1 200 OK\r\n\r\n<p>until the end"), "ok"),
        (send_then_close(b""), "connection"),
        (send_then_close(b"<html>no head"), "bad-http"),
        (send_then_close(b"HTTP/1.1 twohundred OK\r\n\r\n"), "bad-http"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nbad header line\r\n\r\n"), "bad-http"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 1, 2\r\n\r\nxx"), "bad-http"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: " + b"9" * 5000 + b"\r\n\r\nx"),
         "bad-http"),
        (send_then_close(b"HTTP/1.1 200 OK\r\n" + b"X: " + b"y" * 200_000 + b"\r\n\r\n"),
         "bad-http"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nContent-Type: \xff\xb2;\r\n\r\nx"), "content-type"),
        (send_then_close(b"HTTP/1.1 101 Switching\r\n\r\n"), "bad-http|http-101"),
        (send_then_close(b"\x16\x03\x01\x02\x00\x01\x00" + bytes(50)), "bad-http"),
    ],
)  # fmt: skip
def test_answers(site: Site, tmp_path: Path, answer: object, outcome: str) -> None:
    site.pages["a.example/page"] = answer
    found = outcome_of(site, tmp_path, max_bytes=2000, retries=0)
    assert found in outcome.split("|")
    row = rows(tmp_path / "pages")[PAGE]
    assert (row["bytes"] > 0 or answer == ok("")) == (found == "ok")
    assert bool(row["sha256"]) == (found == "ok")
    pages = page_responses(tmp_path / "pages")
    assert len(pages) == (found == "ok")


def test_answers_that_are_damaged_anywhere(site: Site, tmp_path: Path) -> None:
    """Whatever bytes come back: each link has an outcome, and what is stored can be read."""
    chance = random.Random(5)
    whole = [
        ok("<p>page"),
        ok(gzip.compress(b"<p>page"), content_encoding="gzip"),
        moved("http://b.example/é?x#y"),
        reply(503, retry_after="1"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\n<p>c\r\n0\r\n\r\n",
    ]
    for i in range(150):
        data = bytearray(chance.choice(whole))
        for _ in range(chance.randrange(1, 6)):
            at = chance.randrange(len(data))
            data[at : at + chance.randrange(3)] = chance.randbytes(chance.randrange(4))
        robots_too = "robots.txt" if i % 10 == 0 else "page"
        site.pages[f"h{i}.example/{robots_too}"] = send_then_close(bytes(data))
    urls = [f"http://h{i}.example/page" for i in range(150)]
    run_crawl(site, tmp_path, urls, page_seconds=3.0, retries=0, max_delay_seconds=0.0)
    assert set(outcomes(tmp_path / "pages")) == set(urls)
    kept = sum(row["outcome"] == "ok" for row in rows(tmp_path / "pages").values())
    assert len(page_responses(tmp_path / "pages")) == kept > 10


def test_hosts_that_do_not_answer(site: Site, tmp_path: Path) -> None:
    def lookup(host: str) -> list[str]:
        if "invalid" in host:
            raise UnknownNameError(f"{host} cannot be resolved", passing=False)
        return ["127.0.0.1"]

    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with socket.create_server(("127.0.0.1", 0)) as listener:
        silent = listener.getsockname()[1]  # listens, and resets who comes
        site.address = ""
        urls = [
            f"http://127.0.0.1:{port}/page",
            "http://no-such-host.invalid/page",
            f"http://b.example:{port}/page",
            f"https://c.example:{silent}/page",
        ]
        threading.Thread(target=lambda: listener.accept()[0].close(), daemon=True).start()
        manifest = run_crawl(site, tmp_path, urls, lookup=lookup, retries=0, page_seconds=2.0)
    found = rows(tmp_path / "pages")
    # Not called "robots", although it was robots.txt that got no answer first.
    assert [found[url]["outcome"] for url in urls] == ["refused", "dns", "refused", "connection"]
    assert "no-such-host.invalid" in found[urls[1]]["detail"]
    assert manifest.counts["link_rot"] == {"refused": 2, "dns": 1, "broken": 1}


def test_a_page_that_never_comes(site: Site, tmp_path: Path) -> None:
    def drip(connection: socket.socket) -> None:
        """Something every moment, so that no single read takes long."""
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n")
        while True:
            connection.sendall(b"x")
            time.sleep(0.05)

    site.pages |= {"a.example/page": hang, "b.example/page": drip}
    urls = [PAGE, "http://b.example/page"]
    began = time.monotonic()
    run_crawl(site, tmp_path, urls, page_seconds=0.3, retries=1)
    assert set(outcomes(tmp_path / "pages").values()) == {"timeout"}
    assert time.monotonic() - began >= 0.6
    assert sorted(site.urls()) == ["a.example/page"] * 2 + ["b.example/page"] * 2


# Redirects


def test_redirects_are_followed_to_the_page(site: Site, tmp_path: Path) -> None:
    site.pages |= {
        "short.example/1": moved("http://a.example/old", 301),
        "a.example/old": moved("../new?x=1#top", 308),
        "a.example/new?x=1": ok("<p>here"),
    }
    url = "http://short.example/1"
    run_crawl(site, tmp_path, [url])
    row = rows(tmp_path / "pages")[url]
    assert (row["outcome"], row["final_url"]) == ("ok", "http://a.example/new?x=1")
    found = records(tmp_path / "pages")
    answers = [(r.url, r.status) for r in found if r.kind == "response"]
    assert answers == [
        (url, "301"), ("http://a.example/old", "308"), ("http://a.example/new?x=1", "200"),
    ]  # fmt: skip
    assert [r.kind for r in found[1:]] == ["response", "request"] * 3 + ["metadata"]
    assert found[1].http["location"] == "http://a.example/old" and found[1].body == b""
    note = found[-1].body.decode().splitlines()
    assert f"link: {url}" in note and "outcome: ok" in note and "charset: utf-8" in note
    assert [line for line in note if line.startswith("via")] == [
        f"via: 301 {url}", "via: 308 http://a.example/old",
    ]  # fmt: skip
    assert (row["redirects"], row["place"], row["charset"]) == (2, "moved", "utf-8")


@pytest.mark.parametrize(
    ("location", "outcome"),
    [
        ("/page", "redirect-loop"),
        ("http://b.example/back", "redirect-loop"),
        ("/count/0", "redirect-loop"),
        ("ftp://a.example/file", "bad-redirect"),
        ("file:///etc/passwd", "bad-redirect"),
        ("javascript:alert(1)", "bad-redirect"),
        ("http://[::1", "bad-redirect"),  # what urljoin raises at
        ("http://[zz]/", "bad-redirect"),
        ("//", "redirect-loop"),
        ("http://a.example:99999/", "bad-redirect"),
        ("http://" + "x" * 3000, "bad-redirect"),
        ("http://a.example/\xb2\xff", "http-404"),
        ("http://a" + "b" * 70 + ".example/", "http-404"),
    ],
)
def test_redirects_that_lead_nowhere(
    site: Site, tmp_path: Path, location: str, outcome: str
) -> None:
    site.pages["a.example/page"] = moved(location)
    site.pages["b.example/back"] = moved(PAGE)
    site.pages |= {f"a.example/count/{i}": moved(f"/count/{i + 1}") for i in range(20)}
    assert outcome_of(site, tmp_path, max_redirects=3) == outcome
    assert len(site.urls()) <= 4


def test_a_redirect_with_an_endless_body_is_followed(site: Site, tmp_path: Path) -> None:
    def page(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 302 Found\r\nLocation: /there\r\n\r\n")
        while True:
            connection.sendall(b"<p>more" * 10_000)

    site.pages |= {"a.example/page": page, "a.example/there": ok()}
    assert outcome_of(site, tmp_path) == "ok"


# Retries


@pytest.mark.parametrize(
    ("answers", "outcome", "requests"),
    [
        ([reply(500), ok()], "ok", 2),
        ([reply(503), reply(502), ok()], "ok", 3),
        ([reply(500)], "http-500", 3),
        ([reply(429), ok()], "ok", 2),
        ([reply(429)], "http-429", 3),
        ([reply(404), ok()], "http-404", 1),
        ([send_then_close(b""), ok()], "ok", 2),
        ([send_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n<p>"), ok()], "ok", 2),
        ([reply(500), moved("/there")], "ok", 3),
        ([ok("x", "image/png"), ok()], "content-type", 1),
    ],
)
def test_retries(
    site: Site, tmp_path: Path, answers: list[bytes], outcome: str, requests: int
) -> None:
    site.pages |= {"a.example/page": list(answers), "a.example/there": ok()}
    assert outcome_of(site, tmp_path, retries=2) == outcome
    assert len(site.urls()) == requests


@pytest.mark.parametrize(
    ("asked", "least", "most"),
    [
        ("0", 0, 0),
        ("1", 1, 1),
        ("999999999999999999999999", 1e8, 1e9),
        ("", 7, 7),
        ("soon", 7, 7),
        ("\xb2", 7, 7),  # a digit to str.isdigit, not to float
        ("-5", 7, 7),
        ("Wed, 21 Oct 2099 07:28:00 GMT", 1e9, 1e10),
        ("Wed, 21 Oct 1999 07:28:00 GMT", 0, 0),
        ("Wed, 99 Oct 99999 07:28:00 GMT", 7, 7),
        (formatdate(0, localtime=False, usegmt=False), 7, 7),  # -0000: no zone is known
    ],
)
def test_seconds_that_a_busy_server_asks_for(asked: str, least: float, most: float) -> None:
    headers = [(b"Retry-After", asked.encode("latin-1"))]
    answer = Answer(outcome="ok", status=429, headers=headers)
    assert least <= _retry_after(answer, 7) <= most


@pytest.mark.parametrize(
    ("asked", "least"), [("1", 0.3), ("Wed, 21 Oct 2099 07:28:00 GMT", 0.3), ("\xb2", 0.05)]
)
def test_retry_after(site: Site, tmp_path: Path, asked: str, least: float) -> None:
    """Obeyed, but cut to max_delay_seconds; nonsense gives way to retry_seconds."""
    site.pages["a.example/page"] = [reply(429, retry_after=asked), ok()]
    assert outcome_of(site, tmp_path, retry_seconds=0.05) == "ok"
    before, after = site.hits[-2:]
    assert after.began - before.ended > least - 0.01


def test_a_busy_host_is_left_alone_by_all(site: Site, tmp_path: Path) -> None:
    """The pause a host asks for holds for pages that redirects lead to as well."""
    site.pages |= {
        "a.example/page": [reply(429, retry_after="1"), ok()],
        "b.example/page": moved("http://a.example/other"),
        "a.example/other": ok(),
        "b.example/robots.txt": [reply(503), reply(404)],  # so that b comes second
    }
    run_crawl(site, tmp_path, [PAGE, "http://b.example/page"], retry_seconds=0.1)
    busy = next(hit for hit in site.hits if hit.url == "a.example/page")
    later = [hit.began - busy.ended for hit in site.hits if hit.began > busy.ended]
    host_a = [hit for hit in site.hits if hit.url.startswith("a.") and hit.began > busy.ended]
    assert min(hit.began - busy.ended for hit in host_a) > 0.29 and len(later) > len(host_a)


# WARC


def test_the_archive_is_whole_and_as_it_came(site: Site, tmp_path: Path) -> None:
    packed = gzip.compress("<p>Привет".encode("koi8-r"))
    site.pages |= {
        "a.example/1": ok(packed, "text/html; charset=KOI8-R", content_encoding="gzip", x_y="z"),
        "a.example/2": ok("<p>two"),
        "a.example/3": reply(404),
        "short.example/2": moved("http://a.example/2"),
        "b.example/chunked": send_then_close(
            b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nSet-Cookie: a=1\r\n"
            b"Set-Cookie: b=2\r\n\r\n4\r\n<p>c\r\n5\r\nhunks\r\n0\r\n\r\n"
        ),
    }
    urls = [f"http://{url}" for url in site.pages]
    before = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    run_crawl(site, tmp_path, urls, segment_links=2)
    files = sorted((tmp_path / "pages").glob("pages-*.warc.gz"))
    assert [path.name for path in files] == [f"pages-{i:05d}.warc.gz" for i in range(3)]
    check = [sys.executable, "-m", "warcio.cli", "check", "-v", *map(str, files)]
    found = subprocess.run(check, capture_output=True, text=True, check=False)
    assert found.returncode == 0 and "digest failed" not in found.stdout, found.stdout
    assert "digest pass" in found.stdout and "no digest" not in found.stdout
    kept = records(tmp_path / "pages")
    kinds = [record.kind for record in kept]
    assert {kind: kinds.count(kind) for kind in kinds} == {
        "warcinfo": 3, "response": 5, "request": 5, "metadata": 5,
    }  # fmt: skip
    one = next(r for r in kept if r.kind == "response" and r.url == "http://a.example/1")
    assert one.body == packed
    assert one.http["content-type"] == "text/html; charset=KOI8-R"
    assert (one.http["content-encoding"], one.http["x-y"]) == ("gzip", "z")
    assert one.http["content-length"] == str(len(packed))
    after = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
    assert before <= one.headers["WARC-Date"] <= after
    chunked = next(r for r in kept if r.kind == "response" and "chunked" in r.url)
    assert chunked.body == b"<p>chunks" and "transfer-encoding" not in chunked.http
    notes = {r.url: r.body.decode() for r in kept if r.kind == "metadata"}
    assert "link: http://a.example/1\r\noutcome: ok\r\n" in notes["http://a.example/1"]
    assert "outcome: http-404\r\n" in notes["http://a.example/3"]
    assert "charset: koi8-r\r\n" in notes["http://a.example/1"]
    assert rows(tmp_path / "pages")["http://a.example/1"]["charset"] == "koi8-r"
    ids = [r.headers["WARC-Record-ID"] for r in kept]
    assert len(set(ids)) == len(ids) and all(i.startswith("<urn:uuid:") for i in ids)
    for record in kept:
        if record.kind == "request" or "WARC-Concurrent-To" in record.headers:
            (response,) = (
                r
                for r in kept
                if r.headers["WARC-Record-ID"] == record.headers["WARC-Concurrent-To"]
            )
            assert (response.kind, response.url) == ("response", record.url)
    assert one.headers["WARC-IP-Address"] == "127.0.0.1"
    request = next(r for r in kept if r.kind == "request" and r.url == "http://a.example/1")
    assert request.http["host"] == "a.example" and request.http["user-agent"]


# Settings


@pytest.mark.parametrize(
    "value",
    [
        {"concurrency": 0},
        {"total_seconds": -1.0},
        {"host_pages": -1},
        {"dns_seconds": float("nan")},
        {"retry_share": float("inf")},
        {"page_seconds": 0},
        {"retries": -1},
        {"user_agent": ""},
        {"user_agent": "1/2"},
        {"user_agent": "gptwo\r\nX: y"},
    ],
)
def test_settings_that_mean_nothing(value: dict) -> None:
    with pytest.raises(ValueError):
        CrawlConfig(**value)


def test_other_settings_refuse_a_finished_folder(site: Site, tmp_path: Path) -> None:
    site.pages["a.example/page"] = ok()
    run_crawl(site, tmp_path, [PAGE])
    with pytest.raises(UsageError, match="max_bytes"):
        run_crawl(site, tmp_path, [PAGE], max_bytes=5)
