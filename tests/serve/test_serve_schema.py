"""Requests made from the server's own schema, and by hostile clients, many of them: no 5xx."""

import gc
import json
import random
import socket
import threading
from collections import Counter
from contextlib import suppress
from pathlib import Path
from typing import Any

import psutil
import pytest
import schemathesis
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from schemathesis import GenerationMode
from schemathesis.specs.openapi.checks import positive_data_acceptance
from small_server import NAME, Server, serving, until
from test_serve_faults import head

PATHS = {
    "/v1/completions", "/v1/score", "/v1/models", "/v1/models/{id}", "/tokenizer_info",
    "/tokenize", "/detokenize", "/health", "/metrics",
}  # fmt: skip
EACH = settings(
    max_examples=30,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)


def test_every_path_is_described(server: Server) -> None:
    schema = server.call("GET", "/openapi.json").json
    served = {route.path for route in server.app.asgi().routes}  # type: ignore[attr-defined]
    assert set(schema["paths"]) == PATHS == served - {"/openapi.json"}


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")  # schemathesis' own
def test_requests_made_from_the_schema(server: Server) -> None:
    """Good and bad ones: every answer is one that the schema describes, what the schema forbids is
    refused, and nothing is a 5xx. (What it allows may be refused too: fields that contradict each
    other, more tokens than the context has.)"""
    schema = schemathesis.openapi.from_url(f"{server.url}/openapi.json")
    asked: Counter[tuple[str, int]] = Counter()
    for operation in schema.get_all_operations():
        ask(operation.ok(), asked)
    assert {path for path, _ in asked} == PATHS
    assert all(status < 500 for _, status in asked)
    assert asked["/v1/completions", 400]
    until(lambda: server.app.answering == 0)
    assert server.complete("the").status == 200


def ask(operation: Any, asked: Counter[tuple[str, int]]) -> None:
    """Requests to one path."""
    strategies = [operation.as_strategy(generation_mode=mode) for mode in GenerationMode]

    @EACH
    @given(case=st.one_of(strategies))
    def run(case: Any) -> None:
        if isinstance(case.body, dict) and type(case.body.get("max_tokens")) is int:
            case.body["max_tokens"] = min(case.body["max_tokens"], 8)  # for time's sake
        answer = case.call()
        asked[operation.path, answer.status_code] += 1
        case.validate_response(answer, excluded_checks=[positive_data_acceptance])

    run()


def hostile(server: Server, seed: int, statuses: Counter[int]) -> None:
    """Forty requests of one client: some good, some bad, some broken off at any place."""
    chance = random.Random(seed)
    for _ in range(40):
        asked: dict[str, Any] = {"model": NAME, "prompt": "the " * chance.randint(0, 70)}
        asked |= {"max_tokens": chance.randint(0, 40), "n": chance.choice([1, 1, 2, 5])}
        asked |= {"stream": chance.random() < 0.5, "echo": chance.random() < 0.5}
        if chance.random() < 0.5:
            asked["logprobs"] = chance.randint(0, 5)
        if chance.random() < 0.2:
            name = chance.choice(["temperature", "prompt", "stop", "logit_bias", "unknown"])
            asked[name] = chance.choice([-1, float("nan"), [], {}, "x" * 2000, [[1], [999]], None])
        body = json.dumps(asked).encode()
        if chance.random() < 0.1:
            body = body[: chance.randrange(len(body))]
        data = head(body, len(body) + chance.choice([0, 0, 0, 0, 9])) + body
        connection = socket.create_connection(("127.0.0.1", server.port), timeout=60)
        with connection, suppress(ConnectionError):
            if chance.random() < 0.3:  # it leaves before the request or the answer is whole
                connection.sendall(data[: chance.randrange(len(data))])
                if chance.random() < 0.5:
                    connection.sendall(data)
                continue
            connection.sendall(data)
            found = connection.recv(65536)
            statuses[int(found[9:12] or 0)] += 1
            while chance.random() < 0.9 and connection.recv(65536):
                pass


@pytest.mark.slow
def test_a_soak_of_hostile_clients(tmp_path: Path) -> None:
    """No 5xx but the 503 of a full queue, nothing left behind, and memory does not grow."""
    limits = {"rows": 4, "queue": 30, "client_seconds": 0.5, "prefix_bytes": 300_000}
    with serving(tmp_path, **limits) as server:
        held: list[int] = []
        statuses: Counter[int] = Counter()
        for turn in range(4):
            clients = [
                threading.Thread(target=hostile, args=(server, 100 * turn + i, statuses))
                for i in range(8)
            ]
            for client in clients:
                client.start()
            for client in clients:
                client.join()
            until(lambda: server.app.answering == 0 and server.running() == 0)
            gc.collect()
            held.append(psutil.Process().memory_info().rss)
        worker = server.app.served.worker
        assert worker.texts == 0 and not worker._known and not worker._of_job
        assert worker.engine.prefixes.bytes <= 300_000
        assert {200, 400} <= set(statuses) and all(s < 500 or s == 503 for s in statuses)
        assert not [line for line in server.lines if " 500 " in line]
        assert held[-1] - held[1] < 30 << 20
        assert server.complete("the").status == 200
