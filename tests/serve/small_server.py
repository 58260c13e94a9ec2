"""A server of a small model in this process, and the plainest of clients."""

import http.client
import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import torch

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.progress import Reporter
from gptwo.serve.app import App
from gptwo.serve.config import ServeConfig
from gptwo.serve.served import Served
from gptwo.serve.server import Running, listen
from gptwo.tokens.tokenizer import Tokenizer

NAME = "small"
MERGES = [(b" ", b"t"), (b"h", b"e"), (b" t", b"he"), (b"\xe6", b"\x97"), (b"i", b"n")]


class Answer(NamedTuple):
    """A status, the body as it came, and as JSON where it is."""

    status: int
    body: bytes
    headers: dict[str, str]

    @property
    def json(self) -> Any:
        return json.loads(self.body)

    @property
    def error(self) -> dict[str, Any]:
        return self.json["error"]

    def events(self) -> list[Any]:
        """The parts of a stream; the last event says that it is whole."""
        events = [line[6:] for line in self.body.decode().split("\n\n") if line]
        assert events.pop() == "[DONE]"
        return [json.loads(event) for event in events]


@dataclass
class Server:
    """A running server."""

    app: App
    port: int
    lines: list[str]

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self) -> http.client.HTTPConnection:
        return http.client.HTTPConnection("127.0.0.1", self.port, timeout=60)

    def call(
        self, method: str, path: str, body: Any = None, headers: dict[str, str] | None = None
    ) -> Answer:
        """`body` is sent as it is if it is bytes, else as JSON."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        connection = self.connect()
        kind = {"content-type": "application/json"}
        connection.request(method, path, data, (kind if data else {}) | (headers or {}))
        got = connection.getresponse()
        answer = Answer(got.status, got.read(), dict(got.getheaders()))
        connection.close()
        return answer

    def complete(self, prompt: Any, **more: Any) -> Answer:
        asked = {"model": NAME, "prompt": prompt, "temperature": 0} | more
        return self.call("POST", "/v1/completions", asked)

    def choice(self, prompt: Any, **more: Any) -> dict[str, Any]:
        answer = self.complete(prompt, **more)
        assert answer.status == 200, answer.body
        (choice,) = answer.json["choices"]
        return choice

    def running(self) -> int:
        """Texts that the model works on or that wait."""
        engine = self.app.served.worker.engine
        return len(engine.running) + len(engine.waiting)


def until(true: Callable[[], bool]) -> None:
    """Wait for something that must come."""
    deadline = time.monotonic() + 60
    while not true():
        assert time.monotonic() < deadline
        time.sleep(0.01)


class Lines(Reporter):
    """Keeps what it is told."""

    def __init__(self) -> None:
        super().__init__()
        self.lines: list[str] = []

    def say(self, text: str) -> None:
        self.lines.append(text)


def small_model(n_ctx: int = 256, padding: int = 6) -> GPT2:
    """Random weights with convictions; `padding` rows that no token has."""
    torch.manual_seed(0)
    size = Tokenizer(MERGES).vocab_size + padding
    model = GPT2(GPT2Config(vocab_size=size, n_ctx=n_ctx, n_layer=2, n_head=2, n_embd=32))
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.dim() > 1:
                parameter.mul_(8)
    return model.eval()


@contextmanager
def serving(
    folder: Path, model: GPT2 | None = None, key: str = "", **limits: Any
) -> Iterator[Server]:
    """A server until the block ends."""
    config = ServeConfig(**{"port": 0, "rows": 8, **limits})
    listener = listen(config, key)
    port = listener.getsockname()[1]
    served = Served(
        name=NAME,
        model=model or small_model(),
        tokenizer=Tokenizer(MERGES),
        folder=folder,
        weights_sha256="0" * 64,
        config=config,
        api_key=key,
    )
    reporter = Lines()
    app = App(served, reporter)
    running = Running(app, listener)
    try:
        yield Server(app, port, reporter.lines)
    finally:
        running.stop()
