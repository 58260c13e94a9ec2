"""Chooses the learning rate on the held-out split, as the paper did by hand (section 2.3).

Short trainings from the same start on the same batches, each with a warm-up and a decay of its own:
first five rates, each twice the one below, then the best two for three times as long. Together they
take about a quarter of the steps of the run they are for. Where the best of the first is the lowest
or the highest, the next one beyond is tried too, until it is neither.
"""

import json
import math
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, replace
from functools import partial
from pathlib import Path
from shutil import rmtree
from typing import Any

from gptwo.artifacts import lock, read_json, read_manifest, write_json
from gptwo.config import differences
from gptwo.errors import DivergedError, UsageError
from gptwo.model.sizes import GPT2Config
from gptwo.progress import SILENT, Reporter
from gptwo.training.config import TrainingConfig
from gptwo.training.loop import METRICS, train
from gptwo.training.plan import refuse_foreign
from gptwo.world import World, here

TUNE, TRIALS = "tune.json", "tune"  # the result; the folder of the trials, a run each
FACTORS = (0.25, 0.5, 1.0, 2.0, 4.0)  # of the rates that the run has, for the first round
MOST_BEYOND = 3  # further factors of two on either side
SURVIVORS = 2
SHARES = {1: 1 / 50, 2: 3 / 50}  # of the run's steps, for a trial of each round
SHARE_OF_RUN = len(FACTORS) * SHARES[1] + SURVIVORS * SHARES[2]  # 22%, and the held-out losses
LEAST_STEPS = 20  # of a trial; in fewer nothing is learned about a rate
RATES = ("training.lr", "training.muon_lr")


@dataclass(frozen=True, kw_only=True)
class Trial:
    """A short training, and how it ended. The loss is None where it diverged."""

    round: int
    factor: float
    lr: float
    muon_lr: float
    steps: int
    tokens: int
    valid_loss: float | None


@dataclass(frozen=True, kw_only=True)
class _Search:
    """What all trials share, and those that are done."""

    config: TrainingConfig
    n_ctx: int
    run: Callable[..., Path]  # `train` with all that no trial changes
    out: Path
    reporter: Reporter
    asked: dict[str, Any]
    trials: list[Trial]

    def write(self, chosen: Trial | None = None) -> None:
        result: dict[str, Any] = {"asked": self.asked, "trials": list(map(asdict, self.trials))}
        if chosen:
            steps = sum(trial.steps for trial in self.trials)
            result["chosen"] = {"lr": chosen.lr, "muon_lr": chosen.muon_lr}
            result["share_of_run"] = round(steps / self.config.steps, 4)
        write_json(self.out / TUNE, result)


def tune(
    config: TrainingConfig,
    model: GPT2Config,
    *,
    tokens: Path | Sequence[Path],
    tokenizer: Path,
    out: Path,
    world: World | None = None,
    accept_changes: Collection[str] = (),
    reporter: Reporter = SILENT,
) -> TrainingConfig:
    """`config` with the learning rate that does best on the held-out split. Arguments as `train`.

    Trials are runs under `out`/tune; `out`/tune.json has the losses of all and the chosen rate.
    What is there is not done again: a stopped or killed search goes on, a finished one returns at
    once. Raises `UsageError` where the run is too short for trials of 20 steps or the search was
    begun with other settings, and `DivergedError` when every rate diverged.
    """
    world = world or here()
    _check(config, world)
    folders = (tokens,) if isinstance(tokens, Path) else tuple(tokens)
    manifests = [read_manifest(folder) for folder in folders]
    asked = {
        "training": asdict(config),
        "model": asdict(model),
        "inputs": {
            "tokens": "+".join(manifest.fingerprint for manifest in manifests),
            "tokenizer": read_manifest(tokenizer).fingerprint,
        },
    }
    with lock(out):
        refuse_foreign(out)
        search = _Search(
            config=config,
            n_ctx=model.n_ctx,
            run=partial(
                train,
                model=model,
                tokens=folders,
                tokenizer=tokenizer,
                world=world,
                reporter=reporter,
            ),
            out=out,
            reporter=reporter,
            asked=asked,
            trials=_known(out / TUNE, asked, accept_changes),
        )
        chosen = _best(search)
        if chosen.valid_loss is None:
            raise DivergedError(
                f"all of {len(search.trials)} trials diverged, the last at rate {chosen.lr:.3g}",
                remedy="set a much lower training.lr by hand, or look at the text",
            )
        search.write(chosen)
    reporter.say(
        f"tune: rate {chosen.lr:.3g}, {chosen.factor:g} times the given one ({out / TUNE})"
    )
    return replace(config, lr=chosen.lr, muon_lr=chosen.muon_lr)


def refuse_named_rate(settings: Collection[str]) -> None:
    """A `UsageError` where the rate to be chosen is one of the settings given by hand."""
    for name in (line.partition("=")[0].strip() for line in settings):
        if name in RATES:
            raise UsageError(
                f"{name} is chosen by --tune, and given as a setting too",
                remedy="leave one of them out",
            )


def _check(config: TrainingConfig, world: World) -> None:
    least = math.ceil(LEAST_STEPS / SHARES[1])
    if config.steps < least:
        raise UsageError(
            f"a run of {config.steps:,} steps is too short to tune: a trial would have "
            f"{int(config.steps * SHARES[1])}, expected {LEAST_STEPS} or more",
            remedy=f"set training.steps={least} or more, or name training.lr",
        )
    if world.size > 1:
        raise UsageError(
            f"a rate is tuned by one process, there are {world.size}",
            remedy="tune a smaller model in one process, and name training.lr here",
        )


def _known(path: Path, asked: dict[str, Any], accept_changes: Collection[str]) -> list[Trial]:
    """The trials that are done; those of other settings are refused but for accepted changes."""
    if not path.exists():
        return []
    known = read_json(path)
    changes = differences(known["asked"], asked)
    refused = [line for line in changes if line.split(":")[0] not in accept_changes]
    if refused:
        raise UsageError(
            f"{path} was begun with other settings ({'; '.join(refused)})",
            remedy="give those it was begun with, or choose another --out",
        )
    return [Trial(**line) for line in known["trials"]]


def _best(search: _Search) -> Trial:
    """Both rounds: what comes out of the second one first."""
    done = [_measured(search, 1, factor) for factor in FACTORS]
    for _ in range(MOST_BEYOND):  # the best is at an edge: look beyond it
        best, lowest, highest = min(done, key=_order).factor, done[0].factor, done[-1].factor
        if best == lowest:
            done.insert(0, _measured(search, 1, best / 2))
        elif best == highest:
            done.append(_measured(search, 1, best * 2))
    survivors = sorted(done, key=_order)[:SURVIVORS]
    return min((_measured(search, 2, trial.factor) for trial in survivors), key=_order)


def _order(trial: Trial) -> tuple[float, float]:
    """Lowest loss first, of equal ones the lowest rate; those that diverged last."""
    return math.inf if trial.valid_loss is None else trial.valid_loss, trial.factor


def _measured(search: _Search, round: int, factor: float) -> Trial:
    """The trial of `factor` in `round`, from tune.json or by training."""
    for trial in search.trials:
        if (trial.round, trial.factor) == (round, factor):
            return trial
    config = trial_config(search.config, search.n_ctx, round, factor)
    search.reporter.say(f"tune: round {round}, {config.steps:,} steps at rate {config.lr:.3g}")
    folder = search.out / TRIALS / f"round-{round}-lr-{config.lr:.3e}"
    try:
        search.run(config, out=folder)
        loss: float | None = _last_valid_loss(folder / METRICS)
    except DivergedError:
        loss = None
    trial = Trial(
        round=round,
        factor=factor,
        lr=config.lr,
        muon_lr=config.muon_lr,
        steps=config.steps,
        tokens=config.steps * config.batch_tokens,
        valid_loss=loss,
    )
    search.trials.append(trial)
    search.write()
    rmtree(folder / "checkpoints", ignore_errors=True)  # the loss is known; its curve stays
    return trial


def trial_config(config: TrainingConfig, n_ctx: int, round: int, factor: float) -> TrainingConfig:
    """The run in small: fewer steps, as many less of warm-up, all rates times `factor`."""
    steps = int(config.steps * SHARES[round])
    most = max(steps * config.batch_tokens // 4, n_ctx)  # a twelfth of the trial's time
    rates = {name: float(f"{getattr(config, name) * factor:.4g}") for name in ("lr", "muon_lr")}
    return replace(
        config,
        steps=steps,
        validation_interval=steps,
        validation_tokens=min(config.validation_tokens, most),
        warmup_steps=math.ceil(config.warmup_steps * SHARES[round]),
        checkpoint_interval=0,
        **rates,
    )


def _last_valid_loss(metrics: Path) -> float | None:
    lines = (json.loads(line) for line in metrics.read_text(encoding="utf-8").splitlines())
    loss = [line["valid_loss"] for line in lines if "valid_loss" in line][-1]
    return loss if math.isfinite(loss) else None
