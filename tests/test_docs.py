"""Guards: the documentation says what is there, and its examples work."""

import json
import random
import re
import runpy
import shlex
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from cyclopts import CycloptsError

from gptwo.artifacts import stage
from gptwo.cli import app
from gptwo.config import to_dict, with_settings
from gptwo.corpus.config import CorpusConfig
from gptwo.demo.config import DemoConfig
from gptwo.errors import GptwoError
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import SIZES, GPT2Config
from gptwo.model.weights import save_checkpoint_model
from gptwo.recipes import ModelAndTraining, Recipe, model_of_size, recipe
from gptwo.serve.config import ServeConfig
from gptwo.text.config import SampleConfig
from gptwo.tokens.bpe import cut
from gptwo.tokens.config import PackConfig, TokenizerConfig
from gptwo.tokens.learn import learn_merges
from gptwo.tokens.pack import pack
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.training.config import TrainingConfig
from gptwo.web.config import CrawlConfig, LinksConfig
from gptwo.zeroshot.config import EvalConfig
from gptwo.zeroshot.run import TASKS

ROOT = Path(__file__).parents[1]
FOLDERS = ("docs", "benchmarks", "experiments")
PAGES = sorted(
    [*ROOT.glob("*.md"), *(path for name in FOLDERS for path in (ROOT / name).rglob("*.md"))]
)
FENCE = re.compile(r"^```(\w*)\n(.*?)^```$", re.MULTILINE | re.DOTALL)
FILE_ENDINGS = "bin bpe gz html json jsonl md npy parquet py safetensors toml zst".split()  # noqa: SIM905
FILE_ENDINGS += ["onnx", "onnx_data"]

# What `--set` may name: for each command, and in run.json and `reproduce` by group.
OF_COMMAND: dict[str, Any] = {
    "links": LinksConfig(),
    "crawl": CrawlConfig(),
    "corpus": CorpusConfig(),
    "tokenizer": TokenizerConfig(),
    "pack": PackConfig(),
    "train": ModelAndTraining(model=GPT2Config()),
    "eval": EvalConfig(),
    "sample": SampleConfig(),
    "serve": ServeConfig(),
}
GROUPS: dict[str, dict[str, Any]] = {
    name: to_dict(config)
    for name, config in {
        **{name: OF_COMMAND[name] for name in ("links", "crawl", "corpus", "tokenizer", "pack")},
        "model": GPT2Config(),
        "training": TrainingConfig(),
        "evaluation": EvalConfig(),
        "sampling": SampleConfig(),
        "demo": DemoConfig(),
    }.items()
}
PLAIN = {
    name: value
    for name, value in to_dict(Recipe(name="", size="", **vars(OF_COMMAND["train"]))).items()
    if name not in GROUPS
}


def name_of(path: Path) -> str:
    return str(path.relative_to(ROOT))


def blocks(path: Path, *languages: str) -> list[str]:
    """Fenced blocks of these languages."""
    found = FENCE.findall(path.read_text(encoding="utf-8"))
    return [text for language, text in found if language in languages]


def prose(path: Path) -> str:
    """The page without its fenced blocks."""
    return FENCE.sub("", path.read_text(encoding="utf-8"))


def commands_in(text: str) -> Iterator[list[str]]:
    """The words of every gptwo command in a shell block, up to a pipe, redirection or `;`."""
    for line in text.replace("\\\n", " ").splitlines():
        lexer = shlex.shlex(line.removeprefix("$ "), posix=True, punctuation_chars=True)
        lexer.whitespace_split = True
        part: list[str] = []
        for word in [*lexer, ";"]:
            if set(word) <= set("();<>|&"):
                while part and re.fullmatch(r"\w+=.*", part[0]):  # a variable set for the command
                    part = part[1:]
                if part and part[0].split("/")[-1] == "gptwo":
                    yield part[1:]
                part = []
            else:
                part.append(word)


def fault_of(words: list[str]) -> str:
    """What is wrong with a command line, found without running it; "" when nothing is."""
    if "-" in words:  # stands for stdin; the command line does the same
        words = [*(word for word in words if word != "-"), "--", "-"]
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
        given = dict(bound.arguments)
        settings = given["call"].set if "call" in given else ()
        if words[0] in OF_COMMAND:
            with_settings(OF_COMMAND[words[0]], settings)
        elif words[0] == "reproduce":
            with_settings(recipe(given.get("name", "demo")), settings)
        elif settings and command.__name__ != "help_print":
            return f"gptwo {words[0]} has no settings"
        if given.get("size"):
            model_of_size(given["size"])
        unknown = [task for task in given.get("tasks", ()) if task not in TASKS]
        return f"unknown task {unknown[0]}" if unknown else ""
    except (CycloptsError, GptwoError, ValueError) as error:  # ValueError: out of range
        return str(error)


def setting_exists(name: str) -> bool:
    group, _, rest = name.partition(".")
    if not rest:
        return name in PLAIN or any(name in values for values in GROUPS.values())
    return rest in GROUPS.get(group, ())


def test_the_command_reference_is_current() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "commands.py"))
    current = (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
    assert current == script["page"](), f"docs/commands.md is old; run {script['RENEW']}"


def test_the_command_reference_does_not_depend_on_the_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "commands.py"))
    plain = script["page"]()
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("FORCE_COLOR", "1")
    assert script["page"]() == plain
    assert "\x1b" not in plain and max(map(len, plain.splitlines())) <= 100


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_example_commands_parse(path: Path) -> None:
    for block in blocks(path, "sh", "bash", "console"):
        for words in commands_in(block):
            fault = fault_of(words)
            assert not fault, f"{path.name}: gptwo {shlex.join(words)}: {fault}"


@pytest.mark.parametrize(
    "line",
    [
        "gptwo frobnicate",
        "echo x | .venv/bin/gptwo train tokens --out runs/x  # no tokenizer",
        "A=1 gptwo links a --out b --set links.min_score=3",
        "gptwo reproduce demo --set min_score=3 > log",
        "gptwo reproduce gigantic",
        "gptwo reproduce demo --size gigantic",
        "gptwo eval runs/demo lambda",
        "cd x && gptwo sample runs/demo --top-q 3",
        "gptwo sample runs/demo --set top_q=3",
        "gptwo sample runs/demo --top-p 3",
        "gptwo verify runs/demo --set limit=3",
        "gptwo corpus pages \\\n --out mycorpus --set rules=best",
    ],
)
def test_a_wrong_example_is_noticed(line: str) -> None:
    assert [bool(fault_of(words)) for words in commands_in(line)] == [True]


def test_the_room_pages_have_examples() -> None:
    pages = sorted((ROOT / "docs").glob("[0-9]*.md"))
    assert [path.name[:2] for path in pages] == [f"{n:02d}" for n in range(11)]
    for path in pages:
        assert any(list(commands_in(block)) for block in blocks(path, "sh")), path.name
        assert path.read_text(encoding="utf-8").count("\n") <= 130, f"{path.name} is too long"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_settings_that_are_named_exist(path: Path) -> None:
    text = prose(path)
    named = [
        f"{group}.{rest}"
        for group, rest in re.findall(r"`([a-z]\w*)\.([a-z]\w*)(?:=[^`]*)?`", text)
        if group in GROUPS and rest not in FILE_ENDINGS
    ]
    named += re.findall(r"--set '?([a-z]\w*(?:\.[a-z]\w*)?)=", text)
    unknown = [name for name in named if not setting_exists(name)]
    assert not unknown, f"{path.name} names settings that do not exist: {unknown}"


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_tables_of_settings_give_the_defaults(path: Path) -> None:
    tables = re.findall(r"^\| setting \| default \|.*\n((?:\|.*\n)+)", prose(path), re.MULTILINE)
    rows = re.findall(r"^\| `(.*?)` \| `(.*?)` \| .+ \|$", "".join(tables), re.MULTILINE)
    assert len(rows) == sum(table.count("\n") - 1 for table in tables), "a row of another form"
    for name, default in rows:
        group, _, rest = name.partition(".")
        assert setting_exists(name), f"{path.name}: no setting {name}"
        value = GROUPS[group][rest] if rest else PLAIN[name]
        assert default == json.dumps(value), f"{path.name}: {name} is {value!r} by default"


@pytest.mark.parametrize("room", ["links", "crawl", "tokenizer", "pack", "training", "evaluation"])
def test_no_setting_goes_unmentioned_where_all_are_promised(room: str) -> None:
    text = "".join(prose(path) for path in PAGES)
    left_out = {"crawl": {"retry_seconds", "segment_links"}}.get(room, set())
    assert [s for s in GROUPS[room] if f"`{room}.{s}`" not in text and s not in left_out] == []


@pytest.mark.parametrize("path", PAGES, ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    for target, anchor in re.findall(r"\]\(([^)#\s]*)(?:#([^)\s]*))?\)", prose(path)):
        if re.match(r"[a-z]+:", target):
            continue
        place = path.parent / target if target else path
        assert place.exists(), f"{path.name} links to {target}, which does not exist"
        if anchor:
            headings = re.findall(r"^#+ (.*)$", place.read_text(encoding="utf-8"), re.MULTILINE)
            slugs = [re.sub(r"[^\w\- ]", "", h.lower()).replace(" ", "-") for h in headings]
            assert anchor in slugs, f"{path.name} links to #{anchor}, not a heading of {place.name}"


WORDS = "the a sea ship sailed over quiet blue water while old men told of storms".split()  # noqa: SIM905


def write_corpus(folder: Path) -> None:
    """A corpus of made-up sentences."""
    chance = random.Random(0)
    counts = {"train": 40, "valid": 4, "test": 4}
    with stage(folder, kind="corpus", config={}, inputs={}) as made:
        for split, count in counts.items():
            rows = [
                {"id": f"{split}-{number}", "text": " ".join(chance.choices(WORDS, k=200)) + "."}
                for number in range(count)
            ]
            (folder / split).mkdir()
            pq.write_table(pa.Table.from_pylist(rows), folder / split / "part-00000.parquet")
        made.commit(counts={"documents": counts})


@pytest.fixture
def run_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with `runs/demo` in it: a corpus, its tokens, a model that knows nothing."""
    run = tmp_path / "runs" / "demo"
    write_corpus(run / "corpus")
    text = " ".join(pq.read_table(run / "corpus/train/part-00000.parquet")["text"].to_pylist())
    tokenizer = Tokenizer(learn_merges(Counter(cut(text)), 40))
    tokenizer.save(run)
    tokenizer.save(run / "tokenizer")
    pack(run / "corpus", run / "tokenizer", run / "tokens", PackConfig())
    torch.manual_seed(0)
    shape = replace(SIZES["femto"], vocab_size=tokenizer.vocab_size)
    save_checkpoint_model(GPT2(shape), run)
    monkeypatch.chdir(tmp_path)
    return run


@pytest.mark.usefixtures("run_folder")
def test_python_examples_run(capsys: pytest.CaptureFixture[str]) -> None:
    page = ROOT / "docs" / "python.md"
    names: dict[str, Any] = {"__name__": "__main__"}
    examples = blocks(page, "python")
    for number, example in enumerate(examples):
        exec(compile(example, f"python.md, example {number + 1}", "exec"), names)
    assert len(examples) >= 7
    assert names["checkpoint"].name == "step-00000010"
    assert Path("mycorpus/manifest.json").exists()
    said = capsys.readouterr().out
    assert "nowhere does not exist" in said and said.rstrip().endswith("4")
