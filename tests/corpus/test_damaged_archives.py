"""WARC and ARC files with something wrong: the good pages are kept, the bad ones counted."""

import gzip
import random
import re
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from page_files import html, record
from warcio.archiveiterator import ArchiveIterator

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.read import read_unit
from gptwo.corpus.sources import find_units
from gptwo.corpus.warc import Response, read_arc, read_warc
from gptwo.errors import DataError
from gptwo.pool import Task

LIMIT = 20_000_000
N = 12

# fixture -> pages kept, other answers, damage by offset, and pages that warcio finds (-1: it gives
# up); they differ where a comment says why.
FIXTURES = {
    "bad.arc": (0, 0, [0, 202, 262], 3),  # lengths of -1, abc, and 1 that is no HTTP
    "example-bad-non-chunked.warc.gz": (1, 0, [], -1),  # one member holds all records
    "example-bad.warc.gz.bad": (1, 1, [], -1),  # the same, with a redirect
    "example-digest.warc": (0, 0, [], 0),  # requests only
    "example-iana.org-chunked.warc": (1, 0, [], 1),
    "example-resource.warc.gz": (1, 0, [], 1),
    "example-space-in-target-uri.warc.gz": (0, 0, [], 1),  # a file: that warcio counts too
    "example-space-in-url.arc": (1, 0, [], 1),  # shorter than it says, whole by its HTTP length
    "example-trunc.warc": (1, 0, [2560], 1),  # bytes between records, and a last one that is cut
    "example-wget-bad-target-uri.warc.gz": (1, 0, [], 3),  # and two metadata: of wget
    "example-wrong-chunks.warc.gz": (1, 0, [], -1),  # said to be in chunks, and is not
    "example.arc": (1, 0, [], 1),
    "example.arc.gz": (1, 0, [], 1),
    "example.warc": (1, 0, [], 1),
    "example.warc.gz": (1, 0, [], 1),
    "post-test.warc.gz": (3, 0, [], 3),
    "../whirlwind.warc.gz": (1, 0, [], 1),
    "../whirlwind.warc.wet.gz": (1, 0, [], 1),
    "../whirlwind.warc.wat.gz": (0, 0, [], 0),  # metadata only
    "../example_archiveorg_2008.warc.gz": (214, 47, [], 299),  # 38 answers of DNS
    "../example_archiveorg_2008.arc.gz": (214, 47, [], 299),
}


def read(path: Path) -> list[Response]:
    reader = read_arc if ".arc" in path.name else read_warc
    return list(reader(path, LIMIT))


def warcio_pages(path: Path) -> int:
    with path.open("rb") as file:
        try:
            kinds = [r.rec_type for r in ArchiveIterator(file, arc2warc=True)]
        except Exception:  # its own class, for archives that it calls invalid
            return -1
    return sum(kind in ("response", "resource", "conversion") for kind in kinds)


@pytest.mark.parametrize("name", FIXTURES)
def test_every_fixture(data_dir: Path, name: str) -> None:
    path = data_dir / "warc" / "warcio_fixtures" / name
    responses = read(path)
    kept = [r for r in responses if not r.problem]
    damage = [r for r in responses if r.problem == "damaged"]
    others = len(responses) - len(kept) - len(damage)
    assert (len(kept), others, [r.offset for r in damage]) == FIXTURES[name][:3]
    assert all(r.url.startswith("http") for r in kept)
    assert all(re.match(r"byte [\d,]+", r.detail) for r in damage)
    assert warcio_pages(path) == FIXTURES[name][3]


def test_no_fixture_is_forgotten(data_dir: Path) -> None:
    folder = data_dir / "warc" / "warcio_fixtures"
    names = {path.name for path in [*folder.iterdir(), *folder.parent.glob("*.gz")]}
    assert names == {name.removeprefix("../") for name in FIXTURES}


def test_a_wet_file_holds_text(data_dir: Path) -> None:
    (page,) = read(data_dir / "warc" / "whirlwind.warc.wet.gz")
    assert page.text and page.content_type == "text/plain" and "Escopete" in page.payload.decode()


def url(number: int) -> str:
    return f"http://a.example/{number}"


def arc_record(number: int, body: bytes) -> bytes:
    http = b"HTTP/1.1 200 OK\r\nContent-Type: text/html\r\n\r\n" + body
    return f"{url(number)} 10.0.0.1 20170306040353 text/html {len(http)}\n".encode() + http + b"\n"


RECORDS = {
    "warc": [record(url(i), html(f"text {i} " * 20).encode()) for i in range(N)],
    "arc": [arc_record(i, html(f"text {i} " * 20).encode()) for i in range(N)],
}


def pages(path: Path) -> tuple[list[int], list[int]]:
    """Numbers of the whole pages, and offsets of damage."""
    responses = read(path)
    kept = [r for r in responses if not r.problem]
    assert {r.problem for r in responses if r.problem} <= {"damaged"}
    for page in kept:
        assert page.payload == html(f"text {page.url.split('/')[-1]} " * 20).encode()
    return (
        [int(page.url.split("/")[-1]) for page in kept],
        [r.offset for r in responses if r.problem],
    )


def without(*missing: int) -> list[int]:
    return [number for number in range(N) if number not in missing]


def written(tmp_path: Path, kind: str, parts: list[bytes]) -> Path:
    path = tmp_path / f"pages.{kind}"
    path.write_bytes(b"".join(parts))
    return path


@pytest.mark.parametrize("kind", ["warc", "arc"])
@pytest.mark.parametrize("layout", ["plain", "members", "one member", "cut anywhere", "two in one"])
def test_every_layout_of_gzip(tmp_path: Path, kind: str, layout: str) -> None:
    records = RECORDS[kind]
    whole = b"".join(records)
    step = 777  # cuts headers, lines and payloads
    parts = {
        "plain": records,
        "members": [gzip.compress(r) for r in records],
        "one member": [gzip.compress(whole)],
        "cut anywhere": [
            gzip.compress(whole[i : i + step]) for i in range(0, len(whole), step)
        ],
        "two in one": [gzip.compress(records[i] + records[i + 1]) for i in range(0, N, 2)],
    }[layout]  # fmt: skip
    assert pages(written(tmp_path, kind, parts)) == (without(), [])


@pytest.mark.parametrize("kind", ["warc", "arc"])
@pytest.mark.parametrize("pack", [bytes, gzip.compress])
def test_cut_at_any_byte(tmp_path: Path, kind: str, pack: type[bytes]) -> None:
    """In the header, the HTTP header, the payload, the end of the gzip member."""
    records = [pack(r) for r in RECORDS[kind]]
    last = sum(map(len, records[:-1]))
    for cut in range(1, len(records[-1]), 13):
        path = written(tmp_path, kind, [*records[:-1], records[-1][:cut]])
        kept, damage = pages(path)
        if kept == without() and pack is bytes:  # only line ends are missing
            assert cut >= len(RECORDS[kind][-1]) - 4
        else:
            assert damage == [last], cut  # of the end of a member the last bytes are its checksum
            assert kept == without(N - 1) or (kept == without() and cut > len(records[-1]) - 14)


@pytest.mark.parametrize("kind", ["warc", "arc"])
def test_garbage_before_between_and_after(tmp_path: Path, kind: str) -> None:
    members = [gzip.compress(r) for r in RECORDS[kind]]
    offset = sum(map(len, members))
    assert pages(written(tmp_path, kind, [*members, b"\0" * 5000])) == (without(), [])
    junk = random.Random(0).randbytes(5000)
    assert pages(written(tmp_path, kind, [*members, junk])) == (without(), [offset])
    middle = sum(map(len, members[:5]))
    path = written(tmp_path, kind, [*members[:5], junk, *members[5:]])
    assert pages(path) == (without(), [middle])
    plain = RECORDS[kind]
    middle = sum(map(len, plain[:5]))
    path = written(tmp_path, kind, [*plain[:5], b"more than was promised\n", *plain[5:]])
    assert pages(path) == (without(), [middle])


def test_a_length_that_lies(tmp_path: Path) -> None:
    """Too long: the next record is not swallowed. Too short: the page is what it says."""
    for wrong, kept in ((b"99999", without(4)), (b"270", without())):
        records = list(RECORDS["warc"])
        records[4] = re.sub(rb"Content-Length: \d+", b"Content-Length: " + wrong, records[4])
        responses = read(written(tmp_path, "warc", [gzip.compress(r) for r in records]))
        assert [
            int(r.url[-2:].strip("/")) for r in responses if not r.problem and r.payload
        ] == kept
        assert sum(r.problem == "damaged" for r in responses) == 1


def test_a_payload_cut_in_a_chunk_or_in_its_compression(tmp_path: Path) -> None:
    body = html("words " * 500).encode()
    chunks = b"%x\r\n%s\r\n%x\r\n%s\r\n0\r\n\r\n" % (900, body[:900], len(body) - 900, body[900:])
    packed = gzip.compress(body)
    bodies = [
        ("Transfer-Encoding: chunked", chunks),
        ("Transfer-Encoding: chunked", chunks[:1500]),
        ("Transfer-Encoding: chunked", chunks[:905]),
        ("Content-Encoding: gzip", packed),
        ("Content-Encoding: gzip", packed[:-30]),
        ("Content-Encoding: gzip", packed[:-4]),  # the text is whole, its checksum is not
        ("Content-Encoding: gzip", body),
        ("Content-Encoding: deflate", packed[10:-8]),
        ("Content-Encoding: br", body),
        ("Content-Encoding: utf-8", body),
    ]
    records = [record(url(i), data, headers) for i, (headers, data) in enumerate(bodies)]
    responses = read(written(tmp_path, "warc", records))
    assert [r.problem or r.payload == body for r in responses] == [
        True, "damaged", "damaged", True, "damaged", True, True, True, True, True,
    ]  # fmt: skip
    assert "ends inside a chunk of" in responses[1].detail
    assert "ends between two chunks" in responses[2].detail
    assert "ends inside its compression" in responses[4].detail


def test_a_member_that_is_a_bomb_costs_itself_alone(tmp_path: Path) -> None:
    head = record(url(99), b"")[:-4].replace(b"Content-Length: ", b"Content-Length: 30000000")
    bomb = gzip.compress(head + bytes(80_000_000))
    members = [gzip.compress(r) for r in RECORDS["warc"]]
    responses = read(written(tmp_path, "warc", [*members[:3], bomb, *members[3:]]))
    assert [int(r.url.split("/")[-1]) for r in responses if not r.problem] == without()
    assert [(r.problem, r.offset) for r in responses if r.problem] == [
        ("damaged", sum(map(len, members[:3])))
    ]
    assert "expands more than 200-fold" in responses[3].detail


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), st.binary(min_size=1, max_size=40), st.sampled_from(["warc", "arc"]))
def test_damage_costs_no_more_than_what_it_hits(
    tmp_path_factory: pytest.TempPathFactory, where: int, noise: bytes, kind: str
) -> None:
    members = [gzip.compress(r, mtime=0) for r in RECORDS[kind]]
    whole = bytearray(b"".join(members))
    at = where % (len(whole) - len(noise))
    whole[at : at + len(noise)] = noise
    begins = [sum(map(len, members[:i])) for i in range(N + 1)]
    hit = {i for i in range(N) if begins[i] < at + len(noise) and at < begins[i + 1]}
    path = tmp_path_factory.mktemp("hit") / f"pages.{kind}.gz"
    path.write_bytes(whole)
    kept = [int(r.url.split("/")[-1]) for r in read(path) if not r.problem]
    assert [number for number in kept if number not in hit] == without(*hit)


@settings(max_examples=200, deadline=None)
@given(st.binary(max_size=300), st.sampled_from(["warc", "arc"]), st.booleans())
def test_any_bytes_are_read_to_their_end(
    tmp_path_factory: pytest.TempPathFactory, noise: bytes, kind: str, packed: bool
) -> None:
    data = RECORDS[kind][0] + noise + RECORDS[kind][1]
    path = tmp_path_factory.mktemp("any") / f"pages.{kind}"
    path.write_bytes(gzip.compress(data) if packed else data)
    urls = [r.url for r in read(path) if not r.problem]
    assert urls[0] == url(0)
    if noise.endswith(b"\n") or not noise:
        assert urls[-1] == url(1)


def test_a_file_of_beginnings_ends(tmp_path: Path) -> None:
    """Every four bytes look like a member, and each is inflated in vain."""
    stored = b"\x1f\x8b\x08\0\0\0\0\0\0\xff" + b"\0\xff\xff\0\0"  # a block of 65,535 bytes
    path = written(tmp_path, "warc.gz", [stored * 20_000])
    assert {r.problem for r in read(path)} == {"damaged"}


def test_more_damage_than_allowed_is_an_error(tmp_path: Path) -> None:
    records = [gzip.compress(r) for r in RECORDS["warc"] * 4]
    broken = [data[:20] + bytes(9) + data[29:] if i % 3 == 0 else data
              for i, data in enumerate(records)]  # fmt: skip
    path = written(tmp_path, "warc.gz", broken)
    task = Task(input=find_units([path])[0], output=tmp_path / "work" / "00000.json")
    with pytest.raises(DataError, match=r"16 of 48 records are damaged") as caught:
        read_unit(task, CorpusConfig(), lambda number: None)
    assert caught.value.exit_code == 3 and "max_damaged_share" in caught.value.remedy
    read_unit(task, CorpusConfig(max_damaged_share=0.2), lambda number: None)
