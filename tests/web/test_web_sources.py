"""Released models from a hub on loopback that misbehaves on request."""

import hashlib
import json
import os
import resource
import signal
import socket
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from functools import partial
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

import gptwo
from gptwo import language_model
from gptwo.artifacts import verify
from gptwo.cli import main
from gptwo.errors import (
    GptwoError,
    Interrupted,
    ModelError,
    NetworkError,
    ResourceError,
    UsageError,
)
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import hf_config, save_checkpoint_model
from gptwo.progress import SILENT, Reporter
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.web import download, sources
from gptwo.web.download import Patience, Pin
from gptwo.web.sources import Released, cache_folder, fetch_released, released

REVISION = "0123456789abcdef0123456789abcdef01234567"
QUICK = Patience(connect_seconds=10, stall_seconds=10, tries=3, pause_seconds=0.01)
WEIGHTS = "model.safetensors"
Answer = Callable[[BaseHTTPRequestHandler, bytes], None]


@dataclass
class Hub:
    """The files of one repository; `faults[name]` are odd answers, one for each next request."""

    files: dict[str, bytes]
    faults: dict[str, list[Answer]] = field(default_factory=dict)
    asked: list[tuple[str, str]] = field(default_factory=list)  # file, Range
    address: str = ""

    def answer(self, handler: BaseHTTPRequestHandler) -> None:
        name = handler.path.rsplit("/", 1)[1]
        self.asked.append((name, handler.headers.get("Range", "")))
        if f"/resolve/{REVISION}/" not in handler.path or name not in self.files:
            handler.send_error(404)
        elif self.faults.get(name):
            self.faults[name].pop(0)(handler, self.files[name])
        else:
            whole(handler, self.files[name])

    @property
    def model(self) -> Released:
        """What the hub serves, pinned as it is now."""
        pins = {n: Pin(hashlib.sha256(d).hexdigest(), len(d)) for n, d in self.files.items()}
        return Released("tiny", "openai-community/tiny", REVISION, pins)


def send(handler: BaseHTTPRequestHandler, status: int, body: bytes, **headers: str) -> None:
    handler.send_response(status)
    for name, value in ({"Content_Length": str(len(body))} | headers).items():
        if value:
            handler.send_header(name.replace("_", "-"), value)
    handler.end_headers()
    handler.wfile.write(body)


def whole(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """As the hub answers: the file, or the part that was asked for."""
    asked = handler.headers.get("Range", "")
    start = int(asked[6:-1]) if asked else 0
    if start and start >= len(data):
        send(handler, 416, b"", Content_Range=f"bytes */{len(data)}")
    elif start:
        place = f"bytes {start}-{len(data) - 1}/{len(data)}"
        send(handler, 206, data[start:], Content_Range=place)
    else:
        send(handler, 200, data)


def cut(at: int) -> Answer:
    """The connection ends after `at` bytes of what was announced."""

    def answer(handler: BaseHTTPRequestHandler, data: bytes) -> None:
        asked = handler.headers.get("Range", "")
        start = int(asked[6:-1]) if asked else 0
        place = f"bytes {start}-{len(data) - 1}/{len(data)}" if start else ""
        rest = data[start:]
        size = str(len(rest))
        send(handler, 206 if start else 200, rest[:at], Content_Length=size, Content_Range=place)
        handler.close_connection = True

    return answer


def says(status: int, body: bytes = b"", **headers: str) -> Answer:
    return lambda handler, data: send(handler, status, body, **headers)


def stall(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    """Half of it, then nothing until the client has gone."""
    handler.send_response(200)
    handler.send_header("Content-Length", str(len(data)))
    handler.end_headers()
    handler.wfile.write(data[: len(data) // 2])
    handler.wfile.flush()
    handler.connection.settimeout(20)
    handler.connection.recv(1)
    handler.close_connection = True


def changed(data: bytes) -> bytes:
    return data[:-1] + bytes([data[-1] ^ 1])


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """A model as the hub lays it out: vocab.json and merges.txt, no manifest."""
    folder = tmp_path_factory.mktemp("model")
    torch.manual_seed(3)
    merges = [(b"t", b"h"), (b"th", b"e")]
    shape = GPT2Config(vocab_size=256 + 2 + 1, n_ctx=32, n_layer=2, n_head=2, n_embd=32)
    save_checkpoint_model(GPT2(shape), folder)
    Tokenizer(merges).save(folder)
    names = {
        "config.json": "config.json",
        "vocab.json": "encoder.json",
        "merges.txt": "vocab.bpe",
        WEIGHTS: WEIGHTS,
    }
    return {name: (folder / saved).read_bytes() for name, saved in names.items()}


@pytest.fixture
def hub(files: dict[str, bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    made = Hub(dict(files))

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def do_GET(self) -> None:
            made.answer(self)

        def log_message(self, format: str, *args: Any) -> None:
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.handle_error = lambda request, client_address: None  # a client that hangs up
    thread = threading.Thread(target=server.serve_forever, args=(0.02,), daemon=True)
    thread.start()
    made.address = f"http://127.0.0.1:{server.server_address[1]}"
    for name in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    monkeypatch.setenv("HF_ENDPOINT", made.address + "/")
    monkeypatch.setenv("GPTWO_CACHE", str(tmp_path / "cache"))
    yield made
    server.shutdown()
    server.server_close()
    thread.join(5)


def fetch(hub: Hub, patience: Patience = QUICK, reporter: Reporter = SILENT) -> Path:
    return fetch_released(hub.model, reporter, patience)


def part(hub: Hub, name: str = WEIGHTS) -> Path:
    return cache_folder(hub.model) / ".work" / f"{name}.part"


def is_whole(folder: Path, hub: Hub) -> bool:
    found = {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}
    assert found.pop("manifest.json")
    return found == hub.files and not (folder / ".work").exists()


# What is pinned


def test_the_pins_are_the_four_released_models() -> None:
    known = released()
    assert list(known) == ["gpt2", "gpt2-medium", "gpt2-large", "gpt2-xl"]
    for model in known.values():
        assert model.repository == f"openai-community/{model.name}"
        assert list(model.files) == ["config.json", "vocab.json", "merges.txt", WEIGHTS]
        for value in (model.revision, *(pin.sha256 for pin in model.files.values())):
            assert set(value) <= set("0123456789abcdef") and len(value) in (40, 64)
    assert len({model.files[WEIGHTS].sha256 for model in known.values()}) == 4
    assert len({model.revision for model in known.values()}) == 4


@pytest.mark.parametrize(
    "name, layers, width, heads, more",
    [
        ("gpt2", 12, 768, 12, {}),
        ("gpt2-medium", 24, 1024, 16, {"n_special": 0, "predict_special_tokens": True}),
        ("gpt2-large", 36, 1280, 20, {}),
        ("gpt2-xl", 48, 1600, 25, {"output_past": True}),
    ],
)
def test_the_pinned_configs_have_the_shapes_of_the_paper(
    name: str, layers: int, width: int, heads: int, more: dict[str, Any]
) -> None:
    """A config written down here from the paper's table has the very hash that is pinned."""
    ours = hf_config(GPT2Config(n_layer=layers, n_embd=width, n_head=heads, dropout=0.1))
    for key in ("tie_word_embeddings", "torch_dtype", "n_inner"):
        ours.pop(key)
    summary = {
        "summary_activation": None,
        "summary_first_dropout": 0.1,
        "summary_proj_to_labels": True,
        "summary_type": "cls_index",
        "summary_use_proj": True,
        "task_specific_params": {"text-generation": {"do_sample": True, "max_length": 50}},
    }
    text = json.dumps(ours | summary | more, indent=2, sort_keys=True).encode()
    pin = released()[name].files["config.json"]
    assert (hashlib.sha256(text).hexdigest(), len(text)) == (pin.sha256, pin.bytes)


def test_the_pinned_vocabulary_is_gpt2s(data_dir: Path) -> None:
    for model in released().values():
        for pinned, name in (("vocab.json", "encoder.json"), ("merges.txt", "vocab.bpe")):
            data = (data_dir / "bpe" / name).read_bytes()
            pin = model.files[pinned]
            assert (hashlib.sha256(data).hexdigest(), len(data)) == (pin.sha256, pin.bytes)


# Good downloads


def test_a_download_is_whole_and_then_needs_no_network(
    hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = fetch(hub)
    assert folder == Path(os.environ["GPTWO_CACHE"]) / "tiny" / REVISION
    assert is_whole(folder, hub) and verify(folder)["files"] == 4
    assert hub.asked == [(name, "") for name in hub.files]
    monkeypatch.setattr(sources, "client", lambda patience: pytest.fail("a request"))
    folder.chmod(0o555)  # a cache that others made and we may only read
    assert fetch(hub) == folder and len(hub.asked) == 4
    folder.chmod(0o755)


def test_a_released_name_loads(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(language_model, "released", lambda: {"tiny": hub.model})
    loaded = gptwo.load("tiny")
    assert loaded.path == cache_folder(hub.model) and loaded.description["name"] == "tiny"
    assert loaded.tokenizer.decode(loaded.tokenizer.encode("the hat")) == "the hat"
    assert loaded.description["weights_sha256"] == hub.model.files[WEIGHTS].sha256
    assert loaded.generate("the", max_tokens=3, temperature=0)
    assert language_model.find_model(Path("tiny")) == loaded.path
    (tmp_path / "tiny").mkdir()  # what lies here comes first
    assert language_model.find_model("tiny") == Path("tiny")
    with pytest.raises(ModelError, match="gpt2-huge does not exist") as error:
        gptwo.load("gpt2-huge")
    assert "or one of tiny" in error.value.remedy


def test_progress_is_told_in_bytes(hub: Hub, capsys: pytest.CaptureFixture[str]) -> None:
    hub.faults["merges.txt"] = [says(503)]
    fetch(hub, reporter=Reporter())
    told = capsys.readouterr().err
    size = len(hub.files[WEIGHTS])
    assert f"download {WEIGHTS}: {size:,}/{size:,} bytes" in told
    assert "merges.txt: the server answered 503; asking again in 0.0s" in told
    assert f"tiny: downloading from {hub.address} into {cache_folder(hub.model)}" in told


def test_a_redirect_is_followed(hub: Hub) -> None:
    """The hub sends large files to other machines."""
    there = f"{hub.address}/elsewhere/resolve/{REVISION}/{WEIGHTS}"
    hub.faults[WEIGHTS] = [says(302, Location=there), whole]
    assert is_whole(fetch(hub), hub)
    assert [name for name, _ in hub.asked].count(WEIGHTS) == 2


def test_a_proxy_of_the_environment_is_used(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """The name of the hub means nothing here: only the proxy can have answered."""
    monkeypatch.setenv("HTTP_PROXY", hub.address)
    monkeypatch.setenv("HF_ENDPOINT", "http://hub.invalid")
    assert is_whole(fetch(hub), hub)
    monkeypatch.setenv("HTTP_PROXY", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setenv("GPTWO_CACHE", os.environ["GPTWO_CACHE"] + "-2")
    with pytest.raises(NetworkError, match=r"hub\.invalid.*ConnectError"):
        fetch(hub)


def test_the_command_says_that_there_is_no_network(
    hub: Hub,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    monkeypatch.setattr(Reporter, "listen", lambda self: None)
    quick = partial(fetch_released, patience=QUICK)
    monkeypatch.setattr(language_model, "fetch_released", quick)
    for command in ("sample", "eval", "verify"):
        assert main([command, "gpt2", "--quiet"]) == 7
        told = capsys.readouterr()
        assert told.out == "" and told.err.startswith("error: http://127.0.0.1")
        assert len(told.err.splitlines()) == 2 and "config.json" in told.err


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as listener:
        return listener.getsockname()[1]


# Downloads that go on


def test_a_cut_connection_goes_on_where_it_was(hub: Hub) -> None:
    hub.faults[WEIGHTS] = [cut(20_000), cut(5), cut(1), cut(9), cut(2), cut(3)]
    assert is_whole(fetch(hub), hub)  # more cuts than tries, but each brought something
    ranges = [asked for name, asked in hub.asked if name == WEIGHTS]
    assert ranges == ["", *(f"bytes={20_000 + n}-" for n in (0, 5, 6, 15, 17, 20))]


def test_a_stall_is_a_cut(hub: Hub) -> None:
    hub.faults[WEIGHTS] = [stall]
    assert is_whole(fetch(hub, replace(QUICK, stall_seconds=0.5)), hub)
    half = len(hub.files[WEIGHTS]) // 2
    assert hub.asked[-1] == (WEIGHTS, f"bytes={half}-")


def test_a_server_without_ranges_starts_again(hub: Hub) -> None:
    hub.faults[WEIGHTS] = [cut(20_000), lambda handler, data: send(handler, 200, data)]
    assert is_whole(fetch(hub), hub)


@pytest.mark.parametrize(
    "busy", [says(429, Retry_After="0"), says(503), says(500, b"oops", Retry_After="later"), cut(0)]
)
def test_a_busy_server_is_asked_again(busy: Answer, hub: Hub) -> None:
    hub.faults = {"config.json": [busy, busy], WEIGHTS: [busy]}
    assert is_whole(fetch(hub), hub)


def test_a_server_may_say_how_long_to_wait(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    waited: list[float] = []
    monkeypatch.setattr(download, "_pause", lambda seconds, reporter: waited.append(seconds))
    hub.faults["config.json"] = [says(503), says(429, Retry_After="7"), says(503)]
    hub.faults[WEIGHTS] = [says(429, Retry_After="9999")]
    fetch(hub, Patience(tries=5, pause_seconds=1))
    assert waited == [1, 7, 4, 30]


@pytest.mark.parametrize("fault", ["foreign", "too long", "whole", "other range"])
def test_what_lies_there_is_checked_before_it_is_continued(fault: str, hub: Hub) -> None:
    data = hub.files[WEIGHTS]
    before = {
        "foreign": b"x" * 1_000,
        "too long": data + b"more",
        "whole": data,
        "other range": data[:1_000],
    }
    hub.faults[WEIGHTS] = [says(500)] * 3
    with pytest.raises(NetworkError):
        fetch(hub)
    part(hub).write_bytes(before[fault])
    if fault == "other range":  # of another file, or not the one asked for
        place = f"bytes 0-{len(data) - 1}/{len(data)}"
        hub.faults[WEIGHTS] = [says(206, data, Content_Range=place)]
    hub.asked.clear()
    assert is_whole(fetch(hub), hub)
    assert [name for name, _ in hub.asked].count(WEIGHTS) == (0 if fault == "whole" else 2)


def test_a_size_that_is_not_pinned_is_the_servers(hub: Hub) -> None:
    pinned = hub.model
    files = pinned.files | {WEIGHTS: Pin(pinned.files[WEIGHTS].sha256)}
    model = Released("tiny", pinned.repository, REVISION, files)
    hub.faults[WEIGHTS] = [cut(20_000)]
    assert is_whole(fetch_released(model, SILENT, QUICK), hub)
    other = Released("other", pinned.repository, REVISION, files)
    hub.faults[WEIGHTS] = [chunked]
    with pytest.raises(ModelError, match=f"gave a file of unknown size, expected {WEIGHTS}"):
        fetch_released(other, SILENT, QUICK)


def chunked(handler: BaseHTTPRequestHandler, data: bytes) -> None:
    send(handler, 200, b"", Content_Length="", Transfer_Encoding="chunked")
    handler.wfile.write(b"%x\r\n%s\r\n0\r\n\r\n" % (len(data), data))


KILLED = """
import os, sys
from gptwo.progress import SILENT
from gptwo.web import download, sources
from gptwo.web.download import Patience, Pin
from gptwo.web.sources import Released, fetch_released
name, repository, revision, files = {model!r}
pins = {{name: Pin(*pin) for name, pin in files.items()}}
fetch_released(Released(name, repository, revision, pins), SILENT, Patience(stall_seconds=30))
"""


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGTERM])
def test_killed_in_the_middle_it_goes_on(number: signal.Signals, hub: Hub) -> None:
    """SIGKILL leaves its lock, which is taken over; the bytes that are there are not sent again."""
    model, half = hub.model, len(hub.files[WEIGHTS]) // 2
    pins = {name: (pin.sha256, pin.bytes) for name, pin in model.files.items()}
    code = KILLED.format(model=(model.name, model.repository, model.revision, pins))
    hub.faults[WEIGHTS] = [stall]
    process = subprocess.Popen([sys.executable, "-c", code], stderr=subprocess.DEVNULL)
    try:
        until = time.monotonic() + 60
        while not part(hub).exists() or part(hub).stat().st_size == 0:
            # the last buffer is on disk only when it is full: wait for the half that was sent
            assert process.poll() is None and time.monotonic() < until
            time.sleep(0.01)
        with pytest.raises(UsageError, match=f"in use by process {process.pid}"):
            fetch(hub)
    finally:
        process.send_signal(number)
        process.wait(30)
    size = part(hub).stat().st_size
    assert 0 < size <= half and not (cache_folder(model) / "manifest.json").exists()
    hub.asked.clear()
    assert is_whole(fetch(hub), hub)
    assert hub.asked == [(WEIGHTS, f"bytes={size}-")]


def test_a_stop_is_heard_while_it_downloads_and_waits(hub: Hub) -> None:
    reporter = Reporter(quiet=True)
    reporter.stop_requested = True
    with pytest.raises(Interrupted):
        fetch(hub, reporter=reporter)
    hub.faults["vocab.json"] = [says(503, Retry_After="30")]
    began = time.monotonic()
    waiting = SimpleNamespace(say=print, bar=SILENT.bar, check=lambda: None)
    waiting.check = lambda: reporter.check() if time.monotonic() > began + 0.3 else None
    with pytest.raises(Interrupted):
        fetch_released(hub.model, waiting, QUICK)  # pyright: ignore[reportArgumentType]
    assert time.monotonic() - began < 15
    assert is_whole(fetch(hub), hub)


# Downloads that fail


PAGE = b"\n<!DOCTYPE html><html><title>Sign in</title></html>"
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d\nsize 12345\n"


@pytest.mark.parametrize("name", ["config.json", "merges.txt", WEIGHTS])
@pytest.mark.parametrize(
    "body, words",
    [(PAGE, "gave a web page"), (POINTER, "gave a Git LFS pointer"), (b"", "0 bytes")],
)
def test_another_thing_in_a_files_place(body: bytes, words: str, name: str, hub: Hub) -> None:
    hub.faults[name] = [says(200, body)]
    with pytest.raises(ModelError, match=words) as error:
        fetch(hub)
    assert f"{name} gave" in error.value.message and error.value.exit_code == 4
    assert error.value.remedy and not (cache_folder(hub.model) / "manifest.json").exists()
    assert is_whole(fetch(hub), hub)


@pytest.mark.parametrize(
    "answer, error",
    [
        (says(200, PAGE), ModelError),
        (says(200, b"{}"), ModelError),
        (says(404, b"no"), NetworkError),
        (says(302), NetworkError),
        (says(503), NetworkError),
    ],
)
def test_what_is_here_survives_a_sign_in_page(
    answer: Answer, error: type[GptwoError], hub: Hub
) -> None:
    hub.faults[WEIGHTS] = [cut(20_000), *[answer] * 3]
    with pytest.raises(error):
        fetch(hub)
    hub.faults.clear()
    hub.asked.clear()
    assert is_whole(fetch(hub), hub) and hub.asked == [(WEIGHTS, "bytes=20000-")]


def test_a_web_page_of_unknown_size_is_known_too(hub: Hub) -> None:
    hub.files[WEIGHTS] += b" "
    hub.faults[WEIGHTS] = [lambda handler, data: chunked(handler, PAGE)]
    with pytest.raises(ModelError, match="gave a web page"):
        fetch(hub)


@pytest.mark.parametrize("name", ["vocab.json", WEIGHTS])
def test_a_wrong_hash_is_never_kept(name: str, hub: Hub) -> None:
    model, good = hub.model, hub.files[name]
    hub.files[name] = changed(good)
    with pytest.raises(ModelError, match=model.files[name].sha256) as error:
        fetch_released(model, SILENT, QUICK)
    assert hashlib.sha256(hub.files[name]).hexdigest() in error.value.message
    assert not part(hub, name).exists() and not (cache_folder(model) / name).exists()
    hub.files[name] = good
    assert is_whole(fetch(hub), hub)


@pytest.mark.parametrize("change", [-1, 1])
def test_a_wrong_size_is_seen_before_it_is_received(change: int, hub: Hub) -> None:
    model, size = hub.model, len(hub.files[WEIGHTS])
    hub.files[WEIGHTS] = (hub.files[WEIGHTS] + b"x")[: size + change]
    with pytest.raises(ModelError, match=f"gave {size + change:,} bytes, not {size:,}"):
        fetch_released(model, SILENT, QUICK)


def test_more_than_was_pinned_is_not_received(hub: Hub) -> None:
    size = len(hub.files[WEIGHTS])
    hub.faults[WEIGHTS] = [lambda handler, data: chunked(handler, data + b"more" * 100_000)]
    with pytest.raises(ModelError, match=f"gave more than {size:,} bytes"):
        fetch(hub)
    assert part(hub).stat().st_size <= size


def test_an_end_that_always_comes_too_early(hub: Hub) -> None:
    """Truncated at the same place each time: nothing new comes, so it ends."""
    hub.faults[WEIGHTS] = [cut(20_000), *[cut(0)] * 9]
    with pytest.raises(NetworkError, match="3 tries, 20,000 bytes are here") as error:
        fetch(hub)
    assert error.value.exit_code == 7 and "goes on from there" in error.value.remedy
    hub.faults.clear()
    assert is_whole(fetch(hub), hub) and hub.asked[-1] == (WEIGHTS, "bytes=20000-")


@pytest.mark.parametrize(
    "answer, words, requests",
    [
        (says(404, b"no"), "was answered with 404", 1),
        (says(403, PAGE), "was answered with 403", 1),
        (says(302), "was answered with 302", 1),
        (says(204), "was answered with 204", 1),
        (says(302, Location="ftp://a.example/"), "ftp", 1),
        (says(302, Location="http://[::1"), "Location|URL", 3),  # a broken answer may mend
    ],
)
def test_an_answer_without_the_file(answer: Answer, words: str, requests: int, hub: Hub) -> None:
    hub.faults[WEIGHTS] = [answer] * 5
    with pytest.raises(NetworkError, match=f"{WEIGHTS}.*({words})") as error:
        fetch(hub)
    assert error.value.remedy
    assert [name for name, _ in hub.asked].count(WEIGHTS) == requests


def test_a_redirect_loop_ends(hub: Hub) -> None:
    here = f"{hub.address}/openai-community/tiny/resolve/{REVISION}/{WEIGHTS}"
    hub.faults[WEIGHTS] = [says(302, Location=here)] * 50
    with pytest.raises(NetworkError, match="redirects"):
        fetch(hub)
    assert [name for name, _ in hub.asked].count(WEIGHTS) == 6


def test_no_network_is_said(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(NetworkError, match=r"ConnectError.*\(3 tries, 0 bytes are here\)") as error:
        fetch(hub)
    assert "HTTPS_PROXY" in error.value.remedy
    assert not cache_folder(hub.model).exists()  # nothing came, nothing is left
    monkeypatch.setenv("HF_ENDPOINT", "hub")
    with pytest.raises(NetworkError, match="protocol"):
        fetch(hub)


def test_a_full_disk(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (20_000, hard))
    try:
        with pytest.raises(ResourceError, match=f"cannot write .*{WEIGHTS}.part: File too large"):
            fetch(hub)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert part(hub).stat().st_size == 20_000
    usage = SimpleNamespace(free=10_000_000)
    with monkeypatch.context() as patch:
        patch.setattr(download.shutil, "disk_usage", lambda path: usage)
        with pytest.raises(ResourceError, match=r"needs 0 MB more, 10 MB are free") as error:
            fetch(hub)
    assert "GPTWO_CACHE" in error.value.remedy and error.value.exit_code == 5
    assert is_whole(fetch(hub), hub)


@pytest.mark.parametrize("fault", ["weights", "merges", "size", "missing", "manifest", "pins"])
def test_a_damaged_cache_is_refused_without_a_request(
    fault: str, hub: Hub, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(language_model, "released", lambda: {"tiny": hub.model})
    folder = fetch(hub)
    good = hub.files[WEIGHTS]
    if fault == "weights":
        (folder / WEIGHTS).write_bytes(changed(good))
    elif fault == "merges":
        data = (folder / "merges.txt").read_bytes()
        (folder / "merges.txt").write_bytes(data.replace(b"t h", b"t i"))
    elif fault == "size":
        (folder / "merges.txt").write_bytes(b"#version: 0.2\n")
    elif fault == "missing":
        (folder / "vocab.json").unlink()
    elif fault == "manifest":
        (folder / "manifest.json").write_text("{}")
    else:  # a manifest made anew for other weights is not the released model
        hub.files[WEIGHTS] = changed(good)
    hub.asked.clear()
    with pytest.raises(ModelError) as error:
        gptwo.load("tiny")
    assert str(folder) in error.value.message and hub.asked == []


def test_without_its_package_the_extra_is_named(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "httpx2", None)
    with pytest.raises(UsageError, match="needs the package httpx2") as error:
        fetch(hub)
    assert "gptwo[web]" in error.value.remedy
