"""Evaluation sets from a server on loopback: whole, resumed, refused, unpacked."""

import hashlib
import io
import json
import threading
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from importlib import import_module
from pathlib import Path
from typing import Any

import pytest
from test_web_sources import QUICK, REVISION, Hub, changed, cut, says

from gptwo.cli import main
from gptwo.errors import DataError, NetworkError, UsageError
from gptwo.progress import SILENT, Reporter
from gptwo.web import evaluation
from gptwo.web.download import Pin
from gptwo.web.evaluation import Member, Source, evaluation_sets, fetch_evaluation_sets
from gptwo.zeroshot.run import TASKS
from gptwo.zeroshot.sources import DataFile

TEXT = b'{"text": "a passage of words"}\n' * 2000


def zipped(name: str, content: bytes) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("readme", "other")
        archive.writestr(name, content)
    return out.getvalue()


@pytest.fixture
def hub() -> Iterator[Hub]:
    made = Hub({"set.jsonl": TEXT, "set.zip": zipped("in/set.raw", TEXT)})

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, client_address: None
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def source(hub: Hub, name: str = "set.jsonl", path: str = "eval/set/set.jsonl") -> Source:
    data = hub.files[name]
    member = Member(name="in/set.raw", sha256=_sha(TEXT), bytes=len(TEXT))
    return Source(
        path=path,
        tasks=("lambada",),
        url=f"{hub.address}/resolve/{REVISION}/{name}",
        pin=Pin(_sha(data), len(data)),
        licence="CC BY 4.0",
        member=member if name.endswith(".zip") else None,
    )


def _sha(data: bytes) -> str:
    return hashlib.sha256(data).hexdigest()


def fetch(data: Path, *sources: Source, reporter: Reporter = SILENT) -> list[Path]:
    return fetch_evaluation_sets(["lambada"], data, reporter, QUICK, sources)


def in_folder(data: Path) -> list[str]:
    return sorted(str(p.relative_to(data)) for p in data.rglob("*") if p.is_file())


def test_a_set_arrives_once_and_its_licence_is_told(
    hub: Hub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (path,) = fetch(tmp_path, source(hub), reporter=Reporter())
    assert path == tmp_path / "eval/set/set.jsonl" and path.read_bytes() == TEXT
    assert in_folder(tmp_path) == ["eval/set/set.jsonl"]
    assert "licence: CC BY 4.0" in capsys.readouterr().err
    assert fetch(tmp_path, source(hub)) == [] and len(hub.asked) == 1
    other = replace(source(hub, path="eval/other.jsonl"), tasks=("nq",))
    assert fetch(tmp_path, other) == []  # no task asks for it


def test_what_was_received_before_a_stop_is_kept(hub: Hub, tmp_path: Path) -> None:
    hub.faults["set.jsonl"] = [cut(20_000), says(503), says(503), says(503)]
    with pytest.raises(NetworkError, match="20,000 bytes are here"):
        fetch(tmp_path, source(hub))
    assert in_folder(tmp_path) == ["eval/set/set.jsonl.part"]
    (path,) = fetch(tmp_path, source(hub))
    assert path.read_bytes() == TEXT and hub.asked[-1] == ("set.jsonl", "bytes=20000-")
    assert in_folder(tmp_path) == ["eval/set/set.jsonl"]


@pytest.mark.parametrize(
    "what, words",
    [
        (changed(TEXT), "with SHA-256"),
        (b"<!DOCTYPE html>" + TEXT[15:], "a web page"),
        (b"version https://git-lfs.github.com/spec/v1\n" + TEXT[43:], "a Git LFS pointer"),
        (TEXT + b"x", "not"),
    ],
)
def test_another_file_is_refused(hub: Hub, tmp_path: Path, what: bytes, words: str) -> None:
    wanted = source(hub)
    hub.files["set.jsonl"] = what
    with pytest.raises(DataError, match=words) as error:
        fetch(tmp_path, wanted)
    assert "yourself" in error.value.remedy and error.value.exit_code == 3
    assert in_folder(tmp_path) == []


def test_one_file_of_an_archive_is_taken(hub: Hub, tmp_path: Path) -> None:
    wanted = source(hub, "set.zip", "eval/set/set.raw")
    (path,) = fetch(tmp_path, wanted)
    assert path.read_bytes() == TEXT and in_folder(tmp_path) == ["eval/set/set.raw"]
    for content in (TEXT[:-1], TEXT + b"more", changed(TEXT)):
        hub.files["set.zip"] = zipped("in/set.raw", content)
        other = replace(source(hub, "set.zip", "eval/set/other.raw"))
        with pytest.raises(DataError, match="not the published file of"):
            fetch(tmp_path, other)
        assert not (tmp_path / other.path).exists()
        (tmp_path / "eval/set/set.zip").unlink()
    hub.files["set.zip"] = zipped("in/something", TEXT)
    with pytest.raises(DataError, match=r"in/set\.raw in .* cannot be taken"):
        fetch(tmp_path, source(hub, "set.zip", "eval/set/other.raw"))


def test_a_folder_is_needed() -> None:
    with pytest.raises(UsageError, match="no folder to download into"):
        fetch_evaluation_sets(["lambada"], None, SILENT)


def test_the_pins_are_those_that_the_tasks_demand() -> None:
    """What is downloaded is what evaluation accepts, under the very path where it looks."""
    demanded: dict[str, set[str]] = {}
    for module in ("lambada", "wikitext2", "ptb", "enwik8", "text8", "wsc273", "nq",
                   "one_billion_words"):  # fmt: skip
        file = import_module(f"gptwo.zeroshot.tasks.{module}").FILE
        demanded.setdefault(file.path, set()).add(file.sha256)
    from gptwo.zeroshot import translation
    from gptwo.zeroshot.tasks.cbt import archived

    for file in (translation.ENGLISH, translation.FRENCH, archived("CN")):
        assert isinstance(file, DataFile)
        demanded.setdefault(file.path, set()).add(file.sha256)
    known = evaluation_sets()
    for found in known:
        assert demanded[found.path] == {found.sha256}, found.path
        assert set(found.tasks) <= set(TASKS) and found.licence
        assert found.url.startswith(("https://", "http://mattmahoney.net/", "http://parl.ai/",
                                     "http://www.statmt.org/"))  # fmt: skip
    assert len({found.path for found in known}) == len(known) == 10


def test_what_may_not_be_passed_on_has_no_source() -> None:
    assert not any("ptb" in found.tasks or "ptb" in found.url for found in evaluation_sets())


def test_the_command_downloads_before_it_evaluates(
    hub: Hub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(Reporter, "listen", lambda self: None)
    monkeypatch.setattr(evaluation, "evaluation_sets", lambda: [source(hub)])
    monkeypatch.delenv("GPTWO_DATA", raising=False)
    words = ["eval", str(tmp_path / "none"), "lambada", "--download", "--json", "--quiet"]
    assert main(words) == 2 and "no folder" in json.loads(capsys.readouterr().out)["error"]
    assert main([*words, "--data", str(tmp_path / "data")]) == 4  # there is no such model
    assert (tmp_path / "data/eval/set/set.jsonl").read_bytes() == TEXT
