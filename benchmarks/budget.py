"""How near to its time a training under a budget ends, with and without other work beside it.

    python benchmarks/budget.py TOKENS TOKENIZER 3m 6m
    python benchmarks/budget.py TOKENS TOKENIZER 3m --busy

Each budget is a process of its own, timed from its start to its end. With --busy another process
takes one core from the middle of the time on. Prints a JSON object per budget.
"""

import json
import multiprocessing
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

from gptwo.console import parse_seconds

TRAIN = """
import sys
from pathlib import Path
from gptwo.progress import Reporter
from gptwo.training.budgets.budget import choose_once
from gptwo.training.loop import train
from gptwo.training.run import Sitting
from gptwo.world import here

tokens, tokenizer, out = (Path(word) for word in sys.argv[1:4])
world, reporter = here(), Reporter()
choice = choose_once(out, float(sys.argv[4]), tokens=tokens, world=world, reporter=reporter)
train(
    choice.training, choice.model, tokens=tokens, tokenizer=tokenizer, out=out, world=world,
    sitting=Sitting(seconds=choice.seconds), reporter=reporter,
)
"""


def keep_busy() -> None:
    while True:
        pass


def timed(tokens: Path, tokenizer: Path, seconds: float, *, busy: bool) -> dict[str, object]:
    """One run: how long it took, what it chose and decided on the way, what it ended with."""
    other = multiprocessing.Process(target=keep_busy, daemon=True)
    starter = threading.Timer(seconds / 2, other.start)
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        if busy:
            starter.start()
        started = time.perf_counter()
        words = [str(tokens), str(tokenizer), str(out), str(seconds)]
        subprocess.run([sys.executable, "-c", TRAIN, *words], check=True)
        took = time.perf_counter() - started
        starter.cancel()
        if other.pid:
            other.terminate()
        choice = json.loads((out / "budget.json").read_text())["choice"]
        pace = out / "pace.json"
        decisions = json.loads(pace.read_text())["decisions"] if pace.exists() else []
        lines = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {
        "budget_seconds": seconds,
        "busy_from_half": busy,
        "seconds": round(took, 1),
        "share": round(took / seconds, 3),
        "size": choice["size"],
        "steps_chosen": choice["training"]["steps"],
        "steps_done": max(line["step"] for line in lines),
        "decisions": decisions,
        "measured": choice["measured"],
        "valid_loss": [line["valid_loss"] for line in lines if "valid_loss" in line][-1],
    }


def main(words: list[str]) -> None:
    busy = "--busy" in words
    tokens, tokenizer, *budgets = [word for word in words if word != "--busy"]
    for budget in budgets:
        result = timed(Path(tokens), Path(tokenizer), parse_seconds(budget), busy=busy)
        print(json.dumps(result), flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
