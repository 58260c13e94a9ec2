"""The ASGI application: paths, and what each answers."""

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import aclosing, asynccontextmanager
from typing import Any, TypeVar

from prometheus_client import CONTENT_TYPE_LATEST, generate_latest
from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.middleware import Middleware
from starlette.middleware.cors import CORSMiddleware
from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route
from starlette.types import Receive, Scope, Send

from gptwo.progress import Reporter
from gptwo.serve.completions import Completion, Record, score, working
from gptwo.serve.endpoint import Endpoint
from gptwo.serve.faults import Fault
from gptwo.serve.guard import body_of, leaving
from gptwo.serve.metrics import Metrics
from gptwo.serve.requests import (
    Asked,
    CompletionRequest,
    DetokenizeRequest,
    ScoreRequest,
    TokenizeRequest,
    ids_of,
    parse,
)
from gptwo.serve.schema import openapi
from gptwo.serve.served import Served
from gptwo.serve.writing import name_of

LARGE_BODY = 1 << 14  # bytes from which on a request is read beside the loop, not in it
STREAM = [
    (b"content-type", b"text/event-stream; charset=utf-8"),
    (b"cache-control", b"no-store"),
]

Kind = TypeVar("Kind", bound=Asked)
Made = TypeVar("Made")


class App:
    """Answers requests about one model."""

    def __init__(self, served: Served, reporter: Reporter) -> None:
        self.served, self.reporter = served, reporter
        self.metrics = Metrics(served.worker)
        self.answering = 0  # requests under way

    def asgi(self) -> Starlette:
        """The application. Its lifespan starts and stops the worker."""
        answers = {
            ("POST", "/v1/completions"): self.completions,
            ("POST", "/v1/score"): self.score,
            ("GET", "/v1/models"): self.models,
            ("GET", "/v1/models/{id}"): self.model,
            ("GET", "/tokenizer_info"): self.tokenizer_info,
            ("POST", "/tokenize"): self.tokenize,
            ("POST", "/detokenize"): self.detokenize,
            ("GET", "/health"): self.health,
            ("GET", "/metrics"): self.prometheus,
            ("GET", "/openapi.json"): self.schema,
        }
        routes = [
            Route(path, Endpoint(self, method, path, answer), methods=[method])
            for (method, path), answer in answers.items()
        ]
        origins = list(self.served.config.origins)
        cors = Middleware(
            CORSMiddleware, allow_origins=origins, allow_methods=["*"], allow_headers=["*"]
        )
        return Starlette(
            routes=routes,
            middleware=[cors] if origins else [],
            lifespan=self._lifespan,
            exception_handlers={HTTPException: _http_error},
        )

    @asynccontextmanager
    async def _lifespan(self, app: Starlette) -> AsyncIterator[None]:
        self.served.worker.start(asyncio.get_running_loop())
        yield
        await asyncio.to_thread(self.served.worker.stop)

    async def completions(self, request: Request, record: Record) -> "Response | Stream":
        def made(asked: CompletionRequest) -> Completion:
            return Completion(self.served, asked, record)

        completion = await self._asked(request, CompletionRequest, made)
        if completion.asked.stream:
            return Stream(self.served, completion, leaving(request))
        with working(self.served, completion.wanted, leaving(request)) as job:
            return _answered(await completion.whole(job))

    async def score(self, request: Request, record: Record) -> Response:
        asked = await self._asked(request, ScoreRequest, lambda asked: asked)
        return _answered(await score(self.served, asked, record, leaving(request)))

    async def models(self, request: Request, record: Record) -> Response:
        return JSONResponse({"object": "list", "data": [self._model()]})

    async def model(self, request: Request, record: Record) -> Response:
        self._check_model(request.path_params["id"])
        return JSONResponse(self._model())

    async def tokenizer_info(self, request: Request, record: Record) -> Response:
        end = name_of(self.served.tokenizer.eot, self.served.tokenizer)
        tokens = dict.fromkeys(("eos_token", "bos_token", "pad_token"), end)
        return JSONResponse({**tokens, "chat_template": None})

    async def tokenize(self, request: Request, record: Record) -> Response:
        def made(asked: TokenizeRequest) -> dict[str, Any]:
            tokenizer = self.served.tokenizer
            # The name that /tokenizer_info tells is asked for its id this way, alone; within a
            # text it is text.
            named = asked.prompt == name_of(tokenizer.eot, tokenizer)
            tokens = [tokenizer.eot] if named else tokenizer.encode(asked.prompt)
            return {
                "tokens": tokens,
                "count": len(tokens),
                "max_model_len": self.served.model.config.n_ctx,
            }

        return JSONResponse(await self._asked(request, TokenizeRequest, made))

    async def detokenize(self, request: Request, record: Record) -> Response:
        def made(asked: DetokenizeRequest) -> dict[str, Any]:
            ids = ids_of(asked.tokens, self.served.tokenizer, "tokens")
            return {"prompt": self.served.tokenizer.decode(ids)}

        return JSONResponse(await self._asked(request, DetokenizeRequest, made))

    async def health(self, request: Request, record: Record) -> Response:
        """503 while it stops, so that nobody sends more; what it serves stays in memory."""
        state = {
            "status": "stopping" if self.served.stopping else "ok",
            "model": self.served.name,
            "weights_sha256": self.served.weights_sha256,
            "files": await asyncio.to_thread(self.served.files),
        }
        return JSONResponse(state, 503 if self.served.stopping else 200)

    async def prometheus(self, request: Request, record: Record) -> Response:
        text = generate_latest(self.metrics.registry)
        return Response(text, headers={"content-type": CONTENT_TYPE_LATEST})

    async def schema(self, request: Request, record: Record) -> Response:
        return JSONResponse(openapi(self.served.name))

    async def _asked(
        self, request: Request, kind: type[Kind], made: Callable[[Kind], Made]
    ) -> Made:
        """`made` of the request's body; beside the loop where that takes its time."""
        body = await body_of(request, self.served.config)

        def work() -> Made:
            asked = parse(body, kind)
            model = getattr(asked, "model", None)
            if model is not None:
                self._check_model(model)
            return made(asked)

        return work() if len(body) < LARGE_BODY else await asyncio.to_thread(work)

    def _check_model(self, name: str) -> None:
        if name != self.served.name:
            told = f"the model {name[:200]!r} is not here; this server has {self.served.name!r}"
            raise Fault(404, told, param="model", code="model_not_found")

    def _model(self) -> dict[str, Any]:
        return {
            "id": self.served.name,
            "object": "model",
            "created": int(self.served.started),
            "owned_by": "gptwo",
            "max_model_len": self.served.model.config.n_ctx,
        }


class Stream:
    """An answer as server-sent events, each as soon as its text is certain."""

    def __init__(self, served: Served, completion: Completion, watch: Any) -> None:
        self.served, self.completion, self.watch = served, completion, watch

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        with working(self.served, self.completion.wanted, self.watch) as job:
            start = {"type": "http.response.start", "status": 200, "headers": STREAM}
            await send(start)
            try:
                async with asyncio.timeout(self.served.config.request_seconds):
                    async with aclosing(self.completion.parts(job)) as parts:
                        async for part in parts:
                            await send(_event(json.dumps(part, ensure_ascii=False)))
            except Fault as fault:  # too late for a status of its own
                await send(_event(json.dumps(fault.body(), ensure_ascii=False)))
            except TimeoutError:
                fault = too_long(self.served)
                await send(_event(json.dumps(fault.body(), ensure_ascii=False)))
            await send(_event("[DONE]"))
            await send({"type": "http.response.body", "body": b"", "more_body": False})


def too_long(served: Served) -> Fault:
    """What is told when the time for an answer is over."""
    told = f"the answer took longer than {served.config.request_seconds:g} s"
    return Fault(503, told, code="timeout")


def _event(text: str) -> dict[str, Any]:
    body = f"data: {text}\n\n".encode()
    return {"type": "http.response.body", "body": body, "more_body": True}


def _answered(answer: dict[str, Any] | None) -> Response:
    """499 is for the log: a client that has gone reads nothing."""
    return Response(status_code=499) if answer is None else JSONResponse(answer)


async def _http_error(request: Request, error: Exception) -> Response:
    assert isinstance(error, HTTPException)
    told = f"there is no {request.method} {request.url.path[:200]} here"
    code = "not_found" if error.status_code == 404 else "method_not_allowed"
    return Fault(error.status_code, told, code=code).response(error.headers)
