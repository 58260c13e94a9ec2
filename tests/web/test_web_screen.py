"""screen: the kernel and its plain twin, line for line."""

import json
import lzma
import random
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from web_link_files import SECOND, submission

from gptwo.web.config import LinksConfig
from gptwo.web.screen import Screened, Screener
from gptwo.web.submissions import Block

CONFIG = LinksConfig(
    first_day="2005-06-01",
    last_day="2005-06-30",
    blocked_subreddits=("Spam",),
    blocked_domains=("www.Blocked.example", "Bücher.example"),
)

pytestmark = pytest.mark.skipif(
    find_spec("gptwo.native._links") is None, reason="the kernel is not built"
)


def screened(data: bytes, *, native: bool) -> Screened:
    return Screener(CONFIG, "dump", native=native).block(Block(data=data, start=100))


def same(data: bytes) -> Screened:
    """What both make of a block; they must agree in every column and fault."""
    fast, plain = screened(data, native=True), screened(data, native=False)
    assert fast.kept.equals(plain.kept)
    assert fast.dropped.equals(plain.dropped)
    assert (fast.faults, fast.reasons) == (plain.faults, plain.reasons)
    return fast


def in_doubt(data: bytes) -> int:
    """How many lines the kernel leaves to its twin."""
    screener, asked = Screener(CONFIG, "dump"), []
    screener._screen(data, lambda line, at: asked.append(line) or [])
    return len(asked)


PIECES = [
    *(
        "http",
        "HTTPS",
        "ftp",
        "://",
        "//",
        ":",
        "/",
        "?",
        "#",
        "&",
        "=",
        "&amp;",
        "+",
        ";",
        "@",
        "[",
    ),
    *("a.example", "WWW.", "www.", "i.imgur.com", "de.wikipedia.org", "blocked.example", "x", ".."),
    *(
        ":80",
        ":443",
        ":8080",
        ":99999",
        ".",
        "%20",
        "%2F",
        "%C3%A9",
        "%E9",
        "%ED%A0%80",
        "%00",
        "%",
    ),
    *(
        "%zz",
        "~",
        "_",
        "-",
        "utm_source=a",
        "FBCLID=1",
        "ref_src",
        "a=1",
        "b=2",
        "a.JPG",
        ".torrent",
    ),
    *(
        "é",
        "ü.example",
        " ",
        "\t",
        "\n",
        "\x7f",
        "\u202e",
        "\U0001f600",
        "\\",
        '"',
        "<",
        "€",
        "xn--",
    ),
]
urls = st.one_of(
    st.lists(st.sampled_from(PIECES), max_size=12).map("".join),
    st.lists(st.sampled_from(PIECES), max_size=9).map(lambda p: "http://a.example/" + "".join(p)),
    st.integers(1975, 1990).map(lambda n: "http://a.example/" + "x" * n),
)
odd = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-5, 5),
    st.integers(-(2**40), 2**40),
    st.floats(),
    st.text(max_size=5),
    st.just([{"score": 1}, []]),
    st.just({"url": "http://inside.example/", "score": 9, "a": {}}),
)
days = st.one_of(
    odd,
    st.integers(SECOND - 90 * 86_400, SECOND + 90 * 86_400),
    st.sampled_from([0, -1, 253_402_300_799, 253_402_300_800, str(SECOND), f"{SECOND}.0", "1.00"]),
    st.integers(0, 2**31).map(float),
)
lines = st.fixed_dictionaries(
    {"url": st.one_of(urls, odd)},
    optional={
        "score": st.one_of(st.integers(0, 9), odd),
        "created_utc": days,
        "date": st.sampled_from(["2005-06-07", "", "June", None]),
        "subreddit": st.one_of(st.sampled_from(["spam", "SPAM", "news", "ünsinn", "x" * 70]), odd),
        "is_self": odd,
        "over_18": st.one_of(st.just(False), odd),
        "title": st.text(),
        "media": odd,
        "scor\u0435": odd,  # not our score
    },
)


@st.composite
def dumps(draw: st.DrawFn) -> bytes:
    """Some lines, escaped in different ways, and now and then broken."""
    made = []
    for value in draw(st.lists(lines, max_size=4)):
        text = json.dumps(
            value,
            ensure_ascii=draw(st.booleans()),
            separators=draw(st.sampled_from([(",", ":"), (", ", ": "), (" ,\t", " :")])),
        )
        if draw(st.booleans()):
            text = text.replace("/", "\\/")
        if draw(st.booleans()):
            text = text.replace("&", "\\u0026")
        line = bytearray(text.encode("utf-8", "surrogatepass"))
        for _ in range(draw(st.sampled_from([0, 0, 0, 1, 2]))):
            at = draw(st.integers(0, len(line) - 1))
            line[at : at + draw(st.integers(0, 2))] = draw(
                st.sampled_from([b"", b'"', b"\\", b"{", b"]", b"\r", b"\xff", b"\0", b"1", b"e"])
            )
        made.append(bytes(line))
    end = draw(st.sampled_from([b"\n", b"\r\n", b"\r", b"\n \n\n", b"\n\xc2\xa0\n"]))
    return end.join(made) + draw(st.sampled_from([b"", end]))


@settings(max_examples=500, deadline=None)
@given(dumps())
def test_the_kernel_is_its_plain_twin(data: bytes) -> None:
    same(data)


@pytest.mark.parametrize(
    "line",
    [
        '{"url": "http://a.example/", "score": 5, "score": 1}',
        '{"score": 1, "url": "http://a.example/x", "score": null}',
        '{"is_self": true, "url": "http://a.example/x", "is_self": null}',
        '{"url": "http://a.example:65535/x"}',
        '{"url": "http://a.example:65536/x"}',
        '{"url": "http://a.example/' + "x" * 1983 + '"}',
        '{"url": "http://a.example/' + "x" * 1984 + '"}',
        '{"url": "http://a"}',
        '{"url": "http://ab"}',
        '{"url": "http://a.example/x", "scor\\u0065": 1}',
        '{"media": {"score": 1}, "url": "http://a.example/x", "score": 5}',
        '{"url": "http:\\/\\/a.example\\/\\u0041", "score": 5}',
        '{"url": "http://a.example/x&amp;amp;y", "score": 5}',
        '{"url": " http://a.example/x ", "score": 5}',
        '{"url": "http://a.example/\\ud800", "score": 5}',
        '{"url": "http://a.example/x", "score": 5} ',
        '{"url": "http://a.example/x", "score": 5}}',
        '{"url": "http://a.example/x", "score": 5, }',
        '{"url": "http://a.example/x", "score": 05}',
        '{"url": "http://a.example/x", "score": 5, "a": [1, 2,]}',
        '{"url": "http://a.example/x", "score": 5, "a": [}',
        '{"url": "http://a.example/x", "score": 5, "a": NaN, "b": -Infinity}',
        '{"url": "http://a.example/x", "score": 5, "a": 1.}',
        '{"url": "http://a.example/x", "score": 5, "a": -}',
        '{"url": "http://a.example/x", "score": 5, "a": "\\x"}',
        '{"url": "http://a.example/x", "score": 5, "a": "\t"}',
        '{"url": "http://a.example/x", "score": 5, "a": ' + "[" * 500 + "]" * 500 + "}",
        '{"url": "http://a.example/x", "score": 5, "a": ' + "[" * 100_000 + "}",
        '{"url": "http://a.example/x", "score": 5, "a": ' + "9" * 5000 + "}",
        '{"url": "http://a.example/x", "score": ' + "9" * 30 + "}",
        '{"url": "http://a.example/x", "score": -2147483648}',
        '{"url": "http://a.example/x?' + "&".join(f"{i % 7}={i}" for i in range(200)) + '"}',
        '{"url": "http://a.example/x?' + "/" * 1900 + '"}',
        '{"url": "http://a.example/x?a=%ff&b=%c3%a9&%c3%a9=1&c=%c3"}',
        '{"url": "http://' + "w" * 1980 + '"}',
        '{"url": "http://a.example:00080/x"}',
        '{"url": "http://a.example:/x"}',
        '{"url": "http://www./x"}',
        '{"url": "http://www.example./x/%2f/"}',
        '{"url": "http://a.example", "created_utc": "1118895720.000"}',
        '{"url": "http://a.example", "created_utc": 1118895719.9999999999}',
        '{"url": "http://a.example", "created_utc": ""}',
        '{"": 1, "url": "http://a.example/x"}',
        "{}",
        "{",
        '"',
        "null",
        "\x0b",
        '{"url": "http://a.example/1"}\r{"url": "http://a.example/2"}',
    ],
    ids=lambda line: line[:60],
)
def test_lines_that_a_shortcut_would_get_wrong(line: str) -> None:
    same(line.encode("utf-8", "surrogatepass"))
    same(f"{line}\n{line}\r\n".encode("utf-8", "surrogatepass"))


def test_many_made_addresses_have_the_same_key() -> None:
    chance = random.Random(1)
    made = [
        submission("http://a.example/" + "".join(chance.choices(PIECES, k=chance.randrange(12))))
        for _ in range(20_000)
    ]
    found = same("\n".join(map(json.dumps, made)).encode())
    assert found.read == 20_000 and found.kept.num_rows > 1000


def test_of_real_lines_none_is_left_to_the_twin(data_dir: Path) -> None:
    """Otherwise the kernel would be exact, and no faster."""
    for path in sorted((data_dir / "reddit").glob("*.xz")):
        data = lzma.decompress(path.read_bytes())
        found = same(data)
        assert found.read == data.count(b"\n")
        assert in_doubt(data) <= 0.01 * found.read


def test_a_fault_names_the_byte_where_its_line_begins() -> None:
    good = json.dumps(submission("http://a.example/good"))
    found = same(f"{good}\n{{broken\n{good}\n".encode())
    assert len(found.faults) == 1
    assert found.faults[0].endswith(f"at byte {100 + len(good) + 1}")


@pytest.mark.parametrize("lines", [0, 1, 100_000])
def test_a_block_of_any_length(lines: int) -> None:
    line = json.dumps(submission("http://a.example/good")).encode() + b"\n"
    found = screened(line * lines, native=True)
    assert found.kept.num_rows == lines and found.dropped.num_rows == 0


def test_what_the_twin_raises_comes_through() -> None:
    def stop(line: bytes, at: int) -> list[Any]:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        Screener(CONFIG, "dump")._screen(b"{odd}\n", stop)
    with pytest.raises(TypeError):
        Screener(CONFIG, "dump")._screen(b"{odd}\n", lambda line, at: None)
