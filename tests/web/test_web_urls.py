"""urls: many spellings, one identity; and what is not fetched."""

import json
from pathlib import Path

import pytest

from gptwo.urls import authority, canonical_key, host_of, on_domain, wire_url
from gptwo.web.blocklists import BLOCKED, WIKIPEDIA, is_not_text, is_wikipedia, url_fault
from gptwo.web.config import LinksConfig
from gptwo.web.rules import Rules
from gptwo.web.screen import Screener
from gptwo.web.submissions import Block, Submission


@pytest.mark.parametrize(
    ("url", "key"),
    [
        ("http://a.example", "a.example"),
        ("https://a.example/", "a.example"),
        ("HTTP://WWW.A.Example/Path/", "a.example/Path"),
        ("http://a.example./x", "a.example/x"),
        ("http://a.example:80/x", "a.example/x"),
        ("https://a.example:443/x", "a.example/x"),
        ("http://a.example:8080/x", "a.example:8080/x"),
        ("http://www2.a.example/x", "www2.a.example/x"),
        ("http://a.example/x#part", "a.example/x"),
        ("http://a.example/x?utm_source=f&UTM_Medium=g&fbclid=1&gclid=2&mc_cid=3", "a.example/x"),
        ("http://a.example/x?b=2&a=1&b=1", "a.example/x?a=1&b=1&b=2"),
        ("http://a.example/x?id=&utm_x", "a.example/x?id="),
        ("http://a.example/x?q=a+b", "a.example/x?q=a+b"),
        ("http://a.example/x?q=a%20b", "a.example/x?q=a+b"),
        ("http://a.example/%7Euser/caf%C3%A9", "a.example/~user/café"),
        ("http://a.example/~user/café", "a.example/~user/café"),
        ("http://Bücher.example/x", "xn--bcher-kva.example/x"),
        ("http://xn--bcher-kva.example/x", "xn--bcher-kva.example/x"),
        ("http://user:secret@a.example/x", "a.example/x"),
        ("http://[2001:DB8::1]/x", "[2001:db8::1]/x"),
        ("http://[2001:db8::1]:8080/x", "[2001:db8::1]:8080/x"),
    ],
)
def test_one_key_for_many_spellings(url: str, key: str) -> None:
    assert canonical_key(url) == key


def test_different_pages_keep_different_keys() -> None:
    urls = [
        "http://a.example/caf%E9",  # Latin-1, as old sites wrote
        "http://a.example/caf%E8",
        "http://a.example/x?q=%E9",
        "http://a.example/x?q=%E8",
        "http://a.example/x?id=1",
        "http://a.example/x?id=2",
        "http://[::1]:8080/x",
        "http://[::1:8080]/x",
        "http://a.example/Case",
        "http://a.example/case",
    ]
    keys = [canonical_key(url) for url in urls if url_fault(url) == ""]
    assert len(set(keys)) == len(keys) == len(urls)


@pytest.mark.parametrize(
    "url",
    [
        "",
        "nonsense",
        "ftp://a.example/x",
        "javascript:alert(1)",
        "mailto:someone@a.example",
        "http://",
        "http:///path",
        "http://.",
        "http://a.example:port/",
        "http://a.example:99999/",
        "http://[::1",
        "http://[not-an-address]/",
        "http://bü..example/",
        "http://" + "ü" * 70 + ".example/",
        "http://a℀b.example/",  # becomes a/c when normalised: another host
    ],
)
def test_what_is_no_address(url: str) -> None:
    with pytest.raises(ValueError):
        canonical_key(url)
    assert url_fault(url) in ("url-malformed", "url-length")


@pytest.mark.parametrize(
    ("url", "fault"),
    [
        ("http://a.example/x", ""),
        ("http://a", "url-length"),  # OpenAI's reproductions drop what has 8 characters or fewer
        ("http://ab", ""),
        ("http://a.example/" + "x" * 1983, ""),
        ("http://a.example/" + "x" * 1984, "url-length"),
        ("http://a.example/a b", "url-malformed"),
        ("http://a.example/a\nb", "url-malformed"),
        ("http://a.example/a\0b", "url-malformed"),
        ("http://a.example/\u202etxt.exe", "url-malformed"),
        ("http://a.example/\ud800", "url-malformed"),
        ("file:///etc/passwd", "url-malformed"),
        ("http://a.example:x/y", "url-malformed"),
    ],
)
def test_faults(url: str, fault: str) -> None:
    assert url_fault(url) == fault


def test_the_wire_form_is_ascii_and_hides_the_user() -> None:
    assert wire_url("HTTP://u:p@Bücher.example:80/a/é%20?q=ü&r=%41#top") == (
        "http://xn--bcher-kva.example/a/%C3%A9%20?q=%C3%BC&r=%41"
    )
    assert wire_url("https://[::1]:8443") == "https://[::1]:8443/"
    assert authority("https://me@a.example:443/") == "a.example"
    assert authority("http://a.example:443/") == "a.example:443"
    assert host_of("http://A.Example.:81/x") == "a.example"
    for url in ("http://bücher.example/é?ü", "http://a.example/x y", "http://a.example/%zz"):
        assert wire_url(wire_url(url)) == wire_url(url)


def test_domains_match_at_labels() -> None:
    domains = frozenset({"imgur.com", "x.com"})
    assert on_domain("imgur.com", domains) and on_domain("i.imgur.com", domains)
    assert not on_domain("notimgur.com", domains) and not on_domain("netflix.com", domains)
    assert not on_domain("imgur.com.a.example", domains) and not on_domain("com", domains)


@pytest.mark.parametrize("language", ["en", "de", "simple", "zh-yue", "en.m", "www", "roa-rup"])
def test_wikipedia_in_any_language(language: str) -> None:
    assert is_wikipedia(f"{language}.wikipedia.org") and is_wikipedia("wikipedia.org")
    assert not is_wikipedia(f"{language}.notwikipedia.org")
    assert not is_wikipedia(f"{language}.wikipedia.org.a.example")


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("/photo.JPG", True),
        ("/a/b.tar.gz", True),
        ("/paper.pdf?page=2", True),
        ("/film.torrent", True),
        ("/page.html", False),
        ("/page.php?file=a.jpg", False),
        ("/pdf", False),
        ("/a.pdf/read", False),
        ("/v1.7", False),
        ("", False),
    ],
)
def test_endings_without_text(path: str, expected: bool) -> None:
    assert is_not_text(f"http://a.example{path}") is expected


def test_the_webtext_preset_blocks_no_top_domain_of_webtext(data_dir: Path) -> None:
    lines = (data_dir / "weblists" / "webtext_top_domains.txt").read_text().split("\n")
    names = [line.partition(" ")[2] for line in lines if line.strip()]
    assert len(names) == 1000 and names[:2] == ["google", "archive"]
    # The list names the label before the public suffix: "google" for google.com. So whatever
    # suffix a blocked domain has, each of the names with it must pass all rules.
    blocked = BLOCKED["webtext"] | WIKIPEDIA
    suffixes = {domain.rpartition(".")[2] for domain in blocked} | {"com", "co.uk", "org", "net"}
    hosts = [
        f"{sub}{name}.{end}"
        for name in filter(None, names)
        for end in suffixes
        for sub in ("", "www.")
    ]
    found = [Submission(url=f"http://{host}/page.html", score=3) for host in hosts]
    rules = Rules(LinksConfig(preset="webtext"))
    assert {one.url: why for one in found if (why := rules.why_not(one))} == {}
    screened = Screener(LinksConfig(preset="webtext"), "made").block(
        Block(data="\n".join(json.dumps({"url": one.url}) for one in found).encode(), start=0)
    )
    assert screened.reasons == {"": len(found)}
    also = Rules(LinksConfig(preset="openwebtext"))
    assert {why for one in found if (why := also.why_not(one))} == {"domain"}


@pytest.mark.parametrize(
    ("domain", "url"),
    [
        ("Spam.example", "http://a.spam.example/x"),
        ("www.spam.example", "http://spam.example/x"),
        ("http://spam.example/", "http://www.spam.example/x"),
        ("bücher.example", "http://xn--bcher-kva.example/x"),
        ("spam.example:80", "http://spam.example:80/x"),
    ],
)
def test_blocked_domains_as_people_write_them(domain: str, url: str) -> None:
    rules = Rules(LinksConfig(blocked_domains=(domain, " ")))
    assert rules.why_not(Submission(url=url)) == "domain"
    assert rules.why_not(Submission(url="http://other.example/x")) == ""
