"""read: every kind of source, whole, damaged and hostile."""

import bz2
import gzip
import io
import json
import lzma
import os
import stat
import subprocess
import sys
import tarfile
import zipfile
from collections import Counter
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zstandard
from page_files import html, record, write_crawl, write_warc

from gptwo.corpus.config import CorpusConfig
from gptwo.corpus.encoding import decode
from gptwo.corpus.read import read_unit, shards_of
from gptwo.corpus.shards import Draft, clean, read_shard
from gptwo.corpus.sources import find_units
from gptwo.corpus.warc import read_arc, read_warc
from gptwo.errors import DataError
from gptwo.pool import Task

LIMIT = 1_000_000


SMALL = CorpusConfig(max_document_bytes=LIMIT)


def read(source: Path, tmp_path: Path, config: CorpusConfig = SMALL) -> list[Draft]:
    """All drafts of a source, kept and dropped."""
    drafts = []
    for number, unit in enumerate(find_units([source])):
        mark = tmp_path / "work" / f"{number:05}.json"
        read_unit(Task(input=unit, output=mark), config, lambda position: None)
        for shard in shards_of(mark):
            drafts += read_shard(shard, kept=False)
    assert len({draft.row for draft in drafts}) == len(drafts)
    return drafts


def reasons(drafts: list[Draft]) -> Counter[str]:
    return Counter(draft.reason for draft in drafts)


@pytest.mark.parametrize("suffix", ["", ".gz", ".xz", ".zst", ".bz2"])
def test_json_lines_however_compressed(tmp_path: Path, suffix: str) -> None:
    lines = [{"text": "one", "url": "http://a.example/", "score": "7"}, {"text": "two", "k": 1}]
    data = "\n".join(map(json.dumps, lines)).encode()
    pack = {
        "": bytes,
        ".gz": gzip.compress,
        ".xz": lzma.compress,
        ".zst": zstandard.ZstdCompressor().compress,
        ".bz2": bz2.compress,
    }[suffix]
    path = tmp_path / f"texts.jsonl{suffix}"
    path.write_bytes(pack(data))
    one, two = read(path, tmp_path)
    assert (one.text, one.url, one.score) == ("one", "http://a.example/", 7)
    assert (two.text, two.score, json.loads(two.meta)) == ("two", None, {"k": 1})


def test_bad_lines_are_set_aside_with_their_number(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    lines = [
        b'\xef\xbb\xbf{"text": "first\\r\\nline"}',
        b"{broken",
        b'{"title": "no text"}',
        b'{"text": ""}',
        b'{"text": "' + b"x" * LIMIT + b'"}',
        b'{"text": "nul \\u0000 and lone \\ud800 and \xff"}',
        b"",
        b'["a list"]',
        b'{"text": "last"}',
    ]
    path.write_bytes(b"\n".join(lines))
    drafts = read(path, tmp_path)
    assert [draft.text for draft in drafts if not draft.reason] == [
        "first\nline",
        "nul  and lone \ufffd and \ufffd",
        "last",
    ]
    dropped = [(draft.reason, draft.detail.split(" ")[:2]) for draft in drafts if draft.reason]
    assert dropped == [
        ("damaged", ["line", "2"]),
        ("no-text", ["line", "3"]),
        ("empty", ["line", "4"]),
        ("too-large", ["line", "5"]),
        ("damaged", ["line", "8"]),
    ]


def test_a_cut_archive_keeps_its_whole_lines(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl.gz"
    lines = b"".join(json.dumps({"text": f"text {i * 7919}"}).encode() + b"\n" for i in range(5000))
    path.write_bytes(gzip.compress(lines)[:-2000])
    drafts = read(path, tmp_path)
    assert len(drafts) > 1000 and reasons(drafts)["damaged"] in (1, 2)
    assert all(draft.text.startswith("text ") for draft in drafts if not draft.reason)


def test_a_bomb_is_not_inflated(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl.gz"
    path.write_bytes(gzip.compress(b'{"text": "a"}\n{"text": "' + b"a" * 150_000_000))
    drafts = read(path, tmp_path)
    assert [draft.reason for draft in drafts] in (["", "damaged"], ["", "too-large", "damaged"])
    assert "fold" in drafts[-1].detail


def test_parquet(tmp_path: Path) -> None:
    path = tmp_path / "texts.parquet"
    pq.write_table(
        pa.table({"text": ["one", None], "score": [3.0, 4.0], "title": ["t", "u"]}), path
    )
    one, two = read(path, tmp_path)
    assert (one.text, one.score, one.meta) == ("one", 3, '{"title": "t"}')
    assert two.reason == "no-text"


def test_a_text_file_is_one_document(tmp_path: Path) -> None:
    path = tmp_path / "book.txt"
    path.write_bytes("Kapitel\r\nCafé".encode("cp1252"))
    assert [draft.text for draft in read(path, tmp_path)] == ["Kapitel\nCafé"]


def test_a_folder_of_many_kinds(tmp_path: Path) -> None:
    folder = tmp_path / "mixed"
    (folder / "deep").mkdir(parents=True)
    (folder / "deep" / "a.html").write_text(html("hello"))
    (folder / "b.txt").write_text("text")
    (folder / "c.jsonl").write_text('{"text": "line"}\n')
    (folder / "logo.png").write_bytes(b"\x89PNG\0\0\0")
    (folder / "link.html").symlink_to(folder / "deep" / "a.html")
    drafts = read(folder, tmp_path)
    found = {draft.source: draft.reason or bool(draft.payload) or draft.text for draft in drafts}
    assert found == {
        "mixed/deep/a.html": True,
        "mixed/b.txt": "text",
        "mixed/c.jsonl": "line",
        "mixed/logo.png": "not-html",
    }


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz"])
def test_tar_members_are_streams_and_never_files(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "pages.tar"
    page = html("hello").encode()
    with tarfile.open(path, mode) as archive:
        for name in ("good.html", "../up.html", "/absolute.html", "sub/other.css"):
            member = tarfile.TarInfo(name)
            member.size = len(page) if name.endswith("html") else 3
            archive.addfile(member, io.BytesIO(page if name.endswith("html") else b"a{}"))
        for name, kind in (("link.html", tarfile.SYMTYPE), ("device", tarfile.CHRTYPE)):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
    before = sorted(tmp_path.rglob("*.html"))
    drafts = read(path, tmp_path)
    assert sorted(tmp_path.rglob("*.html")) == before
    assert reasons(drafts) == {
        "": 1,
        "tar-unsafe-name": 2,
        "not-html": 1,
        "tar-link": 1,
        "tar-device": 1,
    }


def test_http_encodings_statuses_and_types(tmp_path: Path) -> None:
    page = html("Café").encode("latin-1")
    records = [
        record("http://a.example/1", page, "Content-Type: text/html; charset=ISO-8859-1"),
        record("http://a.example/2", gzip.compress(page), "Content-Type: text/html\r\n"
               "Content-Encoding: gzip"),
        record("http://a.example/3", page, "Content-Type: text/html\r\nContent-Encoding: gzip"),
        record("http://a.example/4", b"%PDF-1.4 \0", "Content-Type: application/pdf"),
        record("http://a.example/5", b"gone", status="404 Not Found"),
        record("http://a.example/6", gzip.compress(b"a" * 50_000_000), "Content-Type: text/html\r\n"
               "Content-Encoding: gzip"),
        record("http://a.example/7", b"x" * (LIMIT + 1)),
        record("http://a.example/8", b""),
        record("http://a.example/9", b"plain words", "Content-Type: text/plain"),
        record("http://a.example/10", b"6\r\n<p>one\r\n4\r\n</p>\r\n0\r\n\r\n",
               "Content-Type: text/html\r\nTransfer-Encoding: chunked"),
    ]  # fmt: skip
    path = tmp_path / "pages.warc.gz"
    path.write_bytes(b"".join(map(gzip.compress, records)))
    drafts = {draft.url[-2:].strip("/"): draft for draft in read(path, tmp_path)}
    assert {key: draft.reason for key, draft in drafts.items()} == {
        "1": "", "2": "", "3": "", "4": "not-html", "5": "http-404", "6": "too-large",
        "7": "too-large", "8": "empty", "9": "", "10": "",
    }  # fmt: skip
    assert all("Café" in decode(drafts[k].payload or b"", drafts[k].charset) for k in "123")
    assert drafts["10"].payload == b"<p>one</p>"
    assert drafts["9"].text == "plain words"


@pytest.mark.parametrize("compress", [gzip.compress, bytes])
def test_one_bad_record_costs_one_page(tmp_path: Path, compress: type[bytes]) -> None:
    records = [
        compress(record(f"http://a.example/{i}", html(f"text {i}").encode())) for i in range(50)
    ]
    offset = sum(map(len, records[:20]))
    whole = bytearray(b"".join(records))
    whole[offset : offset + 60] = bytes(60)  # the header of record 20
    path = tmp_path / "pages.warc"
    path.write_bytes(whole[:-90])  # and the last is cut
    responses = list(read_warc(path, LIMIT))
    assert [r.url for r in responses if not r.problem] == [
        f"http://a.example/{i}" for i in range(49) if i != 20
    ]
    bad = [r for r in responses if r.problem]
    assert {r.problem for r in bad} == {"damaged"} and len(bad) == 2
    assert all("byte" in r.detail for r in bad)


def test_a_mostly_damaged_source_is_refused_by_name(tmp_path: Path) -> None:
    path = tmp_path / "texts.jsonl"
    path.write_text('{"text": "one"}\n' * 30 + "{broken\n" * 16)
    with pytest.raises(DataError, match=r"texts\.jsonl: 16 of 46 records are damaged"):
        read(path, tmp_path)
    assert len(read(path, tmp_path, CorpusConfig(max_damaged_share=0.2))) == 46


@pytest.mark.parametrize(
    ("name", "content", "message"),
    [
        ("none.jsonl", None, "does not exist"),
        ("empty.jsonl", b"", "is empty"),
        ("a.bin", b"\x7fELF\0\0\0", "no kind we can read"),
        ("a.zip", b"PK\x03\x04\0\0", "not a whole zip file"),
        ("a.docx", b"PK\x03\x04\0\0", "no kind we can read"),
        ("a.jsonl", b"plain words", "no JSON object in its first line"),
        ("a.json", b'[{"text": "a"}]', "one JSON value"),
        ("a.jsonl.gz", b"\x1f\x8b\x08 not gzip", "cannot be decompressed"),
        ("a.xz", b"version https://git-lfs.github.com/spec/v1\noid", "Git LFS pointer"),
        ("a.parquet", b"PAR1 cut", "not a whole Parquet file"),
        ("a.warc", b"WARC/1.0\r\nnothing", "holds no document|are damaged"),
    ],
)
def test_sources_that_are_none(
    tmp_path: Path, name: str, content: bytes | None, message: str
) -> None:
    path = tmp_path / name
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(DataError, match=message) as caught:
        read(path, tmp_path)
    assert name in caught.value.message and caught.value.remedy


def test_folders_that_hold_nothing(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="empty folder"):
        find_units([tmp_path / "empty"])
    (tmp_path / "images").mkdir()
    (tmp_path / "images" / "a.png").write_bytes(b"\x89PNG\0")
    with pytest.raises(DataError, match="nothing we can read"):
        find_units([tmp_path / "images"])
    with pytest.raises(DataError, match="no source"):
        find_units([])


def test_a_crawl_is_joined_to_its_links(tmp_path: Path) -> None:
    pages = {
        "http://b.example/end": b"<p>moved",
        "http://a.example/": b"<p>here",
        "http://x/": b"?",
    }
    visits = [
        ("http://a.example/", "http://a.example/", 5),
        ("http://short.example/1", "http://b.example/end", 9),
        ("http://lost.example/", "http://lost.example/", 4),
        ("http://gone.example/", "", 4),
    ]
    drafts = read(write_crawl(tmp_path / "pages", visits, pages), tmp_path)
    found = {d.url: (d.payload, d.score, d.date, d.final_url, d.source, d.reason) for d in drafts}
    assert found == {
        "http://a.example/": (b"<p>here", 5, "2017-01-01", "", "pages", ""),
        "http://short.example/1": (
            (b"<p>moved", 9, "2017-01-01", "http://b.example/end", "pages", "")
        ),
        "http://lost.example/": (None, 4, "2017-01-01", "", "pages", "no-response"),
    }


def test_shards_do_not_depend_on_interruption(tmp_path: Path) -> None:
    pages = [(f"http://a.example/{i}", f"<p>{i}".encode()) for i in range(2100)]
    path = write_warc(tmp_path / "pages.warc.gz", pages)
    drafts = read(path, tmp_path)
    assert len(drafts) == 2100 and len(list((tmp_path / "work").glob("*.parquet"))) == 3
    (tmp_path / "work" / "00000.json").unlink()  # killed just before the mark
    first = (tmp_path / "work" / "00000-00000.parquet").stat().st_mtime_ns
    assert read(path, tmp_path) == drafts
    assert (tmp_path / "work" / "00000-00000.parquet").stat().st_mtime_ns == first


@pytest.mark.parametrize(
    ("payload", "charset", "text"),
    [
        ("Café".encode(), "iso-8859-1", "Café"),  # servers claim Latin-1 by default
        ("Café".encode("latin-1"), "iso-8859-1", "Café"),
        ("“quoted”".encode("cp1252"), "iso-8859-1", "“quoted”"),  # as browsers read it
        ("Привет, мир".encode("koi8-r"), "koi8-r", "Привет, мир"),
        (b'<meta charset="shift_jis">' + "日本".encode("shift_jis"), "", None),
        ("\ufeffmark".encode("utf-16-le"), "", "mark"),
        (b"\xef\xbb\xbfmark", "", "mark"),
        ("Café".encode("latin-1"), "no-such-charset", "Café"),
    ],
)
def test_encodings(payload: bytes, charset: str, text: str | None) -> None:
    found = decode(payload, charset)
    assert found.endswith("日本") if text is None else found == text


def test_clean() -> None:
    assert clean("\ufeff a\r\nb\rc\0d\ud800 \n") == "a\nb\ncd\ufffd"


def test_real_archives_of_2008(data_dir: Path) -> None:
    warc = list(read_warc(data_dir / "warc" / "example_archiveorg_2008.warc.gz", LIMIT * 20))
    arc = list(read_arc(data_dir / "warc" / "example_archiveorg_2008.arc.gz", LIMIT * 20))
    for responses in (warc, arc):
        counts = Counter((r.problem, r.content_type) for r in responses if not r.problem)
        assert len(responses) == 261
        assert counts["", "text/html"] == 94 and counts["", "text/plain"] == 36


def test_zip_members_are_streams_and_never_files(tmp_path: Path) -> None:
    """Unsafe names, links, devices, encryption, damage and bombs cost only themselves."""
    page = html("hello").encode()
    path = tmp_path / "pages.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name in ("good.html", "../up.html", "/absolute.html", "a\\..\\b.html", "hit.html"):
            archive.writestr(name, page)
        for name, kind in (("link.html", stat.S_IFLNK), ("device.html", stat.S_IFCHR)):
            member = zipfile.ZipInfo(name)
            member.external_attr = (kind | 0o644) << 16
            archive.writestr(member, "/etc/passwd")
        archive.writestr("folder/", "")
        archive.writestr("large.html", bytes(LIMIT + 1))
        archive.writestr("nested.zip", b"PK\x03\x04" + bytes(100))
        archive.writestr("last.txt", "the last")
        hit = archive.getinfo("hit.html").header_offset
        locked = archive.getinfo("good.html")
    data = bytearray(path.read_bytes())
    data[hit + 60 : hit + 80] = bytes(20)
    path.write_bytes(data)
    before = sorted(tmp_path.rglob("*.html"))
    drafts = read(path, tmp_path)
    assert sorted(tmp_path.rglob("*.html")) == before
    assert {draft.source: draft.reason for draft in drafts} == {
        "pages.zip/good.html": "",
        "pages.zip/../up.html": "zip-unsafe-name",
        "pages.zip//absolute.html": "zip-unsafe-name",
        "pages.zip/a\\..\\b.html": "zip-unsafe-name",
        "pages.zip/hit.html": "damaged",
        "pages.zip/link.html": "zip-link",
        "pages.zip/device.html": "zip-device",
        "pages.zip/large.html": "too-large",
        "pages.zip/nested.zip": "not-html",
        "pages.zip/last.txt": "",
    }
    assert next(d.detail for d in drafts if d.reason == "damaged").startswith(f"byte {hit:,}: ")
    assert locked.flag_bits & 1 == 0
    start = data.rindex(b"PK\x01\x02", 0, data.index(b"good.html", hit))
    data[start + 8] |= 1  # "encrypted", in the directory
    path.write_bytes(data)
    (tmp_path / "work" / "00000.json").unlink()
    (tmp_path / "work" / "00000-00000.parquet").unlink()
    assert read(path, tmp_path)[0].reason == "zip-encrypted"


def test_members_that_lie_over_each_other_are_a_bomb(tmp_path: Path) -> None:
    path = tmp_path / "pages.zip"
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("0.txt", b"a" * LIMIT)
        archive.filelist += [archive.getinfo("0.txt")] * 199
    try:
        drafts = read(path, tmp_path)
    except DataError as error:  # some Pythons see by themselves that members overlap
        assert "records are damaged" in error.message
    else:
        assert drafts[-1].reason == "damaged" and "200-fold" in drafts[-1].detail
        assert len(drafts) == 69  # of 1 MB, until there are 64 MiB


@pytest.mark.slow
@pytest.mark.parametrize("name", ["a.jsonl", "a.txt", "a.html", "a.warc"])
def test_a_line_of_a_gigabyte_takes_no_gigabyte(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    begin, end = {
        "a.jsonl": (b'{"text": "one"}\n{"text": "', b'"}\n{"text": "two"}\n'),
        "a.txt": (b"words " * 20_000, b"words"),
        "a.html": (b"<html><p>", b"</p>"),
        "a.warc": (
            record("http://a/1", b"one") + record("http://a/2", b"").replace(
                b"Content-Length: ", b"Content-Length: 1073741868\r\nX: "
            )[:-4],
            b"\r\n\r\n" + record("http://a/3", b"two"),
        ),
    }[name]  # fmt: skip
    with path.open("wb") as file:
        file.write(begin)
        file.seek(1 << 30, os.SEEK_CUR)  # a hole, which takes no disk
        file.write(end)
    script = (
        "import sys; from pathlib import Path\n"
        "from test_read_sources import CorpusConfig, read\n"
        "drafts = read(Path(sys.argv[1]), Path(sys.argv[2]), CorpusConfig())\n"
        "print([d.reason for d in drafts])\n"
        "print(Path('/proc/self/status').read_text().split('VmHWM:')[1].split()[0])"
    )
    command = [sys.executable, "-c", script, str(path), str(tmp_path)]
    here = str(Path(__file__).parent)
    done = subprocess.run(
        command, capture_output=True, text=True, check=True, env={**os.environ, "PYTHONPATH": here}
    )
    reasons_found, kilobytes = done.stdout.splitlines()
    expected = ["", "too-large", ""] if name in ("a.jsonl", "a.warc") else ["too-large"]
    assert reasons_found == str(expected)
    assert int(kilobytes) < 400_000
