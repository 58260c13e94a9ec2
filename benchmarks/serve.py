"""How a server of ours stands load: prints JSON.

usage: python benchmarks/serve.py TOKENIZER [--size small] [--turns 3] [--clients 32] [--threads 2]

A model of random weights is served by `gptwo serve` in a process of its own on loopback; the
client is OpenAI's own, asynchronous, in this process on the same processors. Each turn asks as one
client and then as many: every client sends its next request when the last is answered, with prompts
of about 16 tokens and 16 to 48 tokens written, nothing shared between prompts. The first request of
each of the many is not counted in the times to the first token: all come in one moment, as real
ones do not. Then prompts of half the context are scored (`echo`, `logprobs`), each twice.

Rates are all tokens written over the time between the first and the last of them, times are of the
client, medians over the turns' requests.
"""

import argparse
import asyncio
import json
import os
import random
import re
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from openai import AsyncOpenAI

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES
from gptwo.model.weights import save_checkpoint_model
from gptwo.tokens.tokenizer import Tokenizer

NAME = "bench"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--size", default="small")
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--clients", type=int, default=32)
    parser.add_argument("--requests", type=int, default=3, help="of each of the many clients")
    parser.add_argument("--threads", type=int, default=2)
    asked = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        make_model(Path(folder), asked.tokenizer, asked.size)
        with server(Path(folder), asked.threads) as url:
            found = asyncio.run(measure(url, asked))
    print(json.dumps({"size": asked.size, "threads": asked.threads, **found}, indent=1))


def make_model(folder: Path, tokenizer: Path, size: str) -> None:
    vocabulary = Tokenizer.load(tokenizer)
    torch.manual_seed(0)
    model = GPT2(replace(SIZES[size], vocab_size=vocabulary.vocab_size))
    save_checkpoint_model(model, folder)
    vocabulary.save(folder)


@contextmanager
def server(folder: Path, threads: int) -> Iterator[str]:
    """Its address; stopped at the end."""
    command = [sys.executable, "-m", "gptwo.cli", "serve", str(folder), "--port", "0"]
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads)}
    with subprocess.Popen(
        [*command, "--name", NAME], stderr=subprocess.PIPE, text=True, env=environment
    ) as process:
        assert process.stderr
        try:
            for line in process.stderr:
                if found := re.search(r"http://\S+", line):
                    break
            else:
                raise SystemExit("the server did not start")
            # its log must be read, or it would wait for us to
            with open(os.devnull, "w") as sink:  # noqa: PTH123
                reader = subprocess.Popen(["cat"], stdin=process.stderr, stdout=sink)
            yield found[0]
        finally:
            process.send_signal(signal.SIGTERM)
            process.wait()
            reader.wait()


@dataclass
class Times:
    """What a client saw of one request."""

    started: float
    tokens: list[float] = field(default_factory=list)

    @property
    def first(self) -> float:
        return self.tokens[0] - self.started


async def ask(client: AsyncOpenAI, chance: random.Random, eot: int) -> Times:
    """One streamed request; a time for each token."""
    times = Times(time.perf_counter())
    stream = await client.completions.create(
        model=NAME,
        prompt=[chance.randrange(eot) for _ in range(16)],
        max_tokens=chance.randint(16, 48),
        seed=chance.randrange(1 << 30),
        logprobs=0,  # so that every token is told, whether or not its text is certain
        logit_bias={str(eot): -100},
        stream=True,
    )
    async for part in stream:
        now = time.perf_counter()
        told = part.choices[0].logprobs
        assert told is not None and told.tokens is not None
        times.tokens += [now] * len(told.tokens)
    return times


async def asked_by(client: AsyncOpenAI, seed: int, requests: int, eot: int) -> list[Times]:
    chance = random.Random(seed)
    return [await ask(client, chance, eot) for _ in range(requests)]


async def measure(url: str, asked: argparse.Namespace) -> dict[str, Any]:
    client = AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=600)
    eot = Tokenizer.load(asked.tokenizer).eot
    await asked_by(client, 0, 1, eot)  # everything has run once
    one: list[list[Times]] = []
    many: list[list[list[Times]]] = []
    for turn in range(asked.turns):
        one.append(await asked_by(client, 1000 + turn, 4, eot))
        clients = [
            asked_by(client, 10_000 * (turn + 1) + i, asked.requests, eot)
            for i in range(asked.clients)
        ]
        many.append(await asyncio.gather(*clients))
    alone = [rate(times) for times in one]
    together = [rate([t for times in turn for t in times]) for turn in many]
    idle = statistics.median(t.first for times in one for t in times)
    loaded = [t.first for turn in many for times in turn for t in times[1:]]
    gaps = sorted(
        b - a for turn in many for times in turn for t in times
        for a, b in zip(t.tokens, t.tokens[1:], strict=False) if b > a
    )  # fmt: skip
    return {
        "clients": asked.clients,
        "tokens/s of one": [round(x, 1) for x in alone],
        "tokens/s of all": [round(x, 1) for x in together],
        "ratio": round(statistics.median(together) / statistics.median(alone), 2),
        "first token, one (ms)": round(idle * 1e3, 1),
        "first token, all, median (ms)": round(statistics.median(loaded) * 1e3, 1),
        "first token, all, 90% (ms)": round(sorted(loaded)[len(loaded) * 9 // 10] * 1e3, 1),
        "first token ratio": round(statistics.median(loaded) / idle, 2),
        "between tokens, all, 50% and 95% (ms)": [
            round(gaps[len(gaps) * share // 100] * 1e3, 1) for share in (50, 95)
        ],
        **await repeated(client, asked, eot),
    }


def rate(times: list[Times]) -> float:
    """Tokens a second, from the first request to the last token."""
    seconds = max(t.tokens[-1] for t in times) - min(t.started for t in times)
    return sum(len(t.tokens) for t in times) / seconds


async def repeated(client: AsyncOpenAI, asked: argparse.Namespace, eot: int) -> dict[str, Any]:
    """Scoring a prompt of half the context, for the first and the second time."""
    chance = random.Random(7)
    cold, warm, off = [], [], 0.0
    for _ in range(2 * asked.turns):
        prompt = [chance.randrange(eot) for _ in range(SIZES[asked.size].n_ctx // 2)]
        told = []
        for seconds in (cold, warm):
            started = time.perf_counter()
            answer = await client.completions.create(
                model=NAME, prompt=prompt, max_tokens=1, echo=True, logprobs=1, temperature=0
            )
            seconds.append(time.perf_counter() - started)
            logprobs = answer.choices[0].logprobs
            assert logprobs is not None and logprobs.token_logprobs is not None
            told.append(logprobs.token_logprobs[1:])
        off = max(off, *(abs(a - b) for a, b in zip(*told, strict=True)))
    return {
        "prompt tokens scored": SIZES[asked.size].n_ctx // 2,
        "first time (ms)": round(statistics.median(cold) * 1e3, 1),
        "again (ms)": round(statistics.median(warm) * 1e3, 1),
        "again, times faster": round(statistics.median(cold) / statistics.median(warm), 1),
        "largest difference of a log-probability": off,
    }


if __name__ == "__main__":
    main()
