"""Our harness mode beside lm-evaluation-harness on the same files and model: prints JSON.

usage: python benchmarks/agreement.py DATA MODEL [--limit N] [--tasks lambada ...]

MODEL is a checkpoint or run folder of ours, or a Hugging Face GPT-2 folder; lm-evaluation-harness
opens the same folder with its `hf` backend. Its own task files are used, only their data comes from
DATA instead of a download, in the form the downloads have. For each task: every metric by both, the
largest difference of a request's log-probability (nats; for `nq` how many answers differ), and the
seconds.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import datasets
import lm_eval
from lm_eval.api.task import ConfigurableTask
from lm_eval.evaluator import evaluate as harness_evaluate
from lm_eval.models.huggingface import HFLM
from lm_eval.tasks._yaml_loader import load_yaml

from gptwo.language_model import LanguageModel, load
from gptwo.model.weights import resolve
from gptwo.world import machine
from gptwo.zeroshot import harness
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.log import read_samples
from gptwo.zeroshot.run import evaluate
from gptwo.zeroshot.sources import Sources
from gptwo.zeroshot.tasks import hellaswag, lambada, nq, wikitext2, wsc273

Rows = list[dict[str, Any]]
# task: its file in lm_eval/tasks, the split it is scored on
TASK_FILES = {
    "lambada": ("lambada/lambada_openai.yaml", "test"),
    "wikitext2": ("wikitext/wikitext.yaml", "test"),
    "wsc273": ("wsc273/default.yaml", "test"),
    "hellaswag": ("hellaswag/hellaswag.yaml", "validation"),
    "nq": ("nq_open/nq_open.yaml", "validation"),
}
BATCH = 8


# ---- the harness' tasks on local files ----


def rows(task: str, sources: Sources) -> Rows:
    """The examples of `task` in the form of the data set that the harness downloads."""
    if task == "wikitext2":
        text = sources.read(wikitext2.FILE).decode("utf-8")
        return [{"page": page} for page in harness.pages(text)]
    if task == "wsc273":
        return [_schema(row) for row in sources.rows(wsc273.FILE, 0)]
    if task == "nq":
        return [{k: r[k] for k in ("question", "answer")} for r in sources.rows(nq.FILE, 0)]
    if task == "hellaswag":
        keys = ("ind", "activity_label", "ctx_a", "ctx_b", "ctx", "endings", "label")
        return [{k: r[k] for k in keys} for r in sources.rows(hellaswag.FILE, 0)]
    return list(sources.rows(lambada.FILE, 0))


def _schema(row: dict[str, Any]) -> dict[str, Any]:
    """The sentence with its pronoun again, and where it stands; any pronoun does."""
    options, rest = row["context_options"], row["continuation"]
    words = [option.split(" ") for option in options]
    shared = 0
    while shared < min(map(len, words)) - 1 and words[0][shared] == words[1][shared]:
        shared += 1
    head = "".join(f"{word} " for word in words[0][:shared])
    return {
        "text": f"{head}it{wsc273.glue(rest)}{rest}",
        "pronoun": "it",
        "pronoun_loc": len(head),
        "options": [option[len(head) :] for option in options],
        "label": row["gold"],
    }


def harness_task(task: str, found: Rows) -> ConfigurableTask:
    """The harness' own task with `found` for its data."""
    file, split = TASK_FILES[task]
    config = load_yaml(Path(lm_eval.__file__).parent / "tasks" / file, resolve_func=True)
    local = datasets.Dataset.from_list(found)
    splits = {split, config.get("training_split") or split}  # of zero examples shown, none is used

    class Local(ConfigurableTask):
        def download(self, *args: Any, **options: Any) -> None:
            self.dataset = datasets.DatasetDict(dict.fromkeys(splits, local))

    return Local(config=config)


# ---- both on one model ----


def compare(
    model: LanguageModel, peer: HFLM, tasks: Sequence[str], data: Path, limit: int = 0
) -> dict[str, Any]:
    """What both find, task by task."""
    sources, table = Sources(data, None), {}
    for task in tasks:
        with tempfile.TemporaryDirectory() as folder:
            started = time.perf_counter()
            ours = evaluate(
                model,
                [task],
                out=Path(folder),
                data=data,
                config=EvalConfig(mode="harness", limit=limit, resamples=1),
            )[task]
            seconds = time.perf_counter() - started
            records = read_samples(Path(folder) / f"{task}.samples.jsonl.zst")
        started = time.perf_counter()
        found = harness_evaluate(
            lm=peer,
            task_dict={task: harness_task(task, rows(task, sources))},
            limit=limit or None,
            bootstrap_iters=0,
        )
        assert found is not None
        theirs = found["results"][task]
        table[task] = {
            "n": ours.n,
            "metrics": {
                name: {"gptwo": value, "harness": theirs[key]}
                for name, value in ours.metrics.items()
                for key in theirs
                if key.split(",")[0] == name
            },
            **differences(task, records, found["samples"][task]),
            "seconds": {"gptwo": seconds, "harness": time.perf_counter() - started},
        }
    return table


def differences(task: str, records: Rows, samples: Rows) -> dict[str, float]:
    """Example by example."""
    samples = sorted(samples, key=lambda sample: sample["doc_id"])
    pairs = list(zip(records, samples, strict=True))
    if task == "nq":
        other = sum(ours["answer"] != theirs["filtered_resps"][0] for ours, theirs in pairs)
        return {"answers_that_differ": other}
    largest = 0.0
    for ours, theirs in pairs:
        # the answer to a request is (log-probability, greedy); to a rolling text the first alone
        answers = [a[0] if isinstance(a, tuple) else a for a in theirs["filtered_resps"]]
        names = {"wsc273": "partial", "hellaswag": "sums"}
        found = ours[names[task]] if task in names else [-ours["nats"]]
        largest = max(largest, *(abs(a - b) for a, b in zip(found, answers, strict=True)))
    return {"largest_difference_nats": largest}


def main() -> None:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("data", type=Path)
    parser.add_argument("model", type=Path)
    parser.add_argument("--limit", type=int, default=0)
    parser.add_argument("--tasks", nargs="+", choices=list(TASK_FILES), default=list(TASK_FILES))
    args = parser.parse_args()
    folder = str(resolve(args.model))
    peer = HFLM(pretrained=folder, device="cpu", batch_size=BATCH, dtype="float32")
    table = compare(load(args.model), peer, args.tasks, args.data, args.limit)
    json.dump({"machine": machine(), "model": folder, "tasks": table}, sys.stdout, indent=2)


if __name__ == "__main__":
    main()
