"""POST /v1/completions and /v1/score: from a request to an answer, whole or as it comes."""

import asyncio
import secrets
import time
from collections.abc import AsyncGenerator, AsyncIterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

from gptwo.serve.faults import Fault
from gptwo.serve.metrics import Metrics
from gptwo.serve.requests import CompletionRequest, ScoreRequest, ids_of, prompts_of
from gptwo.serve.served import Served
from gptwo.serve.worker import Job, Wanted
from gptwo.serve.writing import Choice, Delta, choice_object, joined
from gptwo.text.config import SampleConfig

SCORING = SampleConfig(max_tokens=1, temperature=0.0, when_full="refuse")


class Record:
    """What the log and the metrics tell of a request."""

    def __init__(self, metrics: Metrics) -> None:
        self.metrics = metrics
        self.started = time.monotonic()
        self.first = 0.0  # seconds to the first token
        self.prompt = self.cached = self.written = 0  # tokens
        self.user = ""

    def hear(self, tokens: int, cached: int) -> None:
        if not self.first:
            self.first = time.monotonic() - self.started
            self.metrics.first_token.observe(self.first)
        self.written += tokens
        self.cached += cached
        self.metrics.written.inc(tokens)
        self.metrics.cached.inc(cached)

    def usage(self, written: int) -> dict[str, Any]:
        return {
            "prompt_tokens": self.prompt,
            "completion_tokens": written,
            "total_tokens": self.prompt + written,
            "prompt_tokens_details": {"cached_tokens": min(self.cached, self.prompt)},
        }


class Completion:
    """One request to /v1/completions."""

    def __init__(self, served: Served, asked: CompletionRequest, record: Record) -> None:
        self.served, self.asked, self.record = served, asked, record
        record.user = asked.user or ""
        self.head = {
            "id": f"cmpl-{secrets.token_hex(12)}",
            "object": "text_completion",
            "created": int(time.time()),
            "model": served.name,
        }
        prompts = prompts_of(asked, served.tokenizer, served.config)
        record.prompt = sum(map(len, prompts))
        config, draws = asked.sampling(), asked.max_tokens != 0
        scored = bool(asked.echo) and asked.logprobs is not None
        self.wanted = [
            Wanted(
                ids=ids, config=replace(config, seed=config.seed + i), draws=draws, scored=scored
            )
            for ids in prompts
            for i in range(asked.texts())
        ]
        self.choices = [
            Choice(served.tokenizer, wanted.ids, asked.stops(), bool(asked.echo), asked.logprobs)
            for wanted in self.wanted
        ]

    async def deltas(self, job: Job) -> AsyncIterator[tuple[int, Delta]]:
        """What is new, text by text, until all have ended or the client has gone."""
        begun: set[int] = set()
        left = len(self.choices)
        while left:
            piece = await job.next()
            if piece is None:
                return
            choice = self.choices[piece.place]
            if choice.finish:  # drawn before the worker heard of the stop text
                continue
            self.record.hear(len(piece.ids), piece.cached)
            if piece.place not in begun:
                begun.add(piece.place)
                yield piece.place, choice.begin(piece.scores)
            delta = choice.push(piece)
            if choice.finish:
                left -= 1
                if not piece.finish:
                    self.served.worker.end_text(job, piece.place)
            yield piece.place, delta

    async def whole(self, job: Job) -> dict[str, Any] | None:
        """The answer as one object; None when the client has gone."""
        found: list[list[Delta]] = [[] for _ in self.choices]
        async for place, delta in self.deltas(job):
            found[place].append(delta)
        if job.closed:
            return None
        texts = self.asked.texts()
        objects: list[dict[str, Any]] = []
        for first in range(0, len(self.choices), texts):
            places = range(first, first + texts)
            if texts > (self.asked.n or 1):
                places = sorted(places, key=self._worth, reverse=True)[: self.asked.n or 1]
            objects += [
                choice_object(len(objects) + i, joined(found[place]), self.choices[place].finish)
                for i, place in enumerate(places)
            ]
        return {**self.head, "choices": objects, "usage": self.record.usage(self._written())}

    async def parts(self, job: Job) -> AsyncGenerator[dict[str, Any]]:
        """The answer as it comes: a part as soon as some text is certain."""
        kept: dict[int, list[Delta]] = {}
        async for place, delta in self.deltas(job):
            kept.setdefault(place, []).append(delta)
            finish = self.choices[place].finish
            if delta.text or finish:
                delta = joined(kept.pop(place))
                yield {**self.head, "choices": [choice_object(place, delta, finish)]}
        options = self.asked.stream_options
        if options is not None and options.include_usage and not job.closed:
            yield {**self.head, "choices": [], "usage": self.record.usage(self._written())}

    def _written(self) -> int:
        return sum(choice.tokens for choice in self.choices)

    def _worth(self, place: int) -> float:
        """Log-probability per token."""
        choice = self.choices[place]
        return choice.logprob / max(choice.tokens, 1)


async def score(served: Served, asked: ScoreRequest, record: Record, watch: Any) -> Any:
    """How likely each candidate is; the prompt is read once for all of them."""
    record.user = asked.user or ""
    tokenizer = served.tokenizer
    if len(asked.candidates) > served.config.texts:
        told = f"{len(asked.candidates)} candidates, {served.config.texts} are allowed"
        raise Fault(400, told, param="candidates")
    context = ids_of(asked.prompt, tokenizer, "prompt") or [tokenizer.eot]
    found = [ids_of(candidate, tokenizer, "candidates") for candidate in asked.candidates]
    if not all(found):
        raise Fault(400, "a candidate is empty", param="candidates")
    record.prompt = len(context) + sum(map(len, found))
    wanted = [Wanted(ids=context + ids, config=SCORING, draws=False, scored=True) for ids in found]
    with working(served, wanted, watch) as job:
        scores: list[dict[str, Any]] = [{} for _ in found]
        for _ in found:
            piece = await job.next()
            if piece is None or piece.scores is None:
                return None
            record.hear(0, piece.cached)
            scores[piece.place] = _scored(piece.place, found[piece.place], piece.scores)
    return {"object": "list", "model": served.name, "data": scores, "usage": record.usage(0)}


def _scored(index: int, ids: Sequence[int], scores: Any) -> dict[str, Any]:
    own = scores.part(len(scores.logprobs) - len(ids), len(scores.logprobs))
    logprobs = own.logprobs.tolist()
    return {
        "index": index,
        "object": "score",
        "logprob": sum(logprobs),
        "is_greedy": bool((own.logprobs == own.best[:, 0]).all()),
        "tokens": list(ids),
        "token_logprobs": logprobs,
    }


@contextmanager
def working(served: Served, wanted: list[Wanted], watch: Any) -> Any:
    """A job while it is worked on; the client's leaving ends it. `watch` tells of that."""
    job = served.worker.submit(wanted)
    gone = asyncio.ensure_future(watch())
    gone.add_done_callback(lambda _: job.leave())
    try:
        yield job
    finally:
        gone.cancel()
        served.worker.end(job)
