"""The tiny arrow end to end: each artefact, skipping, remaking, kills."""

import json
import random
import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import psutil
import pyarrow.parquet as pq
import pytest
import torch
from tiny_arrow import SETTINGS, arguments, content, copy_run, reproduce

import gptwo
from gptwo.artifacts import read_json, verify
from gptwo.cli import main
from gptwo.tokens.shards import open_shards
from gptwo.zeroshot.log import read_samples

STAGES = [
    "demoweb",
    "links",
    "pages",
    "corpus",
    "tokenizer",
    "tokens",
    "training",
    "scores",
    "samples",
    "report",
]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run; not to be changed."""
    out = tmp_path_factory.mktemp("arrow") / "run"
    assert reproduce(out) == 0
    return out


@pytest.fixture
def run(made: Path, tmp_path: Path) -> Path:
    """A copy of it, to be changed."""
    return copy_run(made, tmp_path / "run")


def done(capsys: pytest.CaptureFixture[str]) -> dict[str, str]:
    """What the last `reproduce` said it did, stage by stage."""
    return json.loads(capsys.readouterr().out)["stages"]


def test_several_processes_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Under torchrun every one of them would make the same folders."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    assert reproduce(tmp_path / "run") == 2
    assert "WORLD_SIZE says there are 2" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_every_artefact_is_there_and_proves_itself(made: Path) -> None:
    state = read_json(made / "run.json")
    assert list(state["stages"]) == STAGES
    assert all(entry["state"] == "done" for entry in state["stages"].values())
    assert state["recipe"]["training"]["steps"] == 6 and state["machine"]["versions"]["torch"]
    assert verify(made)["folders"] == 9  # 7 stages with a manifest, 2 checkpoints
    assert not list(made.rglob("*.tmp-*")) and not list(made.rglob(".work"))
    assert not list(made.rglob(".lock"))


def test_each_stage_feeds_the_next(made: Path) -> None:
    links = pq.read_table(made / "links/links.parquet").to_pylist()
    assert all(link["score"] >= 3 for link in links)
    fetched = pq.read_table(made / "pages/fetched.parquet").to_pylist()
    assert {row["url"] for row in fetched} == {link["url"] for link in links}
    kept = [row for split in ("train", "valid", "test") for row in rows(made / "corpus" / split)]
    dropped = rows(made / "corpus/dropped")
    arrived = [row for row in fetched if row["outcome"] == "ok"]
    assert len(kept) + len(dropped) == len(arrived)
    assert all(row["stage"] and row["reason"] for row in dropped)
    shards = open_shards(made / "tokens", "train")
    tokenizer = gptwo.Tokenizer.load(made / "tokenizer")
    first = shards.read(0, int(shards.starts[1])).tolist()
    assert first[0] == tokenizer.eot
    assert tokenizer.decode(first[1:]) == rows(made / "corpus/train")[0]["text"]
    metrics = [json.loads(line) for line in (made / "metrics.jsonl").read_text().splitlines()]
    assert [m["step"] for m in metrics if "loss" in m] == [1, 2, 3, 4, 5, 6]
    assert [m["step"] for m in metrics if "valid_loss" in m] == [0, 3, 6]


def rows(folder: Path) -> list[dict[str, Any]]:
    return [
        row for path in sorted(folder.glob("*.parquet")) for row in pq.read_table(path).to_pylist()
    ]


def test_results_samples_and_report(made: Path) -> None:
    for task in ("heldout", "cloze", "lastword"):
        result = read_json(made / f"scores/{task}.json")
        assert result["n"] == len(read_samples(made / f"scores/{task}.samples.jsonl.zst"))
        assert result["baselines"] and result["intervals"] and result["protocol"]["version"]
    lines = (made / "samples/samples.jsonl").read_text().splitlines()
    samples = [json.loads(line) for line in lines]  # after six steps some end at once
    assert len(samples) == 6 and any(sample["text"] for sample in samples)
    assert all(sample["text"] or sample["finish"] == "stop" for sample in samples)
    page = (made / "report.html").read_text()
    assert "synthetic web, real prose" in page.lower()
    assert "http://" not in page.split("<body", 1)[0]


def test_other_tools_open_the_checkpoint(made: Path) -> None:
    from transformers import AutoModelForCausalLM, AutoTokenizer

    folder = made / "checkpoints/step-00000006"
    ours = gptwo.load(made)
    ids = ours.tokenizer.encode("The state of the Union")
    theirs = AutoModelForCausalLM.from_pretrained(folder).eval()
    assert AutoTokenizer.from_pretrained(folder)("The state of the Union")["input_ids"] == ids
    with torch.no_grad():
        batch = torch.tensor([ids])
        assert (theirs(batch).logits - ours.model(batch)).abs().max() < 1e-5


def test_the_python_face(made: Path) -> None:
    model = gptwo.load(made)
    assert isinstance(model, gptwo.LanguageModel) and isinstance(model.model, gptwo.GPT2)
    (score,) = model.score([("The state of", " the Union")])
    assert score < 0
    assert 1 < model.perplexity("The state of the Union is strong.") < 10_000
    assert model.generate("The", max_tokens=3, temperature=0) == model.generate(
        "The", max_tokens=3, temperature=0
    )


def test_a_second_run_does_nothing(run: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    capsys.readouterr()
    assert reproduce(run) == 0
    assert set(done(capsys).values()) == {"kept"}
    after = {path: path.stat().st_mtime_ns for path in run.rglob("*") if path.is_file()}
    assert {path for path in after if after[path] != before.get(path)} == {run / "run.json"}


@pytest.mark.parametrize(
    ("change", "first"),
    [
        ({"training__lr": 0.001}, "training"),
        ({"evaluation__questions": 5}, "scores"),
        ({"sampling__max_tokens": 4}, "samples"),
        ({"tokenizer__vocab_size": 500}, "tokenizer"),
    ],
)
def test_a_changed_setting_remakes_what_depends_on_it(
    run: Path, capsys: pytest.CaptureFixture[str], change: dict[str, Any], first: str
) -> None:
    expected = content(run)
    capsys.readouterr()
    assert reproduce(run, **change) == 0
    alone = {"scores", "samples"} - {first} if first in ("scores", "samples") else set()
    remade = {stage for stage in STAGES[STAGES.index(first) :] if stage not in alone}
    assert {stage for stage, what in done(capsys).items() if what == "made"} == remade
    # The old settings find what they had made, on the shelf.
    assert reproduce(run) == 0
    assert {stage for stage, what in done(capsys).items() if what == "restored"} == remade
    assert {k: v for k, v in content(run).items() if not k.startswith("previous/")} == expected


def test_a_damaged_or_missing_part_is_made_again(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    expected = content(run)
    (run / "samples/samples.jsonl").unlink()
    (run / "report.html").unlink()
    capsys.readouterr()
    assert reproduce(run) == 3  # a folder that lost a file is not silently overwritten
    assert "samples.jsonl is missing" in capsys.readouterr().err
    (run / "samples/manifest.json").unlink()
    assert reproduce(run) == 0
    assert content(run) == expected and (run / "report.html").exists()


@pytest.mark.slow
def test_killed_at_twenty_random_moments_it_ends_the_same(made: Path, tmp_path: Path) -> None:
    """SIGKILL, SIGINT and SIGTERM in turn, each at a random moment of one run after another."""
    chance, expected = random.Random(1787), content(made)
    kills = runs = 0
    while kills < 20:
        out, runs = tmp_path / f"run-{runs}", runs + 1
        while True:
            number = (signal.SIGKILL, signal.SIGINT, signal.SIGTERM)[kills % 3]
            seconds = chance.uniform(0.3, 4.0) if kills < 20 else 100.0
            code, said = stopped_after(seconds, number, arguments(out))
            if code == 0:
                break
            kills += 1
            assert code in (-number, 75), said
        assert content(out) == expected
        verify(out)


def stopped_after(seconds: float, number: int, words: list[str]) -> tuple[int, str]:
    """Run a command and send it a signal; its exit code and stderr. No child may outlive it."""
    with tempfile.TemporaryFile() as said:
        command = [sys.executable, "-m", "gptwo.cli", *words]
        process = psutil.Popen(command, stdout=subprocess.DEVNULL, stderr=said)
        children: list[psutil.Process] = []
        try:
            code = process.wait(seconds)
        except psutil.TimeoutExpired:
            children = process.children(recursive=True)
            process.send_signal(number)
            code = process.wait(60)
        assert not psutil.wait_procs(children, timeout=10)[1]
        said.seek(0)
        return code, said.read().decode()


def test_a_budget_chooses_and_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = [w for w in arguments(tmp_path / "run", "--budget", "4s") if w != "--quiet"]
    assert main(words) == 2  # steps are what a budget chooses
    assert "training.steps is chosen by the budget" in capsys.readouterr().err
    at = words.index(f"training.steps={SETTINGS['training.steps']}")
    del words[at - 1 : at + 1]
    assert main(words) == 0
    said = capsys.readouterr().err
    assert "budget 4.0s" in said and "femto" in said
    chosen = read_json(tmp_path / "run/run.json")["choice"]
    plan = read_json(tmp_path / "run/training.json")
    assert chosen["settings"]["training"] == plan["training"]
    assert read_json(tmp_path / "run/run.json")["recipe"]["training"] == plan["training"]
    assert chosen["measured"]["tokens_per_second"]["femto"] > 0
    # What was named is kept: the size, and settings of model and training.
    assert plan["training"]["lr"] == SETTINGS["training.lr"] and "nano" not in said
    assert main(words) == 0  # the choice stands: nothing is measured again
    assert "budget 4.0s" not in capsys.readouterr().err


def test_a_task_without_its_data_is_told_at_the_end(
    run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (run / "data/eval").mkdir(parents=True)
    assert reproduce(run, "--data", str(run / "data")) == 3
    told = capsys.readouterr().err
    assert "lambada" in told and "is missing" in told
    state = read_json(run / "run.json")["stages"]
    assert state["scores"]["state"] == "failed" and state["report"]["state"] == "done"
    assert (run / "scores/cloze.json").exists()


def test_refusals(made: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = tmp_path / "other"
    other.mkdir()
    (other / "thesis.txt").write_text("mine")
    assert reproduce(other) == 2
    assert "exists and is not a run folder" in capsys.readouterr().err
    assert reproduce(other / "thesis.txt") == 2
    assert "is a file, expected a folder" in capsys.readouterr().err
    assert main(["reproduce", "laptop", "--out", str(tmp_path / "new")]) == 2
    assert "has nothing to read" in capsys.readouterr().err
    assert main(["reproduce", "labtop"]) == 2
    assert "recipes are: demo, laptop" in capsys.readouterr().err
    assert main(["reproduce", "laptop", str(tmp_path / "none.txt")]) == 3
    assert "none.txt does not exist" in capsys.readouterr().err
    assert reproduce(tmp_path / "new", "--data", str(tmp_path / "none")) == 3
    assert "none/eval does not exist" in capsys.readouterr().err
    assert reproduce(tmp_path / "new", trainning__lr=1) == 2
    assert "the nearest is 'training.lr'" in capsys.readouterr().err
    assert reproduce(tmp_path / "new", training__lr="fast") == 2
    assert "training.lr" in capsys.readouterr().err
    assert not (tmp_path / "new").exists()
