"""One trial of a training recipe, on one thread: what loss after how many tokens and seconds.

usage: python experiments/recipe.py TOKENS OUT.jsonl [name=value ...]
       python experiments/recipe.py --times TOKENS "name=value ..." ["name=value ..." ...]
       python experiments/recipe.py --curves OUT.svg "LABEL=FILE,FILE" ...

TOKENS is a folder of `gptwo pack`. The names are those of `Trial` below; OUT.jsonl gets the trial,
the losses on the way and the last one, measured on more text. `--times` prints JSON: processor
seconds per 1,000 tokens of each trial's steps, measured in turns, so that a busy machine slows all
alike. `--curves` draws held-out losses against tokens, a line for each label (the mean of its
files). `experiments/LOG.md` has the command and the result of every trial.

What the trials found best are the defaults of `gptwo train`; what they found useless is only here.
"""

import json
import sys
import time
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from statistics import median
from typing import Any

import torch

from gptwo.artifacts import atomic_write
from gptwo.config import with_settings
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES
from gptwo.tokens.shards import Shards, open_shards
from gptwo.training import forward
from gptwo.training.config import TrainingConfig
from gptwo.training.data.batches import Batches, batches, held_out_windows, read_windows
from gptwo.training.optimizers import muon
from gptwo.training.optimizers.optim import Optimizer, clip_gradients, make_optimizer, set_rate
from gptwo.training.optimizers.schedule import learning_rate
from gptwo.training.speed import keep_freed_memory
from gptwo.world import machine

COLOURS = ("#1b6ca8", "#c1440e", "#2e7d32", "#6a3d9a", "#8a6d00", "#444444")
MICRO_TOKENS = 2_048  # through the model at once
POLAR = muon.TURNS
JORDAN = ((3.4445, -4.7750, 2.0315),) * 5  # turns of Newton-Schulz as Jordan et al. 2024 have them


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A recipe. Stairs, as "64@0,256@0.3", change a value at shares of the tokens.

    Rates are peaks. 0 for `wte_lr` means that of AdamW's other weights.
    """

    size: str = "nano"
    n_embd: int = 0  # of another width, with heads of 32 channels
    tokens: int = 1_000_000
    batch: str = "2048"  # tokens per step
    width: str = "256"  # tokens per row
    optimizer: str = "adamw"
    lr: float = 4e-3
    wte_lr: float = 0.0
    muon_lr: float = 0.02
    muon_turns: str = "polar3"  # as gptwo; "jordan5": five turns with other factors
    muon_whole: bool = False  # queries, keys and values as one map
    schedule: str = "cosine"
    decay_ratio: float = 1.0
    lr_final_ratio: float = 0.1
    warmup_ratio: float = 0.05
    beta2: float = 0.95
    weight_decay: float = 0.1
    wte_decay: float = 0.1
    clip: float = 1.0
    zero_proj: bool = False  # both c_proj of a block start at 0
    wte_std: float = 0.02
    seed: int = 0


@dataclass
class Running:
    """A trial in progress."""

    trial: Trial
    config: TrainingConfig
    model: GPT2
    optimizer: Optimizer
    reads: Batches  # a row at a time
    seen: int = 0
    rows_read: int = 0


def trial_of(settings: list[str]) -> Trial:
    """`["batch=2048", "lr=1e-2"]` as a trial; stairs may be a single number."""
    texts = {field.name for field in fields(Trial) if field.type in (str, "str")}
    pairs = [setting.partition("=") for setting in settings]
    quoted = [f"{name}={json.dumps(text) if name in texts else text}" for name, _, text in pairs]
    return with_settings(Trial(), quoted)


def begin(trial: Trial, tokens: Shards) -> Running:
    """The model and optimiser of a trial before its first step."""
    muon.TURNS = JORDAN if trial.muon_turns == "jordan5" else POLAR
    if trial.muon_whole:
        muon.maps = lambda weight: (weight,)
    config = TrainingConfig(
        **{
            name: getattr(trial, name)
            for name in ("optimizer", "lr", "muon_lr", "schedule", "decay_ratio", "lr_final_ratio")
        },
        beta2=trial.beta2,
        weight_decay=trial.weight_decay,
        clip=trial.clip,
        seed=trial.seed,
        steps=10_000,  # the schedule is asked for ten-thousandths of the tokens
        warmup_steps=int(10_000 * trial.warmup_ratio),
    )
    torch.manual_seed(trial.seed)
    shape = replace(SIZES[trial.size], vocab_size=tokens.vocab_size)
    if trial.n_embd:
        shape = replace(shape, n_embd=trial.n_embd, n_head=trial.n_embd // 32)
    model = GPT2(shape)
    with torch.no_grad():
        model.wte.weight.mul_(trial.wte_std / 0.02)
        for name, weight in model.named_parameters():
            if trial.zero_proj and name.endswith("c_proj.weight"):
                weight.zero_()
    optimizer = make_optimizer(model, config)
    adamw = optimizer.parts[-1]
    tables = [model.wte.weight, model.wpe.weight]
    for group in adamw.param_groups:
        group["params"] = [w for w in group["params"] if all(w is not table for table in tables)]
    share = trial.wte_lr / trial.lr if trial.wte_lr else 1.0
    adamw.add_param_group({"params": tables, "weight_decay": trial.wte_decay, "share": share})
    n_ctx = model.config.n_ctx
    reads = batches(tokens, n_ctx=n_ctx, batch_tokens=n_ctx, seed=trial.seed)
    return Running(trial=trial, config=config, model=model, optimizer=optimizer, reads=reads)


def stair(text: str, done: float) -> int:
    """The value of stairs when the share `done` of the tokens was read."""
    steps = [entry.partition("@") for entry in text.split(",")]
    return [int(value) for value, _, start in steps if done >= float(start or 0)][-1]


def step(run: Running) -> float:
    """One update. Returns the training loss."""
    trial, n_ctx = run.trial, run.model.config.n_ctx
    done = run.seen / trial.tokens
    count = max(stair(trial.batch, done) // n_ctx, 1)
    width = stair(trial.width, done)
    pairs = [run.reads.at(run.rows_read + i) for i in range(count)]
    inputs, targets = (torch.cat(side).reshape(-1, width) for side in zip(*pairs, strict=True))
    total = 0.0
    rows = max(MICRO_TOKENS // width, 1)
    for x, y in zip(inputs.split(rows), targets.split(rows), strict=True):
        loss = forward.loss(run.model, x, y, run.config) * (len(x) / len(inputs))
        loss.backward()
        total += loss.item()
    clip_gradients(run.model, trial.clip)
    set_rate(run.optimizer, learning_rate(int(10_000 * done), run.config))
    run.optimizer.step()
    run.optimizer.zero_grad()
    run.rows_read += count
    run.seen += count * n_ctx
    return total


@torch.inference_mode()
def held_out_loss(model: GPT2, tokens: Shards, most: int) -> float:
    """Mean loss of windows spread over the validation split."""
    starts, width = held_out_windows(tokens, n_ctx=model.config.n_ctx, most_tokens=most)
    total = 0.0
    for first in range(0, len(starts), 16):
        x, y = read_windows(tokens, starts[first : first + 16], width)
        total += model.loss(x, y).item() * len(x)
    return total / len(starts)


def run_trial(folder: Path, out: Path, trial: Trial) -> None:
    """Train, and write the trial, four held-out losses on the way and the last one."""
    valid = open_shards(folder, "valid")
    run = begin(trial, open_shards(folder, "train"))
    lines: list[dict[str, Any]] = [asdict(trial)]
    seconds, updates = 0.0, 0
    marks = [trial.tokens * (i + 1) // 5 for i in range(4)]
    while run.seen < trial.tokens:
        began = time.process_time()
        step(run)
        seconds += time.process_time() - began
        updates += 1
        point = {"tokens": run.seen, "steps": updates, "cpu_seconds": round(seconds, 1)}
        if run.seen >= trial.tokens:
            lines.append(point | {"final": held_out_loss(run.model, valid, 131_072)})
        elif marks and run.seen >= marks[0]:
            marks.pop(0)
            lines.append(point | {"valid_loss": held_out_loss(run.model, valid, 32_768)})
    with atomic_write(out) as handle:
        handle.writelines(f"{json.dumps(line)}\n".encode() for line in lines)
    sys.stdout.write(f"{out} {json.dumps(lines[-1])}\n")


def times(folder: Path, trials: list[str], turns: int = 5) -> None:
    """Processor seconds per 1,000 tokens of the steps of each trial, turn by turn.

    A turn is ten steps spread over the run, so that stairs count with what they cost on the whole.
    The median turn is given, and the median of the ratios to the first trial in the same turn.
    """
    tokens = open_shards(folder, "train")
    found: dict[str, list[float]] = {text: [] for text in trials}
    runs = {}
    for text in trials:
        trial = trial_of(text.split())
        runs[text] = begin(trial, tokens), muon.TURNS, muon.maps
    for _ in range(turns):
        for text, (run, turned, cut) in runs.items():
            muon.TURNS, muon.maps = turned, cut
            seconds = 0.0
            for share in range(10):
                run.seen = before = run.trial.tokens * share // 10
                began = time.process_time()
                step(run)
                seconds += (time.process_time() - began) / (run.seen - before)
            found[text].append(100 * seconds)
    rows = {text: round(median(some), 4) for text, some in found.items()}
    ratios = {
        text: round(median(a / b for a, b in zip(some, found[trials[0]], strict=True)), 3)
        for text, some in found.items()
    }
    result = {"cpu_seconds_per_1000_tokens": rows, "ratio_to_first": ratios, "machine": machine()}
    sys.stdout.write(json.dumps(result, indent=2) + "\n")


def curves(out: Path, groups: list[str]) -> None:
    """A plain SVG of held-out losses against tokens, the mean over the files of each group."""
    lines = {}
    for group in groups:
        label, _, files = group.partition("=")
        runs = [
            [json.loads(line) for line in Path(name).read_text().splitlines()[1:]]
            for name in files.split(",")
        ]
        points = [
            (run[0]["tokens"], sum(p.get("valid_loss", p.get("final")) for p in run) / len(run))
            for run in zip(*runs, strict=True)
        ]
        lines[label] = points
    with atomic_write(out) as handle:
        handle.write(drawn(lines).encode())


def drawn(lines: dict[str, list[tuple[int, float]]]) -> str:
    """Loss against tokens as an SVG of its own, each line named at its end."""
    points = [point for line in lines.values() for point in line]
    right = max(x for x, _ in points)
    low, high = min(y for _, y in points), max(y for _, y in points)

    def place(x: float, y: float) -> str:
        return f"{60 + 480 * x / right:.1f},{20 + 300 * (high - y) / (high - low):.1f}"

    body = []
    for i in range(6):
        x, y = right * i / 5, low + (high - low) * i / 5
        across, up = place(x, low).split(",")[0], place(0, y).split(",")[1]
        body.append(f'<path d="M60,{up} H540" stroke="#ddd"/>')
        body.append(f'<text x="52" y="{up}" dy="4" text-anchor="end">{y:.2f}</text>')
        body.append(f'<text x="{across}" y="340" text-anchor="middle">{x / 1e6:.2g}M</text>')
    for (label, line), colour in zip(lines.items(), COLOURS, strict=False):
        path = " ".join(place(x, y) for x, y in line)
        across, up = place(*line[-1]).split(",")
        body.append(f'<polyline points="{path}" fill="none" stroke="{colour}" stroke-width="2"/>')
        body.append(f'<text x="{across}" y="{up}" dx="6" dy="4" fill="{colour}">{label}</text>')
    style = 'font-family="sans-serif" font-size="12" fill="#444"'
    head = f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 760 360" {style}>'
    title = '<text x="60" y="12">held-out loss, nats per token, against tokens read</text>'
    back = '<rect width="760" height="360" fill="#fff"/>'
    return "\n".join([head, back, title, *body, "</svg>", ""])


def main(arguments: list[str]) -> None:
    torch.set_num_threads(1)
    keep_freed_memory()
    if arguments[:1] == ["--times"]:
        times(Path(arguments[1]), arguments[2:])
    elif arguments[:1] == ["--curves"]:
        curves(Path(arguments[1]), arguments[2:])
    else:
        trial = trial_of(arguments[2:])
        run_trial(Path(arguments[0]), Path(arguments[1]), trial)


if __name__ == "__main__":
    main(sys.argv[1:])
