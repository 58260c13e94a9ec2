"""The one thread that runs the model. Requests hand it texts and hear of every token.

The HTTP loop never waits for it: jobs go in by a queue, and what was drawn comes back as calls
into the loop, one for all texts of a step.
"""

import asyncio
import threading
from collections import deque
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial

from gptwo.errors import GptwoError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.serve.config import ServeConfig
from gptwo.serve.faults import Fault
from gptwo.text.config import SampleConfig
from gptwo.text.engine import Engine, Text
from gptwo.text.prefixes import Scores
from gptwo.text.prompt import check_prompt

FIRST_LENGTH = 128  # positions of each row that memory is taken for at the start


@dataclass(frozen=True, kw_only=True)
class Wanted:
    """One text of a job."""

    ids: list[int]
    config: SampleConfig
    draws: bool = True
    scored: bool = False


@dataclass(frozen=True, kw_only=True)
class Piece:
    """What is new of a text: tokens and their log-probabilities, and why it ended, if it did.

    `scores` and `cached` come with the first piece: of the prompt's tokens; how many of them
    were known from before.
    """

    place: int
    ids: list[int]
    logprobs: list[tuple[float, list[tuple[int, float]]]]
    finish: str
    scores: Scores | None
    cached: int


@dataclass(eq=False)
class Job:
    """The texts of one request, on the side of the HTTP loop."""

    wanted: list[Wanted]
    pieces: deque[Piece] = field(default_factory=deque)
    fault: Fault | None = None
    closed: bool = False  # nobody waits for more
    news: asyncio.Event = field(default_factory=asyncio.Event)

    async def next(self) -> Piece | None:
        """The next piece; None when the client has gone. Raises the worker's `Fault`."""
        while not self.pieces and not self.closed and self.fault is None:
            self.news.clear()
            await self.news.wait()
        if self.closed:
            return None
        if self.fault is not None:
            raise self.fault
        return self.pieces.popleft()

    def leave(self) -> None:
        """The client has gone."""
        self.closed = True
        self.news.set()


class Worker:
    """Runs an `Engine` in a thread of its own from `start` to `stop`."""

    def __init__(self, model: GPT2, eot: int, config: ServeConfig) -> None:
        self.config, self.eot = config, eot
        self.engine = Engine(
            model,
            eot=eot,
            rows=config.rows,
            length=FIRST_LENGTH,
            prefix_bytes=config.prefix_bytes,
            between=self._between,
        )
        self.n_ctx = model.config.n_ctx
        self.texts = 0  # texts of all jobs that have not ended; known to the HTTP loop alone
        self._begun: deque[Job] = deque()
        self._ended: deque[tuple[Job, int | None]] = deque()
        self._wake = threading.Event()
        self._stopping = False
        self._known: dict[Text, tuple[Job, int, int]] = {}  # its job, its place, tokens told
        self._of_job: dict[Job, list[Text]] = {}
        self._thread = threading.Thread(target=self._run, name="model", daemon=True)

    def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """`loop` is where jobs are submitted and heard of."""
        self.loop = loop
        self._thread.start()

    def stop(self) -> None:
        """End after the step under way; what is unfinished stays so."""
        self._stopping = True
        self._wake.set()
        self._thread.join()

    def submit(self, wanted: list[Wanted]) -> Job:
        """Called from the HTTP loop. Raises a `Fault`: 400 for what does not fit, 503 if full."""
        for text in wanted:
            try:
                check_prompt(text.ids, text.config, self.n_ctx, self.eot, draws=text.draws)
            except UsageError as error:
                raise self._refused(text, error) from None
        if self.texts + len(wanted) > self.config.rows + self.config.queue:
            raise Fault(503, f"{self.texts} texts are under way or waiting", code="overloaded")
        job = Job(wanted)
        self.texts += len(wanted)
        self._begun.append(job)
        self._wake.set()
        return job

    def end(self, job: Job) -> None:
        """The HTTP loop needs no more of a job, finished or not."""
        job.closed = True
        self.texts -= len(job.wanted)
        self._ended.append((job, None))
        self._wake.set()

    def end_text(self, job: Job, place: int) -> None:
        """One text of a job is long enough: a stop text was found in it."""
        self._ended.append((job, place))
        self._wake.set()

    def _refused(self, text: Wanted, error: UsageError) -> Fault:
        if "vocabulary" in error.message:
            return Fault(400, error.message, param="logit_bias", code="invalid_token")
        told = f"{len(text.ids):,} tokens in the prompt"
        if text.draws:
            told += f" and {text.config.max_tokens:,} to be written (max_tokens)"
        return Fault(
            400,
            f"this model's context is {self.n_ctx:,} tokens; the request has {told}",
            param="prompt" if len(text.ids) >= self.n_ctx else "max_tokens",
            code="context_length_exceeded",
        )

    # What follows runs in the worker's thread.

    def _run(self) -> None:
        while not self._stopping:
            self._wake.clear()
            try:
                self._begin()
                self._drop()
                if self.engine.running or len(self.engine.waiting):
                    self._tell(self.engine.step())
                    continue
            except Exception as error:  # of the model, for instance: all that are under way fail
                self._fail(error)
                continue
            self._wake.wait()

    def _between(self) -> None:
        """Between two layers: what has just come is read at once. Nobody leaves meanwhile."""
        if self._begun:
            self._begin()
            self._tell(self.engine.hurry())

    def _begin(self) -> None:
        while self._begun:
            job = self._begun.popleft()
            if job.closed:
                continue
            self._of_job[job] = []
            for place, wanted in enumerate(job.wanted):
                text = self.engine.submit(
                    wanted.ids, wanted.config, owner=job, draws=wanted.draws, scored=wanted.scored
                )
                self._of_job[job].append(text)
                self._known[text] = job, place, 0

    def _drop(self) -> None:
        while self._ended:
            job, place = self._ended.popleft()
            texts = self._of_job.get(job, [])
            for text in texts if place is None else texts[place : place + 1]:
                if self._known.pop(text, None):
                    self.engine.cancel(text)
            if place is None:
                self._of_job.pop(job, None)

    def _tell(self, texts: list[Text]) -> None:
        pieces: list[tuple[Job, Piece]] = []
        for text in texts:
            if text not in self._known:
                continue
            job, place, told = self._known.pop(text)
            piece = Piece(
                place=place,
                ids=text.ids[told:],
                logprobs=text.logprobs[told:],
                finish=text.finish,
                scores=text.prompt_scores if text.scored and not told else None,
                cached=0 if told else text.cached,
            )
            pieces.append((job, piece))
            if not text.finish:
                self._known[text] = job, place, len(text.ids)
        if pieces:
            self._call(partial(_hear, pieces))

    def _fail(self, error: Exception) -> None:
        told = error.message if isinstance(error, GptwoError) else f"{type(error).__name__}"
        fault = Fault(500, told, code="model_error")
        jobs = list(self._of_job)
        self.engine.reset()
        self._known.clear()
        self._of_job.clear()
        self._call(partial(_hear_fault, jobs, fault))

    def _call(self, call: Callable[[], None]) -> None:
        with suppress(RuntimeError):  # the loop has ended, and nobody listens
            self.loop.call_soon_threadsafe(call)


def _hear(pieces: list[tuple[Job, Piece]]) -> None:
    for job, piece in pieces:
        job.pieces.append(piece)
        job.news.set()


def _hear_fault(jobs: list[Job], fault: Fault) -> None:
    for job in jobs:
        job.fault = fault
        job.news.set()
