"""One path of the application: a guard before it, a clock around it, a line of the log after."""

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

from starlette.requests import ClientDisconnect, Request
from starlette.types import Message, Receive, Scope, Send

from gptwo.serve.completions import Record
from gptwo.serve.faults import Fault
from gptwo.serve.guard import admit


class SlowClient(Exception):  # noqa: N818 - ends the connection
    """A client did not take its answer."""


class Endpoint:
    """Answers one method on one path by calling `answer`."""

    def __init__(
        self,
        app: Any,
        method: str,
        path: str,
        answer: Callable[[Request, Record], Awaitable[Any]],
    ) -> None:
        self.app, self.method, self.path, self.answer = app, method, path, answer
        self.config = app.served.config

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        record = Record(self.app.metrics)
        status = 0

        async def patient(message: Message) -> None:
            nonlocal status
            status = message.get("status", status)
            try:
                async with asyncio.timeout(self.config.client_seconds):
                    await send(message)
            except TimeoutError:
                raise SlowClient from None

        self.app.answering += 1
        try:
            response = await self._response(Request(scope, receive, send), record)
            try:
                await response(scope, receive, patient)
            except Fault as fault:  # a stream that was refused before it began
                await fault.response()(scope, receive, patient)
        except ClientDisconnect:
            status = 499
        except SlowClient:
            status = 499
            raise
        finally:
            self.app.answering -= 1
            self._tell(status or 500, record)

    async def _response(self, request: Request, record: Record) -> Any:
        try:
            admit(request, self.app.served)
            async with asyncio.timeout(self.config.request_seconds):
                return await self.answer(request, record)
        except Fault as fault:
            return fault.response()
        except TimeoutError:
            told = f"the answer took longer than {self.config.request_seconds:g} s"
            return Fault(503, told, code="timeout").response()

    def _tell(self, status: int, record: Record) -> None:
        metrics = self.app.metrics
        seconds = time.monotonic() - record.started
        metrics.requests.labels(self.path, status).inc()
        metrics.seconds.labels(self.path).observe(seconds)
        metrics.read.inc(record.prompt)
        line = f"{time.strftime('%H:%M:%S')} {self.method} {self.path} {status} {seconds:.3f}s"
        if record.prompt or record.written:
            line += f" prompt={record.prompt} cached={record.cached} written={record.written}"
        if record.first:
            line += f" first={record.first:.3f}s"
        if record.user:
            line += f" user={record.user[:40]!r}"
        self.app.reporter.say(line)
