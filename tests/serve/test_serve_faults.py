"""Faults 23 and 30 to 33: what clients send, who they are, how they leave; the model's files."""

import json
import socket
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
import torch
from small_server import MERGES, NAME, Server, serving, small_model, until

from gptwo.language_model import load
from gptwo.model.weights import WEIGHTS, save_checkpoint_model
from gptwo.serve.config import ServeConfig
from gptwo.serve.guard import host_allowed, same_origin
from gptwo.tokens.tokenizer import Tokenizer

COMPLETION = {"model": NAME, "prompt": "the", "max_tokens": 3}
LONG = {**COMPLETION, "max_tokens": 200, "temperature": 1.0, "seed": 1, "logit_bias": {"261": -100}}


def raw(server: Server, data: bytes) -> bytes:
    """What comes back for bytes that need be no HTTP, until the server closes."""
    with socket.create_connection(("127.0.0.1", server.port), timeout=60) as connection:
        connection.sendall(data)
        return received(connection)


def received(connection: socket.socket) -> bytes:
    """All that comes until the other side closes, or breaks off."""
    found = b""
    with suppress(ConnectionResetError):
        while part := connection.recv(65536):
            found += part
    return found


def head(body: bytes, length: int | None = None) -> bytes:
    size = len(body) if length is None else length
    return (
        f"POST /v1/completions HTTP/1.1\r\nhost: localhost\r\ncontent-length: {size}\r\n"
        "content-type: application/json\r\nconnection: close\r\n\r\n"
    ).encode()


# Row 23


def test_the_end_of_text_in_a_prompt_is_text(server: Server) -> None:
    text = "a<|endoftext|>b"
    choice = server.choice(text, echo=True, logprobs=0, max_tokens=0)
    assert choice["text"] == text and "<|endoftext|>" not in choice["logprobs"]["tokens"]
    assert len(choice["logprobs"]["tokens"]) > 10
    asked = server.choice([97, 261, 98], echo=True, logprobs=0, max_tokens=0)  # by its id it is one
    assert asked["logprobs"]["tokens"][1] == "<|endoftext|>"


# Row 31


@pytest.mark.parametrize(
    "change, param",
    [
        ({"temperature": -0.1}, "temperature"),
        ({"temperature": float("nan")}, "temperature"),
        ({"temperature": float("inf")}, "temperature"),
        ({"temperature": "1"}, "temperature"),
        ({"temperature": True}, "temperature"),
        ({"top_p": 0}, "top_p"),
        ({"top_p": float("nan")}, "top_p"),
        ({"top_k": -2}, "top_k"),
        ({"min_p": -0.5}, "min_p"),
        ({"repetition_penalty": 0}, "repetition_penalty"),
        ({"max_tokens": -1}, "max_tokens"),
        ({"max_tokens": 1.5}, "max_tokens"),
        ({"max_tokens": 0}, "max_tokens"),
        ({"max_tokens": 300}, "max_tokens"),
        ({"n": 0}, "n"),
        ({"n": 10**30}, "n"),
        ({"n": 4, "best_of": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"n": 127, "prompt": ["a", "b"]}, "prompt"),
        ({"logprobs": 21}, "logprobs"),
        ({"logit_bias": {"x": 1}}, "logit_bias"),
        ({"logit_bias": {"262": 1}}, "logit_bias"),
        ({"logit_bias": {"1": float("nan")}}, "logit_bias"),
        ({"stop": ["a"] * 17}, "stop"),
        ({"seed": 1 << 70}, "seed"),
        ({"suffix": "end"}, "suffix"),
        ({"presence_penalty": 0.5}, "presence_penalty"),
        ({"frequency_penalty": -0.5}, "frequency_penalty"),
        ({"stream_options": {"include_usage": True}}, "stream_options"),
        ({"topk": 3}, "topk"),
        ({"prompt": []}, "prompt"),
        ({"prompt": [[]]}, "prompt"),
        ({"prompt": [262]}, "prompt"),
        ({"prompt": [-1]}, "prompt"),
        ({"prompt": ["a", 1]}, "prompt"),
        ({"prompt": {"a": 1}}, "prompt"),
        ({"prompt": "x" * 257}, "prompt"),
    ],
    ids=lambda value: json.dumps(value)[:30] if isinstance(value, dict) else "",
)
def test_the_field_that_is_wrong_is_named(
    server: Server, change: dict[str, Any], param: str
) -> None:
    answer = server.call("POST", "/v1/completions", COMPLETION | change)
    assert answer.status == 400, answer.body
    assert answer.error["param"] == param and answer.error["type"] == "invalid_request_error"
    assert answer.error["message"]


def test_prompts_that_do_not_fit(server: Server) -> None:
    fits = server.complete("x" * 255, max_tokens=1)
    assert fits.status == 200 and fits.json["usage"]["total_tokens"] == 256
    for prompt, more in (("x" * 256, 1), ("x" * 200, 57)):
        answer = server.complete(prompt, max_tokens=more)
        assert answer.status == 400 and answer.error["code"] == "context_length_exceeded"
        assert "256 tokens" in answer.error["message"]
    assert server.complete("x" * 256, max_tokens=0, echo=True, logprobs=1).status == 200


@pytest.mark.parametrize(
    "body",
    [b"", b"{", b"[]", b"1", b"\xff\xfe", b'{"a": NaN', b"[" * 100_000, b'{"a":' * 50_000,
     b'{"model": "small", "prompt": "\\ud800"}', b'{"model": "small", "n": ' + b"9" * 5000 + b"}"],
)  # fmt: skip
def test_a_body_that_is_no_json(server: Server, body: bytes) -> None:
    answer = server.call("POST", "/v1/completions", body, {"content-type": "application/json"})
    assert answer.status == 400 and answer.error["message"]


def test_what_is_not_here(server: Server) -> None:
    for path in ("/v1/completions", "/v1/score", "/tokenize", "/detokenize"):
        asked = {"model": "gpt5", "prompt": "a", "candidates": ["b"], "tokens": [1]}
        known = {"/v1/completions": ("prompt",), "/v1/score": ("prompt", "candidates"),
                 "/tokenize": ("prompt",), "/detokenize": ("tokens",)}[path]  # fmt: skip
        answer = server.call("POST", path, {k: asked[k] for k in ("model", *known)})
        assert (answer.status, answer.error["code"]) == (404, "model_not_found")
        assert answer.error["param"] == "model" and NAME in answer.error["message"]
    assert server.call("GET", "/v1/models/gpt5").error["code"] == "model_not_found"
    assert server.call("POST", "/v1/chat/completions", {}).status == 404
    assert server.call("GET", "/v1/completions").status == 405
    answer = server.call("POST", "/tokenize", b"{}", {"content-type": "text/plain"})
    assert answer.status == 415


def test_a_model_of_no_numbers_is_told_and_others_go_on(tmp_path: Path) -> None:
    model = small_model()
    with serving(tmp_path, model) as server:
        served = server.app.served
        with torch.no_grad():
            served.model.ln_f.bias[3] = float("nan")
        answer = server.complete("the")
        assert answer.status == 500 and "not finite" in answer.error["message"]
        events = server.complete("the", stream=True).events()
        assert "not finite" in events[-1]["error"]["message"]
        with torch.no_grad():
            served.model.ln_f.bias[3] = 0.0
        assert server.complete("the").status == 200 and server.running() == 0


# Row 30


def test_too_much_is_refused(tmp_path: Path) -> None:
    limits = {"rows": 2, "queue": 3, "texts": 4, "body_bytes": 2000}
    with serving(tmp_path, **limits) as server:
        large = COMPLETION | {"prompt": "x" * 3000}
        assert server.call("POST", "/v1/completions", large).status == 413
        chunks = b"".join(b"3e8\r\n" + b" " * 1000 + b"\r\n" for _ in range(4)) + b"0\r\n\r\n"
        chunked = head(b"").replace(b"content-length: 0", b"transfer-encoding: chunked") + chunks
        assert raw(server, chunked).startswith(b"HTTP/1.1 413")
        answer = server.complete("the", n=5)
        assert answer.status == 400 and answer.error["param"] == "n"
        assert (
            server.call(
                "POST", "/v1/score", {"model": NAME, "prompt": "a", "candidates": ["b"] * 5}
            ).error["param"]
            == "candidates"
        )
        connections = [server.connect() for _ in range(3)]
        for connection in connections[:2]:
            body = json.dumps(LONG | {"stream": True, "n": 2})
            connection.request(
                "POST", "/v1/completions", body, {"content-type": "application/json"}
            )
            assert connection.getresponse().readline()
        answer = server.complete("the", n=2)
        assert answer.status == 503 and answer.error["code"] == "overloaded"
        assert answer.headers["retry-after"] == "1"
        assert server.complete("the", max_tokens=1).status == 200  # one more may wait
        for connection in connections:
            connection.close()
        until(lambda: server.app.answering == 0)


def test_a_client_that_leaves_ends_its_texts(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        for streamed in (True, False):
            connection = server.connect()
            body = json.dumps(LONG | {"stream": streamed, "n": 20})
            connection.request(
                "POST", "/v1/completions", body, {"content-type": "application/json"}
            )
            until(lambda: server.running() > 8)
            assert connection.sock is not None
            connection.sock.close()
            connection.close()
            until(lambda: server.running() == 0 and server.app.answering == 0)
        assert server.app.served.worker.texts == 0


def test_slow_clients_are_not_waited_for(tmp_path: Path) -> None:
    with serving(tmp_path, client_seconds=0.3, connections=6) as server:
        answer = raw(server, head(b"", 100) + b'{"model"')  # a body that does not come
        assert answer.startswith(b"HTTP/1.1 408") and b'"request_timeout"' in answer
        assert raw(server, b"POST /v1/comp") == b""  # a head that does not come
        assert raw(server, b"") == b""  # nothing at all
        idle = [socket.create_connection(("127.0.0.1", server.port)) for _ in range(6)]
        time.sleep(0.05)
        full = raw(server, b"GET /health HTTP/1.1\r\nhost: localhost\r\n\r\n")
        assert full.startswith(b"HTTP/1.1 503") and b'"overloaded"' in full
        for connection in idle:
            assert received(connection) == b""  # closed by the server
            connection.close()
        until(lambda: server.call("GET", "/health").status == 200)


def test_a_client_that_does_not_read_its_answer(tmp_path: Path) -> None:
    with serving(tmp_path, client_seconds=0.5) as server:
        connection = socket.socket()
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 2048)
        connection.connect(("127.0.0.1", server.port))
        body = json.dumps(LONG | {"stream": True, "n": 128, "logprobs": 20, "echo": True}).encode()
        connection.sendall(head(body) + body)
        until(lambda: server.app.answering == 1)
        until(lambda: server.app.answering == 0 and server.running() == 0)
        connection.close()


def test_an_answer_has_its_time(tmp_path: Path) -> None:
    with serving(tmp_path, request_seconds=0.05) as server:
        answer = server.complete("the", n=60, max_tokens=250, logit_bias={"261": -100})
        assert answer.status == 503 and answer.error["code"] == "timeout"
        asked = {"n": 60, "max_tokens": 250, "logit_bias": {"261": -100}, "stream": True}
        events = server.complete("the", **asked).events()
        assert events[-1]["error"]["code"] == "timeout"
        until(lambda: server.running() == 0)


# Row 32


def test_a_key(tmp_path: Path) -> None:
    with serving(tmp_path, key="secret") as server:
        assert server.call("GET", "/health").status == 200
        for given in (None, "Bearer wrong", "Basic secret", "secret", "Bearer", "Bearer sécret"):
            answer = server.call(
                "GET", "/v1/models", None, {"authorization": given} if given else {}
            )
            assert (answer.status, answer.error["code"]) == (401, "invalid_api_key")
        assert server.call("POST", "/v1/completions", COMPLETION).status == 401
        key = {"authorization": "Bearer secret"}
        assert server.call("POST", "/v1/completions", COMPLETION, key).status == 200


def test_other_hosts_and_origins(tmp_path: Path) -> None:
    allowed = {"hosts": ("box.lan",), "origins": ("https://play.example",)}
    with serving(tmp_path, **allowed) as server:

        def status(**headers: str) -> int:
            return server.call("POST", "/v1/completions", COMPLETION, headers).status

        port = server.port
        assert status(host="localhost") == status(host=f"127.0.0.1:{port}") == 200
        assert status(host="box.lan") == status(host="[::1]:1") == 200
        assert status(host="evil.example") == status(host="localhost.evil.example") == 403
        assert status(host="localhost", origin="http://localhost") == 200  # a page of ours
        assert status(origin="https://evil.example") == status(origin="null") == 403
        assert status(origin="http://localhost:1") == 403
        answer = server.call(
            "POST", "/v1/completions", COMPLETION, {"origin": "https://play.example"}
        )
        assert answer.status == 200
        assert answer.headers["access-control-allow-origin"] == "https://play.example"
        ask = {"origin": "https://play.example", "access-control-request-method": "POST"}
        assert server.call("OPTIONS", "/v1/completions", None, ask).status == 200
        ask["origin"] = "https://evil.example"
        assert server.call("OPTIONS", "/v1/completions", None, ask).status == 400


def test_names_of_hosts() -> None:
    local, other = ServeConfig(), ServeConfig(host="0.0.0.0")
    named = ServeConfig(host="0.0.0.0", hosts=("box.lan",))
    for host in ("localhost", "LOCALHOST:80", "127.0.0.1:8000", "[::1]", "[::1]:8000"):
        assert host_allowed(host, local) and host_allowed(host, named)
    for host in (
        "",
        "evil.example",
        "evil.example:8000",
        "localhost:80:80",
        "127.0.0.1.evil.example",
    ):
        assert not host_allowed(host, local) and not host_allowed(host, named)
    assert host_allowed("anything.example", other) and host_allowed("box.lan:1", named)
    assert same_origin("http://a:1", "A:1") and not same_origin("http://a:1", "a:2")
    assert not same_origin("http://[", "[") and not same_origin("null", "")


# Row 33


def test_a_model_that_is_replaced_or_deleted(tmp_path: Path) -> None:
    folder = tmp_path / "model"
    folder.mkdir()
    tokenizer = Tokenizer(MERGES)
    save_checkpoint_model(small_model(padding=0), folder)
    tokenizer.save(folder)
    with serving(folder, load(folder).model) as server:
        before = server.choice("the thing", max_tokens=20)
        assert server.call("GET", "/health").json["files"] == "unchanged"
        size = (folder / WEIGHTS).stat().st_size
        (folder / WEIGHTS).write_bytes(bytes(size))  # over the very pages that may be mapped
        assert server.call("GET", "/health").json["files"] == "changed"
        assert server.choice("the thing", max_tokens=20) == before
        (folder / WEIGHTS).write_bytes(b"")
        assert server.choice("the thing in", max_tokens=20)["text"]
        for path in folder.iterdir():
            path.unlink()
        health = server.call("GET", "/health")
        assert health.status == 200 and health.json["files"] == "missing"
        assert server.choice("the thing", max_tokens=20) == before


# How it stops


def test_while_it_stops_running_requests_are_answered(tmp_path: Path) -> None:
    with serving(tmp_path) as server:
        found: list[Any] = []
        asked = {**LONG, "n": 8}
        thread = threading.Thread(
            target=lambda: found.append(server.call("POST", "/v1/completions", asked))
        )
        thread.start()
        until(lambda: server.running() > 0)
        server.app.served.stopping = True
        answer = server.call("POST", "/v1/completions", COMPLETION)
        assert (answer.status, answer.error["code"]) == (503, "stopping")
        health = server.call("GET", "/health")
        assert health.status == 503 and health.json["status"] == "stopping"
        thread.join()
        assert found[0].status == 200 and len(found[0].json["choices"]) == 8
