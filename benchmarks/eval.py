"""Scoring speed beside lm-evaluation-harness' Hugging Face backend: prints JSON.

usage: python benchmarks/eval.py DATA [--turns 2] [--threads 2] [--shapes cbt ...] [--scale 1]
       python benchmarks/eval.py DATA --process MODEL [--limit 500] [--turns 2] [--threads 2]

The first form: one model of GPT-2's 124M shape with random weights, in one process, the same token
requests to both in turns. `cbt` is a context of 405 tokens of WikiText and ten candidates with the
same rest of a sentence; the others are the real examples as the harness asks them. The harness'
batch size is the best of BATCHES, tried on a part. Reported: seconds (the least of the turns), the
largest difference of a log-probability in nats, and whether all decisions are the same: the best
continuation of each context, and of each single one whether it is what the model would write.

The second form: `gptwo eval` and `lm_eval` as commands on LAMBADA with MODEL, a checkpoint folder,
the start of the process included, and once more with one example, which is nearly all start.
"""

import argparse
import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.model.weights import save_checkpoint_model
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.world import machine
from gptwo.zeroshot import harness
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.score import Request, Score, Scorer
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench
from gptwo.zeroshot.tasks import lambada

BATCHES = (1, 4, 16)
CONTEXT, CANDIDATES = 405, 10  # of a question of the Children's Book Test
COUNTS = {"cbt": 1, "hellaswag": 10, "lambada": 100, "wsc273": 80, "wikitext2": 2}  # examples


@dataclass(frozen=True, kw_only=True)
class Work:
    """Requests, and how many each example has."""

    requests: list[Request]
    sizes: list[int]

    def part(self, share: float) -> "Work":
        sizes = self.sizes[: max(1, round(len(self.sizes) * share))]
        return Work(requests=self.requests[: sum(sizes)], sizes=sizes)


# ---- the work ----


def work(shape: str, bench: Bench, count: int) -> Work:
    if shape == "cbt":
        return _cbt(bench, count)
    config = EvalConfig(mode="harness", limit=count)
    real = Bench(sources=bench.sources, tokenizer=bench.tokenizer, n_ctx=bench.n_ctx, config=config)
    examples = harness.TASKS[shape].examples(real)
    requests = [request for example in examples for request in example.requests]
    return Work(requests=requests, sizes=[len(example.requests) for example in examples])


def _cbt(bench: Bench, count: int) -> Work:
    chance = random.Random(0)
    (page, *_) = work("wikitext2", bench, 1).requests
    ids = list(page.continuation)
    requests = []
    for _ in range(count):
        first = chance.randrange(len(ids) - CONTEXT - 30)
        gap = first + CONTEXT
        rest = ids[gap + 1 : gap + 1 + chance.randint(8, 20)]
        words = chance.sample(ids, CANDIDATES)
        requests += [Request(context=ids[first:gap], continuation=[word, *rest]) for word in words]
    return Work(requests=requests, sizes=[CANDIDATES] * count)


# ---- turns in one process ----


def one_process(args: argparse.Namespace) -> dict[str, Any]:
    from lm_eval.models.huggingface import HFLM

    torch.manual_seed(0)
    model = GPT2(GPT2Config()).eval()
    tokenizer = Tokenizer.load(args.data / "bpe")
    with tempfile.TemporaryDirectory() as folder:
        save_checkpoint_model(model, Path(folder))
        tokenizer.save(Path(folder))
        peer = HFLM(pretrained=folder, device="cpu", batch_size=1, dtype="float32")
    bench = Bench(
        sources=Sources(args.data, None),
        tokenizer=tokenizer,
        n_ctx=model.config.n_ctx,
        config=EvalConfig(),
    )
    scorer = Scorer(model, token_budget=args.token_budget, reordered=True)
    found = {}
    for shape in args.shapes:
        whole = work(shape, bench, max(1, round(COUNTS[shape] * args.scale)))
        found[shape] = turns(whole, scorer, peer, args.turns)
        print(shape, json.dumps(found[shape]), file=sys.stderr, flush=True)
    return found


def turns(whole: Work, scorer: Scorer, peer: Any, count: int) -> dict[str, Any]:
    part = whole.part(0.25)
    scorer.score(part.requests)  # both warm
    asked(peer, part.requests[:2], 1)
    tried = {batch: timed(lambda: asked(peer, part.requests, batch))[0] for batch in BATCHES}  # noqa: B023
    batch = min(tried, key=tried.__getitem__)
    ours, theirs = [], []
    for _ in range(count):
        seconds, scores = timed(lambda: scorer.score(whole.requests))
        ours.append(seconds)
        seconds, answers = timed(lambda: asked(peer, whole.requests, batch))
        theirs.append(seconds)
    return {
        "examples": len(whole.sizes),
        "requests": len(whole.requests),
        "gptwo_seconds": ours,
        "harness_seconds": theirs,
        "harness_batch": batch,
        "ratio": min(theirs) / min(ours),
        **agreement(whole, scores, answers),
    }


def asked(peer: Any, requests: Sequence[Request], batch: int) -> list[tuple[float, bool]]:
    peer.batch_size_per_gpu = batch
    pairs = [(None, list(r.context), list(r.continuation)) for r in requests]
    return peer._loglikelihood_tokens(pairs, disable_tqdm=True)


def timed(call: Callable[[], Any]) -> tuple[float, Any]:
    started = time.perf_counter()
    result = call()
    return time.perf_counter() - started, result


def agreement(whole: Work, scores: list[Score], answers: list[tuple[float, bool]]) -> dict:
    pairs = list(zip(scores, answers, strict=True))
    same, first = all(score.greedy == answer[1] for score, answer in pairs), 0
    for size in whole.sizes:
        members = range(first, first + size)
        same &= max(members, key=lambda i: scores[i].logprob) == max(
            members, key=lambda i: answers[i][0]
        )
        first += size
    per_token = [abs(s.logprob - a[0]) / len(s.token_logprobs) for s, a in pairs]
    return {
        "largest_difference_nats": max(abs(score.logprob - answer[0]) for score, answer in pairs),
        "per_token_nats": max(per_token),
        "same_decisions": same,
    }


# ---- as commands ----


def processes(args: argparse.Namespace) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        made = local_task(Path(folder), args.data)
        found: dict[str, Any] = {}
        for limit in (1, args.limit):
            ours, theirs = [], []
            for turn in range(args.turns):
                out = Path(folder) / f"scores-{limit}-{turn}"
                mine = ["eval", args.process, "lambada", "--data", args.data, "--out", out]
                settings = ["--set", "mode=harness", "--set", f"limit={limit}"]
                ours.append(command(["gptwo.cli", *mine, *settings, "--quiet"], args.threads))
                theirs.append(command(lm_eval(args.process, made, limit, args), args.threads))
            found[f"{limit} examples"] = {
                "gptwo_seconds": ours,
                "harness_seconds": theirs,
                "ratio": min(theirs) / min(ours),
            }
    return found


def lm_eval(model: Path, tasks: Path, limit: int, args: argparse.Namespace) -> list[Any]:
    return [
        *("lm_eval", "--model", "hf", "--model_args", f"pretrained={model},dtype=float32"),
        *("--tasks", "lambada_local", "--include_path", tasks, "--device", "cpu"),
        *("--batch_size", args.batch, "--limit", limit),
    ]


def local_task(folder: Path, data: Path) -> Path:
    """The harness' lambada_openai with the local file for its data."""
    (folder / "lambada_local.yaml").write_text(
        json.dumps(
            {
                "task": "lambada_local",
                "dataset_path": "json",
                "dataset_kwargs": {"data_files": {"test": str(data.resolve() / lambada.FILE.path)}},
                "output_type": "loglikelihood",
                "test_split": "test",
                "doc_to_text": "{{text.split(' ')[:-1]|join(' ')}}",
                "doc_to_target": "{{' '+text.split(' ')[-1]}}",
                "metric_list": [{"metric": "perplexity"}, {"metric": "acc"}],
            }
        )
    )
    return folder


def command(module: Sequence[Any], threads: int) -> float:
    environment = {**os.environ, "OMP_NUM_THREADS": str(threads), "HF_HUB_OFFLINE": "1"}
    line = [sys.executable, "-m", *map(str, module)]
    seconds, done = timed(
        lambda: subprocess.run(line, env=environment, capture_output=True, text=True, check=False)
    )
    if done.returncode:
        raise SystemExit(f"{' '.join(line)}\n{done.stderr[-2000:]}")
    return seconds


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("--process", type=Path, metavar="MODEL")
    parser.add_argument("--limit", type=int, default=500)
    parser.add_argument("--batch", type=int, default=16, help="of the harness as a command")
    parser.add_argument("--turns", type=int, default=2)
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--shapes", nargs="+", choices=list(COUNTS), default=list(COUNTS))
    parser.add_argument("--token-budget", type=int, default=EvalConfig().token_budget)
    parser.add_argument("--scale", type=float, default=1.0, help="of the numbers of examples")
    args = parser.parse_args()
    torch.set_num_threads(args.threads)
    found = processes(args) if args.process else one_process(args)
    about = {"machine": machine(), "threads": args.threads}
    json.dump({**about, "found": found}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
