"""The law of loss against size and tokens that `--budget` chooses by: sweep, fit, plot.

    python experiments/scaling.py sweep TOKENS TOKENIZER experiments/scaling.jsonl [SHAPE...]
    python experiments/scaling.py fit experiments/scaling.jsonl
    python experiments/scaling.py plot experiments/scaling.jsonl docs/scaling.svg

A sweep trains every shape on 0.5, 1, 2, ... million tokens, on one thread, as `--budget` sets it
up; runs that are in the file are not made again. Two processes may share the shapes. Lines of other
runs with the same recipe may be added by hand; `from` tells which.
"""

import json
import sys
import tempfile
import time
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np

from gptwo.artifacts import read_manifest
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.training.budgets.budget import recipe
from gptwo.training.budgets.scaling import PUBLISHED, Law, Point, fit, left_out_errors
from gptwo.training.loop import METRICS, train
from gptwo.world import World

SHAPES = {
    "pico": GPT2Config(n_layer=2, n_head=1, n_embd=32, n_ctx=256),
    "femto": SIZES["femto"],
    "nano": SIZES["nano"],
    "micro": SIZES["micro"],
}
MILLIONS = (0.5, 1, 2, 4)
MOST_WORK = 1.4e12  # parameters x tokens of a run


def sweep(tokens: Path, tokenizer: Path, out: Path, shapes: list[str]) -> None:
    """Train what is missing in `out`; cheap runs first."""
    vocab_size = read_manifest(tokens).details["vocab_size"]
    runs = [
        (model.parameters() * millions * 1e6, name, model, millions)
        for name in shapes
        for model in (replace(SHAPES[name], vocab_size=vocab_size),)
        for millions in MILLIONS
    ]
    for work, name, model, millions in sorted(runs, key=lambda run: run[0]):
        done = rows(out) if out.exists() else []
        if work > MOST_WORK or (name, millions) in {(r["shape"], r["millions"]) for r in done}:
            continue
        row = {"shape": name, "millions": millions, **trained(model, millions, tokens, tokenizer)}
        with out.open("a") as lines:
            lines.write(json.dumps(row) + "\n")


def trained(model: GPT2Config, millions: float, tokens: Path, tokenizer: Path) -> dict[str, Any]:
    """One run: what it had and the loss it ended with."""
    config = recipe(model, millions * 1e6, World())
    config = replace(
        config, validation_interval=config.steps, validation_tokens=65_536, checkpoint_interval=0
    )
    started = time.process_time()
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        train(config, model, tokens=tokens, tokenizer=tokenizer, out=out, world=World())
        lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return {
        "parameters": model.parameters(),
        "tokens": config.steps * config.batch_tokens,
        "valid_loss": [line["valid_loss"] for line in lines if "valid_loss" in line][-1],
        "cpu_seconds": round(time.process_time() - started, 1),
        "optimizer": config.optimizer,
        "batch_tokens": config.batch_tokens,
        "lr": config.lr,
    }


def rows(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines()]


def points(path: Path) -> list[Point]:
    return [Point(row["parameters"], row["tokens"], row["valid_loss"]) for row in rows(path)]


def told(path: Path) -> str:
    """The law with exponents of its own and with the published ones, and what each holds for best.

    An error is that of a point which the law was not fitted on.
    """
    swept, lines = points(path), []
    for exponents in (None, PUBLISHED):
        law, errors = fit(swept, exponents), np.abs(left_out_errors(swept, exponents))
        constants = ", ".join(f"{name}={value:.4g}" for name, value in asdict(law).items())
        error = f"within {errors.mean():.2%} on average, {errors.max():.2%} at worst"
        lines.append(f"Law({constants}); one of {len(swept)} left out is foretold {error}")
        lines += [
            f"  {size:12,.0f} parameters: {best_ratio(law, size):6.1f} tokens each"
            for size in np.geomspace(3e5, 1e8, 6)
        ]
    return "\n".join(lines)


def best_ratio(law: Law, parameters: float) -> float:
    """Tokens per parameter at which this size is the best use of parameters x tokens."""
    gain = law.a * law.A / parameters**law.a
    return float((law.b * law.B / gain) ** (1 / law.b) / parameters) if gain else float("inf")


def plot(path: Path, out: Path) -> None:
    """Losses against tokens, a line of the law through the points of each shape."""
    import matplotlib
    from matplotlib.figure import Figure

    swept, law = rows(path), fit(points(path), PUBLISHED)
    with matplotlib.rc_context({"svg.fonttype": "none", "svg.hashsalt": "gptwo", "font.size": 11}):
        figure = Figure(figsize=(7, 4), layout="constrained")
        axes = figure.subplots()
        for number, name in enumerate(dict.fromkeys(row["shape"] for row in swept)):
            mine = [row for row in swept if row["shape"] == name]
            size, colour = mine[0]["parameters"], f"C{number}"
            x = np.geomspace(2e5, 1e7, 50)
            axes.plot(x, [law.loss(size, tokens) for tokens in x], color=colour, linewidth=1.2)
            axes.plot(
                [row["tokens"] for row in mine],
                [row["valid_loss"] for row in mine],
                "o",
                color=colour,
                label=f"{name}, {size / 1e6:.2f}M parameters",
            )
        axes.set_xscale("log")
        axes.set_xlabel("tokens read")
        axes.set_ylabel("held-out loss, nats per token")
        axes.set_title(
            f"L = {law.E:.3g} + {law.A:.3g} / N^{law.a:.3g} + {law.B:.3g} / D^{law.b:.3g}",
            fontsize=11,
        )
        axes.legend(frameon=False)
        axes.grid(alpha=0.3)
        figure.savefig(out, format="svg", metadata={"Date": None, "Creator": None})


def main(command: str, *words: str) -> None:
    if command == "sweep":
        tokens, tokenizer, out = (Path(word) for word in words[:3])
        sweep(tokens, tokenizer, out, list(words[3:]) or list(SHAPES))
    elif command == "fit":
        sys.stdout.write(told(Path(words[0])) + "\n")
    elif command == "plot":
        plot(Path(words[0]), Path(words[1]))
    else:
        sys.exit(__doc__)


if __name__ == "__main__":
    main(*sys.argv[1:] or [""])
