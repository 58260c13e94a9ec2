"""Listening: the socket, the connections, and how it ends."""

import asyncio
import json
import socket
import threading
import time

import uvicorn
from uvicorn.protocols.http.h11_impl import H11Protocol

from gptwo.errors import ResourceError, UsageError
from gptwo.progress import Reporter
from gptwo.serve.app import App
from gptwo.serve.config import ServeConfig
from gptwo.serve.faults import Fault
from gptwo.serve.served import Served

POLL_SECONDS = 0.05
KEEP_ALIVE_SECONDS = 30


def serve(served: Served, reporter: Reporter, listener: socket.socket) -> None:
    """Answer on `listener` until a signal asks to stop; then requests under way are finished and
    new ones answered with 503. A second signal ends the process at once."""
    app = App(served, reporter)
    running = Running(app, listener)
    try:
        while not reporter.stop_requested and running.alive:
            time.sleep(POLL_SECONDS)
        served.stopping = True
        while app.answering and running.alive:
            time.sleep(POLL_SECONDS)
    finally:
        running.stop()
    reporter.say("stopped; every request was answered")


class Running:
    """The HTTP loop in a thread of its own, so that the main one is free to hear signals."""

    def __init__(self, app: App, listener: socket.socket) -> None:
        config = uvicorn.Config(
            app.asgi(),
            http=patient(app.served.config),
            ws="none",
            lifespan="on",
            log_config=None,
            log_level="critical",
            access_log=False,
            server_header=False,
            timeout_keep_alive=KEEP_ALIVE_SECONDS,
            timeout_graceful_shutdown=1,
        )
        self._server = uvicorn.Server(config)
        self._thread = threading.Thread(
            target=self._server.run, kwargs={"sockets": [listener]}, name="http", daemon=True
        )
        self._thread.start()
        while not self._server.started and self.alive:
            time.sleep(POLL_SECONDS / 5)
        if not self.alive:
            raise ResourceError("the server did not start", remedy="see the lines above")

    @property
    def alive(self) -> bool:
        return self._thread.is_alive()

    def stop(self) -> None:
        """Close the connections; what is unfinished on them is cut off."""
        self._server.should_exit = True
        self._thread.join()


def patient(config: ServeConfig) -> type[H11Protocol]:
    """Connections with limits that uvicorn has not: on their number, on the time for the head of a
    request, and on the time that a client may take to let itself be closed."""
    full = Fault(503, f"{config.connections} connections are open", code="overloaded")
    body = json.dumps(full.body()).encode()
    head = (
        "HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
        f"connection: close\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    refusal = head.encode() + body

    class Patient(H11Protocol):
        def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
            super().connection_made(transport)
            self.mark: tuple[int, object] = 0, None
            self._look()
            if len(self.connections) > config.connections:
                transport.write(refusal)
                transport.close()

        def _look(self) -> None:
            """Twice the same and nothing being answered, or being closed: it is ended."""
            cycle = self.cycle
            idle = cycle is None or cycle.response_complete
            mark = (1 if self.transport.is_closing() else 2 if idle else 0), cycle
            if mark[0] and mark == self.mark and self.timeout_keep_alive_task is None:
                self.transport.abort()
                return
            self.mark = mark
            self._timer = self.loop.call_later(config.client_seconds, self._look)

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

    return Patient


def listen(config: ServeConfig, api_key: str) -> socket.socket:
    """A bound socket. Raises `UsageError` for an address that is taken or not ours, and for one
    that others can reach when there is no key."""
    if not config.is_local and not api_key:
        raise UsageError(
            f"{config.host} can be reached by others, and there is no API key",
            remedy="set GPTWO_API_KEY, or listen on 127.0.0.1",
        )
    try:
        found = socket.getaddrinfo(config.host, config.port, type=socket.SOCK_STREAM)
        family, kind, protocol, _, address = found[0]
        listener = socket.socket(family, kind, protocol)
        try:
            listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            listener.bind(address)
            listener.listen(config.connections)
        except OSError:
            listener.close()
            raise
    except OSError as error:
        raise UsageError(
            f"cannot listen on {config.host} port {config.port}: {error.strerror or error}",
            remedy="choose another with --port or --host; --port 0 takes a free one",
        ) from None
    return listener


def address_of(listener: socket.socket) -> str:
    """`http://127.0.0.1:8000`"""
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
