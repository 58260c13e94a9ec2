"""Evaluation: tasks on a model, killed and resumed at will, each result complete in itself.

A task's examples are cut into blocks of a fixed size; the scores of a block are appended to the
sample log before the next is begun. A resumed run takes over whole blocks and scores the rest, with
the same batches as an undisturbed one, so the result is the same to the last bit.
"""

import difflib
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files
from pathlib import Path
from typing import Any, Protocol

from gptwo.artifacts import LOCK, differences, digest, lock, remove_leftovers, write_json
from gptwo.errors import DataError, ModelError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.progress import SILENT, Reporter
from gptwo.records import Interval, TaskResult
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.zeroshot import harness
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.log import SampleLog
from gptwo.zeroshot.score import Scorer
from gptwo.zeroshot.solve import solve
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.task import Bench, Example, Record, Task
from gptwo.zeroshot.tasks import (
    answer,
    cbt,
    cloze,
    cnn_dailymail,
    coqa,
    enwik8,
    heldout,
    hellaswag,
    lambada,
    lastword,
    nq,
    one_billion_words,
    ptb,
    summarise,
    text8,
    translate,
    wikitext2,
    wikitext103,
    wmt14_en_fr,
    wmt14_fr_en,
    wsc273,
)

TASKS: dict[str, Task] = {
    "lambada": lambada.TASK,
    "cbt-cn": cbt.COMMON_NOUNS,
    "cbt-ne": cbt.NAMED_ENTITIES,
    "wikitext2": wikitext2.TASK,
    "wikitext103": wikitext103.TASK,
    "ptb": ptb.TASK,
    "enwik8": enwik8.TASK,
    "text8": text8.TASK,
    "1bw": one_billion_words.TASK,
    "wsc273": wsc273.TASK,
    "coqa": coqa.TASK,
    "cnn-dailymail": cnn_dailymail.TASK,
    "wmt14-en-fr": wmt14_en_fr.TASK,
    "wmt14-fr-en": wmt14_fr_en.TASK,
    "nq": nq.TASK,
    "hellaswag": hellaswag.TASK,
    "cloze": cloze.TASK,
    "lastword": lastword.TASK,
    "heldout": heldout.TASK,
    "translate": translate.TASK,
    "summarise": summarise.TASK,
    "answer": answer.TASK,
}
BLOCK = 64  # examples scored and logged together


class Subject(Protocol):
    """What is evaluated; a `LanguageModel` is one."""

    @property
    def model(self) -> GPT2: ...
    @property
    def tokenizer(self) -> Tokenizer: ...
    @property
    def description(self) -> dict[str, Any]: ...


def evaluate(
    model: Subject,
    tasks: Sequence[str],
    *,
    out: Path,
    data: Path | None = None,
    corpus: Path | None = None,
    config: EvalConfig = EvalConfig(),  # noqa: B008 - frozen
    reporter: Reporter = SILENT,
) -> dict[str, TaskResult]:
    """Run zero-shot tasks; writes out/TASK.json and out/TASK.samples.jsonl.zst (paper section 3).

    `data` holds eval/lambada/... and so on, `corpus` is a finished corpus for the built-in tasks.
    A result in `out` of the same weights, tokenizer, protocol and data is taken as it is, one of
    other weights is replaced, one of the same weights by other settings refuses the folder. A task
    whose data or package is missing or damaged is named before the first request and does not stop
    the others: `DataError` is raised after them.
    """
    tasks = list(dict.fromkeys(tasks))
    _check(model, tasks, config)
    bench = Bench(
        sources=Sources(data, corpus),
        tokenizer=model.tokenizer,
        n_ctx=model.model.config.n_ctx,
        config=config,
    )
    results: dict[str, TaskResult] = {}
    failed: dict[str, DataError] = {}
    with lock(out):
        _refuse_foreign(out)
        remove_leftovers(out)
        plans = {}
        for name in tasks:
            try:
                plans[name] = _plan(name, model, bench)
                _refuse_other_settings(out, plans[name])
            except DataError as error:
                reporter.say(f"{name}: left out, {error.message}")
                failed[name] = error
        for name, plan in plans.items():
            try:
                results[name] = _finished(out, plan) or _run(plan, model, bench, out, reporter)
            except DataError as error:
                reporter.say(f"{name}: left out, {error.message}")
                failed[name] = error
    if failed:
        raise DataError(
            "; ".join(f"{name}: {error.message}" for name, error in failed.items())
            + (f" (finished: {', '.join(results)})" if results else ""),
            remedy=next(iter(failed.values())).remedy,
        )
    return results


def _check(model: Subject, tasks: list[str], config: EvalConfig) -> None:
    if not tasks:
        raise UsageError("no task is named", remedy=f"tasks are: {', '.join(TASKS)}")
    for name in tasks:
        if name not in TASKS:
            near = difflib.get_close_matches(name, TASKS, n=1, cutoff=0.0)
            raise UsageError(
                f"unknown task {name!r}; the nearest is {near[0]!r}",
                remedy=f"tasks are: {', '.join(TASKS)}",
            )
        if name not in tasks_of(config):
            raise UsageError(
                f"{name} has no {config.mode} mode",
                remedy=f"in it there are: {', '.join(tasks_of(config))}",
            )
    shape = model.model.config
    if model.tokenizer.vocab_size > shape.vocab_size:
        raise ModelError(
            f"the tokenizer has {model.tokenizer.vocab_size:,} tokens, the model "
            f"{shape.vocab_size:,}",
            remedy="use the tokenizer the model was trained with",
        )
    if config.window > shape.n_ctx:
        raise UsageError(
            f"window is {config.window}, the model sees {shape.n_ctx} tokens",
            remedy="make it smaller, or 0 for the model's context",
        )


def tasks_of(config: EvalConfig) -> dict[str, Task]:
    """The tasks that there are in a mode."""
    return harness.TASKS if config.mode == "harness" else TASKS


def _refuse_foreign(out: Path) -> None:
    """Nothing is touched in a folder that holds other files than results."""
    for path in sorted(out.iterdir()):
        ours = path.name.endswith((".json", ".samples.jsonl.zst")) or ".tmp-" in path.name
        if path.is_file() and path.name != LOCK and not ours:
            raise UsageError(
                f"{out} exists and holds other files ({path.name})", remedy="choose another --out"
            )


def _plan(name: str, model: Subject, bench: Bench) -> dict[str, Any]:
    """What identifies a result; a stored one that differs in any of it is not reused."""
    task = tasks_of(bench.config)[name]
    return {
        "task": name,
        "protocol": json.loads(json.dumps(task.protocol(bench))),
        "data": json.loads(json.dumps(task.data(bench))),
        "model": json.loads(json.dumps(model.description, default=str)),
    }


def _key(plan: dict[str, Any]) -> str:
    """The plan without what a model's folder is called."""
    weights = {key: value for key, value in plan["model"].items() if key != "name"}
    return digest({**plan, "model": weights})


def _finished(out: Path, plan: dict[str, Any]) -> TaskResult | None:
    """The result already in `out`, if it is of this very plan."""
    stored = _stored(out, plan["task"])
    return stored if stored and _key(_made_of(stored)) == _key(plan) else None


def _refuse_other_settings(out: Path, plan: dict[str, Any]) -> None:
    """A trial with a limit must not take the place of a full result of the same model."""
    stored = _stored(out, plan["task"])
    if stored is None or _key({**_made_of(stored), "model": plan["model"]}) == _key(plan):
        return
    if _key({**plan, "model": stored.model}) == _key(plan):
        old, new = ({k: v[k] for k in ("protocol", "data")} for v in (_made_of(stored), plan))
        raise UsageError(
            f"{out} holds {plan['task']} of this model by other settings "
            f"({'; '.join(differences(old, new)[:3])})",
            remedy="choose another --out, or delete those results first",
        )


def _stored(out: Path, task: str) -> TaskResult | None:
    try:
        return read_result(out / f"{task}.json")
    except (DataError, FileNotFoundError):
        return None


def _made_of(result: TaskResult) -> dict[str, Any]:
    return {key: getattr(result, key) for key in ("task", "protocol", "data", "model")}


def read_result(path: Path) -> TaskResult:
    """A TASK.json; `DataError` when it is not one."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
        value["intervals"] = {key: Interval(**pair) for key, pair in value["intervals"].items()}
        return TaskResult(**value)
    except (ValueError, TypeError, KeyError, AttributeError) as damage:
        raise DataError(f"{path} is not a task result", remedy="delete it") from damage


def _run(
    plan: dict[str, Any], model: Subject, bench: Bench, out: Path, reporter: Reporter
) -> TaskResult:
    name, started = plan["task"], time.monotonic()
    task = tasks_of(bench.config)[name]
    (out / f"{name}.json").unlink(missing_ok=True)  # of another model or protocol
    examples = task.examples(bench)
    log = SampleLog(out / f"{name}.samples.jsonl.zst", {"task": name, "key": _key(plan)})
    records = _records(name, model.model, bench, examples, log, reporter)
    metrics, intervals = task.summary(records, bench)
    result = TaskResult(
        task=name,
        metrics=metrics,
        intervals=intervals,
        n=len(records),
        protocol=plan["protocol"],
        data=plan["data"],
        model=plan["model"],
        baselines=task.baselines(examples, bench),
        paper={} if bench.config.mode == "harness" else paper_rows(name),
        seconds=round(time.monotonic() - started, 1),
    )
    write_json(out / f"{name}.json", asdict(result))
    return result


def _records(
    name: str,
    model: GPT2,
    bench: Bench,
    examples: list[Example],
    log: SampleLog,
    reporter: Reporter,
) -> list[Record]:
    """Records of all examples: those in the log, then the rest, block by block."""
    task = tasks_of(bench.config)[name]
    scorer = Scorer(
        model,
        token_budget=bench.config.token_budget,
        vocab_size=bench.tokenizer.vocab_size,
        barred=task.barred(bench),
        reordered=True,
    )
    blocks = [examples[first : first + BLOCK] for first in range(0, len(examples), BLOCK)]
    with reporter.bar(f"eval {name}", len(examples), "examples") as bar:
        for number, block in enumerate(blocks):
            if number >= len(log.blocks):
                reporter.check()
                log.append(solve(block, task, bench, model, scorer, reporter))
            bar.advance(len(block))
    return [record for block in log.blocks for record in block]


def paper_rows(task: str) -> dict[str, dict[str, float]]:
    """The paper's results: model size -> our name of the metric -> value."""
    return published()["paper"].get(task, {})


def published() -> dict[str, Any]:
    """paper.json: the paper's numbers, and reproductions by others with their protocols."""
    return json.loads(files(__package__ or "").joinpath("paper.json").read_text(encoding="utf-8"))
