"""crawl: what hosts ask for is done: robots.txt, pauses, one request at a time."""

import gzip
import socket
import time
from itertools import pairwise
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
    reply,
    robots,
    rows,
    run_crawl,
    send_then_close,
)

# robots.txt


@pytest.mark.parametrize(
    ("answer", "outcome"),
    [
        (robots("User-agent: *\nDisallow: /page"), "robots"),
        (robots("User-agent: *\nDisallow: /other"), "ok"),
        (robots("User-agent: *\nDisallow: /\nAllow: /page"), "ok"),
        (robots("User-agent: gptwo\nDisallow: /\n\nUser-agent: *\nDisallow:"), "robots"),
        (robots("User-agent: *\nDisallow: /\n\nUser-agent: GPTwo\nAllow: /"), "ok"),
        # Words of our comment in User-Agent are not our name.
        (robots("User-agent: corpus\nDisallow: /\n\nUser-agent: text\nDisallow: /"), "ok"),
        (robots("\ufeffUser-agent: *\r\nDisallow: /page"), "robots"),
        (robots(""), "ok"),
        (robots("<html>not found"), "ok"),
        (reply(404), "ok"),
        (reply(410), "ok"),
        (reply(403), "ok"),
        (reply(204), "ok"),
        (reply(429), "robots"),
        (reply(500), "robots"),
        (reply(503), "robots"),
        (hang, "timeout"),
        (send_then_close(b""), "connection"),
        (send_then_close(b"HTTP/1.1 200 OK\r\nContent-Length: 999\r\n\r\nUser"), "truncated"),
        # Longer than anybody has to read: the beginning counts, the end does not.
        (robots("User-agent: *\nDisallow: /page\n" + "# more\n" * 100_000), "robots"),
        (endless, "ok"),
        (ok(gzip.compress(b"User-agent: *\nDisallow: /page"), content_encoding="gzip"), "robots"),
        (ok(gzip.compress(b"#" * 50_000_000, 1), content_encoding="gzip"), "ok"),
        (ok(b"not gzip", content_encoding="gzip"), "robots"),
        (moved("http://b.example/rules"), "robots"),
        (moved("/robots.txt"), "ok"),
        (moved("http://[::1"), "ok"),
    ],
)
def test_robots(site: Site, tmp_path: Path, answer: object, outcome: str) -> None:
    site.pages |= {
        "a.example/robots.txt": answer,
        "a.example/page": ok(),
        "b.example/rules": robots("User-agent: *\nDisallow: /page"),
    }
    assert outcome_of(site, tmp_path, page_seconds=1.0, retries=0) == outcome
    assert ("a.example/page" in site.urls()) == (outcome == "ok")
    assert bool(rows(tmp_path / "pages")[PAGE]["detail"]) == (outcome != "ok")


def test_a_slow_robots_file_closes_its_host_alone(site: Site, tmp_path: Path) -> None:
    """A byte now and then, without end: the time of a request covers all of it."""

    def drip(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Type: text/plain\r\n\r\n")
        while True:
            connection.sendall(b"#")
            time.sleep(0.02)

    site.pages |= {"a.example/robots.txt": drip, "a.example/page": ok(), "b.example/page": ok()}
    run_crawl(site, tmp_path, [PAGE, "http://b.example/page"], page_seconds=0.4, retries=0)
    assert outcomes(tmp_path / "pages") == {PAGE: "timeout", "http://b.example/page": "ok"}
    assert site.urls() == ["b.example/page"]


def test_an_endless_head_and_endless_interim_answers_end(site: Site, tmp_path: Path) -> None:
    def head(connection: socket.socket) -> None:
        connection.sendall(b"HTTP/1.1 200 OK\r\n")
        while True:
            connection.sendall(b"X-More: and more\r\n" * 50)
            time.sleep(0.01)

    def interim(connection: socket.socket) -> None:
        while True:
            connection.sendall(b"HTTP/1.1 102 Processing\r\n\r\n")
            time.sleep(0.005)

    site.pages |= {"a.example/page": head, "b.example/page": interim}
    run_crawl(site, tmp_path, [PAGE, "http://b.example/page"], page_seconds=0.6, retries=0)
    found = outcomes(tmp_path / "pages")
    assert found[PAGE] in ("timeout", "bad-http") and found["http://b.example/page"] == "timeout"


def test_robots_are_asked_for_once_and_again_when_they_fail(site: Site, tmp_path: Path) -> None:
    site.pages |= {f"a.example/{i}": ok() for i in range(20)}
    site.pages["a.example/robots.txt"] = [reply(503), robots("User-agent: *\nDisallow: /7")]
    run_crawl(site, tmp_path, [f"http://a.example/{i}" for i in range(20)])
    assert site.urls(robots=True)[:2] == ["a.example/robots.txt"] * 2
    assert site.urls(robots=True).count("a.example/robots.txt") == 2
    assert len(site.urls()) == 19 and "a.example/7" not in site.urls()


def test_robots_hold_for_the_end_of_a_redirect(site: Site, tmp_path: Path) -> None:
    site.pages |= {
        "a.example/page": moved("http://b.example/private"),
        "b.example/robots.txt": robots("User-agent: *\nDisallow: /private"),
        "b.example/private": ok(),
    }
    assert outcome_of(site, tmp_path) == "robots"
    assert "b.example/private" not in site.urls()


def test_hostile_robots_are_matched_in_time(site: Site, tmp_path: Path) -> None:
    url = "http://a.example/" + "a" * 1900
    site.pages["a.example/robots.txt"] = robots(
        "User-agent: *\n" + "".join(f"Disallow: /{'*a' * n}*b$\n" for n in range(1, 200))
    )
    assert outcome_of(site, tmp_path, url) == "http-404"  # or the time limit of tests ends it


# Politeness


def test_one_host_is_asked_one_thing_at_a_time_with_pauses(site: Site, tmp_path: Path) -> None:
    site.delay_seconds = 0.03
    site.pages |= {f"a.example/{i}": ok() for i in range(5)}
    run_crawl(site, tmp_path, [f"http://a.example/{i}" for i in range(5)], host_delay_seconds=0.08)
    assert site.at_once["a.example"] == 1 and len(site.hits) == 6
    pauses = [after.began - before.ended for before, after in pairwise(site.hits)]
    assert min(pauses) > 0.07, "robots.txt is a request too, and a pause begins after the answer"


def test_crawl_delay_is_obeyed_and_capped(site: Site, tmp_path: Path) -> None:
    site.pages |= {f"{host}.example/{i}": ok() for host in "ab" for i in range(3)}
    site.pages["a.example/robots.txt"] = robots("User-agent: *\nCrawl-delay: 0.2")
    site.pages["b.example/robots.txt"] = robots("User-agent: *\nCrawl-delay: 1000")
    run_crawl(site, tmp_path, [f"http://{url}" for url in site.pages if "robots" not in url])
    for host, least in (("a", 0.19), ("b", 0.29)):
        hits = [hit for hit in site.hits if hit.url.startswith(host) and "robots" not in hit.url]
        assert min(y.began - x.ended for x, y in pairwise(hits)) > least
    assert set(outcomes(tmp_path / "pages").values()) == {"ok"}


def test_several_hosts_are_visited_at_once(site: Site, tmp_path: Path) -> None:
    site.delay_seconds = 0.1
    urls = [f"http://h{i}.example/{j}" for i in range(12) for j in range(2)]
    site.pages |= {url[7:]: ok() for url in urls}
    run_crawl(site, tmp_path, urls, concurrency=6)
    assert 4 <= site.hosts_at_once <= 6
    assert set(site.at_once.values()) == {1}
    assert sorted(site.urls()) == sorted(url[7:] for url in urls)


def test_redirects_to_one_host_wait_for_each_other(site: Site, tmp_path: Path) -> None:
    """Many sites lead to the same one: it is not asked many things at once for that."""
    site.delay_seconds = 0.02
    urls = [f"http://h{i}.example/" for i in range(10)]
    site.pages |= {f"h{i}.example/": moved(f"http://target.example/{i}") for i in range(10)}
    site.pages |= {f"target.example/{i}": ok() for i in range(10)}
    run_crawl(site, tmp_path, urls)
    assert set(outcomes(tmp_path / "pages").values()) == {"ok"}
    assert site.at_once["target.example"] == 1
    assert site.urls(robots=True).count("target.example/robots.txt") == 1
