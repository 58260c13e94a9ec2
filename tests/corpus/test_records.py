"""The kernel that reads whole records finds what the plain code finds, in every file."""

import gzip
import zlib
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from isal.isal_zlib import crc32
from page_files import html, record

from gptwo.corpus import archive
from gptwo.corpus.warc import Response, read_warc

records = pytest.importorskip("gptwo.native._records")

LIMIT = 100_000
BODY = html("words and words " * 60).encode()
CHUNKS = b"%x\r\n%s\r\n%X;a=b\n%s\n0\r\n\r\n" % (500, BODY[:500], len(BODY) - 500, BODY[500:])
BODIES = [
    (("Content-Type: text/html; charset='UTF-8'",), BODY),
    (("Content-type:Text/HTML ;a=b; CHARSET = latin-1",), BODY),
    (("Transfer-Encoding: chunked",), CHUNKS),
    (("Transfer-Encoding: chunked",), BODY),
    (("Transfer-Encoding: chunked",), CHUNKS[:700]),
    (("Content-Encoding: gzip",), gzip.compress(BODY, mtime=0)),
    (("Content-Encoding: X-GZIP",), gzip.compress(b"", mtime=0) + b"more"),
    (("Content-Encoding: gzip",), gzip.compress(BODY, mtime=0)[:-9]),
    (("Content-Encoding: gzip",), gzip.compress(bytes(LIMIT + 1), mtime=0)),
    (("Content-Encoding: gzip",), BODY),
    (("Content-Encoding: deflate",), zlib.compress(BODY)),
    (("Content-Encoding: br",), BODY),
    (("Content-Encoding: gzip", "Transfer-Encoding: chunked"),
     b"%x\r\n%s\r\n0\r\n" % (len(gzip.compress(BODY)), gzip.compress(BODY, mtime=0))),
    (("Content-Type: text/html; charset=", "Content-Type: text/plain"), b""),
]  # fmt: skip
RECORDS = [
    record(f"http://a.example/{i}", body, "\r\n".join(fields))
    for i, (fields, body) in enumerate(BODIES)
]


def both(path: Path, max_bytes: int = LIMIT) -> tuple[list[Response], list[Response]]:
    """By the kernel and without it."""
    quick = list(read_warc(path, max_bytes))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(archive, "_kernel", lambda: None)
        return quick, list(read_warc(path, max_bytes))


def agree(path: Path, data: bytes) -> list[Response]:
    path.write_bytes(data)
    quick, plain = both(path)
    assert quick == plain
    return quick


def test_every_file_there_is(data_dir: Path) -> None:
    files = [path for path in (data_dir / "warc").rglob("*") if ".warc" in path.name]
    assert len(files) > 15
    for path in files:
        for max_bytes in (20_000_000, 3_000):
            quick, plain = both(path, max_bytes)
            assert quick == plain, path


def test_the_kernel_reads_most_of_a_file(data_dir: Path) -> None:
    data = (data_dir / "warc" / "example_archiveorg_2008.warc.gz").read_bytes()
    behind, pages = 0, []
    while behind < len(data):
        behind, last, _, more = records.read(data, behind, 0, 20_000_000, crc32)
        assert last >= 0
        pages += more
    assert [page[0] for page in pages] == [0] * 261


def test_every_encoding(tmp_path: Path) -> None:
    found = agree(tmp_path / "a.warc.gz", b"".join(gzip.compress(r) for r in RECORDS))
    assert len(found) == len(RECORDS)
    assert [r.problem for r in found if r.problem] == ["damaged", "damaged", "too-large"]
    assert sum(r.payload == BODY for r in found) == 9
    assert [r.charset for r in found[:3]] == ["utf-8", "latin-1", ""]
    kernel = records.read(gzip.compress(RECORDS[0]), 0, 70, LIMIT, crc32)[3][0]
    assert kernel[:6] == (0, 70, "http://a.example/0", "2017-03-06", 200, "text/html")
    assert kernel[6:] == ("utf-8", BODY)


def test_what_is_not_in_order_is_left_to_the_plain_code() -> None:
    member = gzip.compress(RECORDS[0], mtime=0)

    def last(data: bytes, checksum: Any = crc32) -> int:
        return records.read(data, 0, 0, LIMIT, checksum)[1]

    assert last(member) == 0
    assert last(member, lambda data: crc32(data) ^ 1) == -1
    assert last(gzip.compress(RECORDS[0] * 2)) == last(gzip.compress(b"\n" + RECORDS[0])) == -1
    assert last(member[:-4] + b"\0\0\0\0") == last(gzip.compress(RECORDS[0][:-40])) == -1
    assert {last(member[:cut]) for cut in range(len(member))} == {-1}
    with pytest.raises(ValueError, match="out of range"):
        records.read(member, len(member) + 1, 0, LIMIT, crc32)
    with pytest.raises(TypeError):
        records.read(member, 0, 0, LIMIT, lambda data: "no number")


def test_every_kind_of_block(tmp_path: Path) -> None:
    """Stored, with fixed codes, and with codes of their own; long runs; a name in the header."""
    runs = bytes(range(256)) * 40 + bytes(70_000) + b"ab" * 3_000 + b"abcdefghij" * 900
    data = record("http://a.example/", runs)
    members = []
    for level, strategy in ((0, 0), (1, 0), (9, 0), (6, zlib.Z_FIXED), (6, zlib.Z_HUFFMAN_ONLY)):
        packer = zlib.compressobj(level, wbits=31, strategy=strategy)
        members.append(packer.compress(data) + packer.flush())
    named = members[2][:3] + b"\x0c" + members[2][4:10] + b"\x03\0abcname\0" + members[2][10:]
    assert records.read(named, 0, 0, LIMIT, crc32)[1] == 0
    found = agree(tmp_path / "a.warc.gz", b"".join([*members, named]))
    assert [r.payload == runs for r in found] == [True] * 6


NOISE = st.binary(min_size=1, max_size=30)


@settings(max_examples=150, deadline=None)
@given(st.integers(0, 10**9), NOISE, st.booleans())
def test_mutated_files(
    tmp_path_factory: pytest.TempPathFactory, where: int, noise: bytes, packed: bool
) -> None:
    """Damage in the compressed bytes, and damage that was compressed."""
    members = [gzip.compress(r, mtime=0) for r in RECORDS]
    if packed:
        whole = bytearray(b"".join(members))
        at = where % (len(whole) - len(noise))
        whole[at : at + len(noise)] = noise
    else:
        number = where % len(RECORDS)
        hit = bytearray(RECORDS[number])
        at = where // len(RECORDS) % min(len(hit) - len(noise), 500)
        hit[at : at + len(noise)] = noise
        members[number] = gzip.compress(hit, mtime=0)
        whole = b"".join(members)
    agree(tmp_path_factory.mktemp("mutated") / "a.warc.gz", bytes(whole))


NAMES = ["Content-Type", "content-length", "Content-Encoding", "TRANSFER-ENCODING", "X-Other",
         "WARC-Type", "WARC-Target-URI", "warc-date"]  # fmt: skip
VALUES = ["response", "Resource", "conversion", "request", "<http://a.example/ä>", "dns:a", "12",
          "https://a.example/b ", "text/html;charset=a", "text/é; charset=\"Ü\"", "gzip", "chunked",
          "2017-03-06T04:03:53Z", "", "\x0b\x0c"]  # fmt: skip
ENDS = ["\r\n", "\n", "\r\n\r\n", "\n\r\n", "\n\n", "\r"]
LINE = st.tuples(
    st.sampled_from(NAMES) | st.text(max_size=6),
    st.sampled_from([":", ": ", " :"]),
    st.sampled_from(VALUES) | st.text(max_size=12),
    st.sampled_from(ENDS) | st.just("\r\n"),
).map("".join)
HEAD = st.lists(LINE, max_size=6).map("".join)
STATUS_LINES = ["HTTP/1.1 200 OK\r\n", "\n HTTP/1 404\n", "HTTP/1.1  2000\r\n", "",
                "HTTP/1.1\t200\r\n\r\n", "HTTP/ 200 x\r\n", "HTTP/1.0 200_\n"]  # fmt: skip


@settings(max_examples=200, deadline=None)
@given(HEAD, st.sampled_from(STATUS_LINES), HEAD, st.binary(max_size=40), st.booleans())
def test_generated_headers(
    tmp_path_factory: pytest.TempPathFactory,
    head: str, status: str, http: str, body: bytes, fitting: bool,
) -> None:  # fmt: skip
    block = (status + http).encode("utf-8", "surrogatepass") + body
    begin = "WARC/1.0\r\n"
    if fitting:
        begin += f"WARC-Type: response\nWARC-Target-URI: http://a/\nContent-Length: {len(block)}\n"
    data = (begin + head).encode("utf-8", "surrogatepass") + b"\r\n\r\n" + block + b"\r\n\r\n"
    whole = [gzip.compress(r, mtime=0) for r in (RECORDS[0], data, RECORDS[5])]
    agree(tmp_path_factory.mktemp("headers") / "a.warc.gz", b"".join(whole))
