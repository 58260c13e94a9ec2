"""`gptwo serve` as a process: what it says, what it refuses, how it ends."""

import json
import re
import signal
import socket
import threading
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from subprocess import Popen
from typing import Any

import pytest
from fault_runs import Caller, end, start
from small_server import MERGES, small_model, until

from gptwo.model.weights import save_checkpoint_model
from gptwo.tokens.tokenizer import Tokenizer


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    folder.mkdir()
    save_checkpoint_model(small_model(padding=0), folder)
    Tokenizer(MERGES).save(folder)
    return folder


@pytest.fixture
def served(model: Path) -> Iterator[tuple[Popen[str], str]]:
    process = start(["serve", str(model), "--port", "0"])
    assert process.stderr
    line = process.stderr.readline()
    found = re.match(r"(http://127\.0\.0\.1:\d+) serves tiny: [\d,]+ parameters, context 256", line)
    assert found and "without a key" in line, line
    yield process, found[1]
    if process.poll() is None:
        process.kill()
        end(process)


def complete(url: str, **more: Any) -> tuple[int, Any]:
    asked = {"model": "tiny", "prompt": "the", "max_tokens": 3, "logit_bias": {"261": -100}}
    request = urllib.request.Request(
        f"{url}/v1/completions",
        json.dumps(asked | more).encode(),
        {"content-type": "application/json"},
    )
    try:
        with urllib.request.urlopen(request) as answer:
            return answer.status, json.load(answer)
    except urllib.error.HTTPError as error:
        with error:
            return error.code, json.load(error)


@pytest.mark.slow
def test_a_signal_lets_running_requests_finish(served: tuple[Popen[str], str]) -> None:
    process, url = served
    found: list[Any] = []
    long = threading.Thread(
        target=lambda: found.append(complete(url, max_tokens=250, n=100, temperature=1.0))
    )
    long.start()
    running = b"gptwo_texts_running 24.0"
    until(lambda: running in urllib.request.urlopen(f"{url}/metrics").read())
    process.send_signal(signal.SIGTERM)
    until(lambda: complete(url)[0] == 503)
    long.join()
    status, answer = found[0]
    assert status == 200 and len(answer["choices"]) == 100
    assert all(choice["finish_reason"] == "length" for choice in answer["choices"])
    told = end(process)
    assert told.code == 0 and "every request was answered" in told.err
    assert re.search(r"POST /v1/completions 200 .* written=25000", told.err)
    assert "POST /v1/completions 503" in told.err


@pytest.mark.slow
def test_a_second_signal_ends_it_at_once(served: tuple[Popen[str], str]) -> None:
    process, url = served
    body = json.dumps({"model": "tiny", "prompt": "a", "max_tokens": 250, "n": 128}).encode()
    port = int(url.rpartition(":")[2])
    with socket.create_connection(("127.0.0.1", port)) as connection:
        connection.sendall(
            b"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\n"
            b"content-type: application/json\r\ncontent-length: %d\r\n\r\n" % len(body) + body
        )
        until(lambda: b"texts_running 24" in urllib.request.urlopen(f"{url}/metrics").read())
        process.send_signal(signal.SIGINT)
        assert process.stderr
        while "once more to exit at once" not in process.stderr.readline():
            pass
        process.send_signal(signal.SIGINT)
        assert end(process).code == 75


def test_what_it_does_not_serve(model: Path, tmp_path: Path, call: Caller) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        told = call("serve", str(model), "--port", port)
        told.is_error(2, f"cannot listen on 127.0.0.1 port {port}", "--port")
    call("serve", str(tmp_path / "none"), "--port", "0").is_error(4, "does not exist")
    call("serve", str(model), "--host", "0.0.0.0").is_error(2, "no API key", "GPTWO_API_KEY")
    call("serve", str(model), "--rows", "0").is_error(2, "rows must be at least 1")
    call("serve", str(model), "--port", "70000").is_error(2, "port must be between")
    call("serve", str(model), "--set", "row=3").is_error(2, "row")


def test_settings_are_told(model: Path, call: Caller) -> None:
    told = call("serve", str(model), "--rows", "3", "--set", "queue=7", "--dry-run")
    settings = json.loads(told.out)
    assert (settings["rows"], settings["queue"], settings["host"]) == (3, 7, "127.0.0.1")
