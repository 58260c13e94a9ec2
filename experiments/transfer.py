"""Where the best learning rate lies at each width: does one tuned on a small model serve a large?

    python experiments/transfer.py TOKENS TOKENIZER OUT [muon|adamw]... [steps=300] [batch=1024]

For each factor and width a short training from the same start on the same batches, the widths in
turn so that an unfinished file tells something of each. A line of OUT.jsonl per run; those that are
there are not made again.
"""

import json
import sys
import tempfile
import time
from dataclasses import replace
from pathlib import Path

from gptwo.errors import DivergedError
from gptwo.model.sizes import GPT2Config
from gptwo.training.config import TrainingConfig
from gptwo.training.loop import METRICS, train
from gptwo.world import World

WIDTHS = (64, 128, 256)
FACTORS = (1.0, 2.0, 0.5, 4.0, 0.25)  # of both rates
RECIPE = TrainingConfig(
    steps=300,
    batch_tokens=1_024,
    micro_batch=16,
    lr=4e-3,
    muon_lr=0.02,
    schedule="wsd",
    lr_final_ratio=0.0,
    warmup_steps=30,
    validation_interval=300,
    validation_tokens=16_384,
    checkpoint_interval=0,
)


def shape(width: int) -> GPT2Config:
    """Two layers, heads of 32 channels, context 64."""
    return GPT2Config(n_layer=2, n_head=width // 32, n_embd=width, n_ctx=64)


def final_loss(
    config: TrainingConfig, model: GPT2Config, tokens: Path, tokenizer: Path
) -> float | None:
    """Held-out loss at the end; None for a run that diverged."""
    with tempfile.TemporaryDirectory() as folder:
        out = Path(folder) / "run"
        try:
            train(config, model, tokens=tokens, tokenizer=tokenizer, out=out, world=World())
        except DivergedError:
            return None
        lines = [json.loads(line) for line in (out / METRICS).read_text().splitlines()]
    return [line["valid_loss"] for line in lines if "valid_loss" in line][-1]


def main(tokens: Path, tokenizer: Path, out: Path, words: list[str]) -> None:
    options = dict(word.split("=") for word in words if "=" in word)
    steps = int(options.get("steps", RECIPE.steps))
    batch = int(options.get("batch", RECIPE.batch_tokens))
    optimizers = [word for word in words if "=" not in word] or ["muon"]
    done = [json.loads(line) for line in out.read_text().splitlines()] if out.exists() else []
    known = {
        (row["optimizer"], row["steps"], row["batch"], row["width"], row["factor"]) for row in done
    }
    for optimizer in optimizers:
        for factor in FACTORS:
            for width in WIDTHS:
                if (optimizer, steps, batch, width, factor) in known:
                    continue
                config = replace(
                    RECIPE,
                    steps=steps,
                    batch_tokens=batch,
                    micro_batch=batch // 64,
                    warmup_steps=steps // 10,
                    validation_interval=steps,
                    optimizer=optimizer,
                    lr=RECIPE.lr * factor,
                    muon_lr=RECIPE.muon_lr * factor,
                )
                started = time.process_time()
                loss = final_loss(config, shape(width), tokens, tokenizer)
                row = {
                    "optimizer": optimizer,
                    "steps": steps,
                    "batch": batch,
                    "width": width,
                    "factor": factor,
                    "lr": config.lr,
                    "muon_lr": config.muon_lr,
                    "valid_loss": loss,
                    "cpu_seconds": round(time.process_time() - started, 1),
                }
                with out.open("a") as lines:
                    lines.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), Path(sys.argv[3]), sys.argv[4:])
