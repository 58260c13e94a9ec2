"""Every command: what it makes, what it says, and that it survives bad input."""

import gzip
import inspect
import io
import json
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
import tiny_arrow
from fault_runs import MODULE, TRAIN, Caller, Made, cut, end, flip, stamps, start, tiny_run

from gptwo.cli import app
from gptwo.progress import Reporter

PROSE = "The ships sailed at dawn, and the men on the shore watched them go over the quiet sea. "
HAPPY = {
    "reproduce": "{reproduce}",
    "links": "links {run}/demoweb/links.jsonl --out {out}",
    "crawl": "crawl {links} --out {out} --set allow_private=true --set host_delay_seconds=0",
    "corpus": "corpus {texts} --out {out} --workers 1 --set rules=none",
    "tokenizer": "tokenizer {run}/corpus --out {out} --set vocab_size=300",
    "pack": "pack {run}/corpus --tokenizer {run}/tokenizer --out {out}",
    "train": TRAIN + "--set training.steps=1",
    "eval": "eval {run} cloze heldout --out {out} --set documents=2 --set resamples=5",
    "overlap": "overlap {run} --out {out} --set documents=2",
    "sample": "sample {run} The --max-tokens 3",
    "report": "report {run} --out {out}/page.html",
    "verify": "verify {run}",
    "doctor": "doctor",
}
MAKERS = ("links", "crawl", "corpus", "tokenizer", "pack", "train", "eval", "overlap")


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Made:
    return tiny_run(tmp_path_factory)


@pytest.fixture
def call(capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Caller:
    monkeypatch.setattr(Reporter, "listen", lambda self: None)  # the test runner keeps its Ctrl-C
    monkeypatch.delenv("GPTWO_DATA", raising=False)
    return Caller(capfd)


class OnePage(BaseHTTPRequestHandler):
    """Answers every address with the same page; there is no robots.txt."""

    def do_GET(self) -> None:
        page = f"<html><body><p>{PROSE * 10}</p></body></html>".encode()
        self.send_response(404 if self.path == "/robots.txt" else 200)
        self.send_header("Content-Type", "text/html")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def links(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """A links folder that leads to a server of ours."""
    folder = tmp_path_factory.mktemp("links")
    server = ThreadingHTTPServer(("127.0.0.1", 0), OnePage)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    urls = [f"http://127.0.0.1:{server.server_port}/page-{n}" for n in range(2)]
    (folder / "urls.txt").write_text("\n".join(urls))
    words = ["links", str(folder / "urls.txt"), "--out", str(folder / "links"), "--quiet"]
    assert tiny_arrow.main(words) == 0
    yield folder / "links"
    server.shutdown()
    server.server_close()


@pytest.fixture(scope="module")
def bad(made: Made, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Inputs by name: good ones, none, and damaged ones."""
    folder = tmp_path_factory.mktemp("inputs")
    run = made.run
    found = {"run": run, "none": folder / "none", "void": folder / "void"}
    found["void"].mkdir()
    texts = [json.dumps({"text": f"{n}. {PROSE * (n + 2)}"}).encode() for n in range(8)]
    files = {
        "texts": b"\n".join(texts),
        "empty": b"",
        "page": b"<!doctype html><html><body>404 Not found</body></html>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 9\n",
        "picture": b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR" + bytes(range(256)),
        "zeros": bytes(100),
        "array": b'[{"text": "one"}]',
        "cutgz": gzip.compress(b"\n".join(texts))[:6],
    }
    for name, content in files.items():
        found[name] = folder / name
        found[name].write_bytes(content)

    def damaged(part: str, name: str, how: str) -> None:
        key = f"{how}-{Path(part).name}"
        target = Path(shutil.copytree(run / part, folder / key))
        {"cut": cut, "flip": flip, "lost": Path.unlink}[how](target / name)
        found[key.replace("-", "_")] = target

    damaged("links", "links.parquet", "cut")
    damaged("corpus", "train/part-00000.parquet", "cut")
    damaged("corpus", "train/part-00000.parquet", "lost")
    damaged("tokenizer", "vocab.bpe", "cut")
    damaged("tokens", "train-00000.bin", "cut")
    damaged("tokens", "train-00000.bin", "lost")
    damaged("checkpoints/step-00000006", "model.safetensors", "cut")
    damaged("samples", "samples.jsonl", "cut")
    found["cut_model"] = found.pop("cut_step_00000006")
    found["foreign"] = folder / "foreign"
    shutil.copytree(run / "tokenizer", found["foreign"])
    (found["foreign"] / "manifest.json").unlink()
    shutil.copy(found["page"], found["foreign"] / "vocab.bpe")
    return found


def spelt(template: str, places: dict[str, Path], **more: Path) -> list[str]:
    places = {**places, **more}
    if template == "{reproduce}":
        return [w for w in tiny_arrow.arguments(places["run"]) if w not in ("--json", "--quiet")]
    return [word.format(**places) for word in template.split()]


def test_quiet_says_nothing_from_web_to_report(made: Made) -> None:
    assert made.err == ""
    assert set(json.loads(made.out)["stages"].values()) == {"made"}


@pytest.mark.parametrize("name", HAPPY)
def test_the_result_is_one_object_and_a_second_run_does_nothing(
    name: str, bad: dict[str, Path], links: Path, tmp_path: Path, call: Caller
) -> None:
    out = tmp_path / "out"
    words = spelt(HAPPY[name], bad, out=out, links=links)
    told = call(*words, "--json")
    assert told.code == 0, told.err
    assert isinstance(told.result, dict) and told.out.count("\n") == 1
    assert "{" not in told.err and (told.err == "") == (name in ("reproduce", "verify", "doctor"))
    assert out.exists() == (name in (*MAKERS, "report"))
    before = stamps(out) if name in MAKERS else {}
    again = call(*words, "--json", "--quiet")
    assert again.code == 0 and again.err == ""
    if name != "reproduce":  # it says what was done: this time nothing
        assert again.result == told.result
    changed = [path for path, stamp in before.items() if path.stat().st_mtime_ns != stamp]
    assert changed in ([], [out])  # the lock came and went


@pytest.mark.parametrize("name", HAPPY)
def test_a_dry_run_prints_the_settings_and_makes_nothing(
    name: str, bad: dict[str, Path], links: Path, tmp_path: Path, call: Caller
) -> None:
    words = spelt(HAPPY[name], bad, out=tmp_path / "out", links=links)
    before = stamps(bad["run"])
    told = call(*words, "--dry-run")
    assert told.code == 0 and told.err == "" and isinstance(told.result, dict)
    assert bool(told.result) == (name not in ("report", "verify", "doctor"))
    assert not (tmp_path / "out").exists() and stamps(bad["run"]) == before


BAD = [
    ("reproduce trial", 2, "'trial'", "demo, laptop"),
    ("reproduce laptop {none} --out {out}", 3, "{none} does not exist"),
    ("reproduce laptop {empty} --out {out}", 3, "{empty} is empty"),
    ("reproduce laptop --links {empty} --out {out}", 3, "{empty} is empty"),
    ("reproduce laptop {texts} --out {out} --budget soon", 2, "'soon' is not a time"),
    ("reproduce laptop {texts} --out {out} --size huge", 2, "'huge'", "micro"),
    ("links {none} --out {out}", 3, "{none} does not exist"),
    ("links {empty} --out {out}", 3, "{empty} is empty"),
    ("links {page} --out {out}", 3, "{page} is a web page"),
    ("links {zeros} --out {out}", 3, "{zeros} is no text"),
    ("links {pointer} --out {out}", 3, "{pointer} is a git lfs pointer"),
    ("links {void} --out {out}", 3, "{void}"),
    ("crawl {none} --out {out}", 3, "{none} does not exist"),
    ("crawl {texts} --out {out}", 3, "{texts}"),
    ("crawl {run}/corpus --out {out}", 3, "{run}/corpus holds corpus, expected links"),
    ("crawl {cut_links} --out {out}", 3, "{cut_links}/links.parquet has", "bytes, not"),
    ("corpus {none} --out {out}", 3, "{none} does not exist"),
    ("corpus {empty} --out {out}", 3, "{empty} is empty"),
    ("corpus {void} --out {out}", 3, "{void} is an empty folder"),
    ("corpus {picture} --out {out}", 3, "{picture} is of no kind we can read"),
    ("corpus {pointer} --out {out}", 3, "{pointer} is a git lfs pointer"),
    ("corpus {array} --out {out}", 3, "{array} is one json value"),
    ("corpus {cutgz} --out {out}", 3, "{cutgz} cannot be decompressed"),
    ("tokenizer {none} --out {out}", 3, "{none} does not exist"),
    ("tokenizer {void} --out {out}", 3, "{void} has no manifest.json"),
    ("tokenizer {run}/tokens --out {out}", 3, "{run}/tokens holds tokens, expected corpus"),
    ("tokenizer {cut_corpus} --out {out}", 3, "part-00000.parquet has", "bytes, not"),
    ("tokenizer {cut_tokenizer} --out {out}", 4, "{cut_tokenizer}/vocab.bpe has"),
    ("tokenizer {foreign} --out {out}", 4, "{foreign}/vocab.bpe is a web page"),
    ("pack {none} --tokenizer {run}/tokenizer --out {out}", 3, "{none} does not exist"),
    ("pack {run}/corpus --tokenizer {none} --out {out}", 4, "{none}"),
    ("pack {run}/tokens --tokenizer {run}/tokenizer --out {out}", 3, "expected corpus"),
    ("pack {run}/corpus --tokenizer {cut_tokenizer} --out {out}", 4, "vocab.bpe has"),
    ("pack {lost_corpus} --tokenizer {run}/tokenizer --out {out}", 3, "parquet is missing"),
    ("train {none} --tokenizer {run}/tokenizer --out {out}", 3, "{none} does not exist"),
    ("train {run}/tokens --tokenizer {none} --out {out}", 4, "{none}"),
    ("train {run}/corpus --tokenizer {run}/tokenizer --out {out}", 3, "expected tokens"),
    ("train {cut_tokens} --tokenizer {run}/tokenizer --out {out}", 3, "train-00000.bin has"),
    ("train {lost_tokens} --tokenizer {run}/tokenizer --out {out}", 3, "bin is missing"),
    ("train {run}/tokens --tokenizer {run}/tokenizer --out {out} --size big", 2, "'big'"),
    ("eval {none} cloze --out {out}", 4, "{none} does not exist"),
    ("eval {void} cloze --out {out}", 4, "{void} holds neither"),
    ("eval {page} cloze --out {out}", 4, "{page} is a web page"),
    ("eval {cut_model} cloze --out {out}", 4, "{cut_model}/model.safetensors has"),
    ("eval {run} cloce --out {out}", 2, "'cloce'", "'cloze'"),
    ("eval {run} cloze --out {out} --corpus {none}", 3, "{none} does not exist"),
    ("eval {run} lambada --out {out}", 3, "no data folder"),
    ("eval {run} lambada --out {out} --data {void}", 3, "{void}/eval/lambada"),
    ("sample {none}", 4, "{none} does not exist"),
    ("sample {void}", 4, "{void} holds neither"),
    ("sample {empty}", 4, "{empty} is an empty file"),
    ("sample {cut_model}", 4, "{cut_model}/model.safetensors has"),
    ("sample {run} --n 0", 2, "n must be at least 1"),
    ("sample {run} --temperature hot", 2, "--temperature", "hot"),
    ("sample {run} --top-p 7", 2, "top_p must be", "7.0"),
    ("report {none}", 3, "{none} does not exist"),
    ("report {page}", 3, "{page} is a file"),
    ("report {void}", 3, "{void} is not a run folder"),
    ("report {run} --out {void}", 2, "{void} is a folder"),
    ("report {run} --out {page}/page.html", 2, "{page} is a file"),
    ("verify {none}", 4, "{none}"),
    ("verify {void}", 3, "{void} holds no manifest.json"),
    ("verify {page}", 3, "{page}"),
    ("verify {cut_samples}", 3, "{cut_samples}/samples.jsonl has"),
    ("verify", 2, "argument"),
    ("trian", 2, '"train"'),
]


@pytest.mark.parametrize("template, code, texts", [(t, c, x) for t, c, *x in BAD], ids=str)
def test_bad_input_is_named_in_two_lines(
    template: str, code: int, texts: list[str], bad: dict[str, Path], tmp_path: Path, call: Caller
) -> None:
    before = stamps(bad["run"])
    told = call(*spelt(template, bad, out=tmp_path / "out"), "--quiet")
    told.is_error(code, *(text.format(**bad) for text in texts))
    assert told.out == "" and told.err.count("\n") == 2
    if not template.startswith("reproduce"):  # its run.json says what failed
        assert not (tmp_path / "out").exists()
    assert {p: s for p, s in stamps(bad["run"]).items() if p != bad["run"]} == {
        p: s for p, s in before.items() if p != bad["run"]
    }


SETTINGS = {
    "reproduce": ("trainning.lr", "training.lr"),
    "links": ("min_scor", "min_score"),
    "crawl": ("retires", "retries"),
    "corpus": ("langage", "language"),
    "tokenizer": ("vocabsize", "vocab_size"),
    "pack": ("shard_token", "shard_tokens"),
    "train": ("training.sede", "training.seed"),
    "eval": ("question", "questions"),
    "overlap": ("document", "documents"),
    "sample": ("topk", "top_k"),
    "report": ("title", "no settings"),
    "verify": ("deep", "no settings"),
    "doctor": ("deep", "no settings"),
}


@pytest.mark.parametrize("name", HAPPY)
def test_unknown_options_and_settings_name_the_nearest(
    name: str, bad: dict[str, Path], links: Path, tmp_path: Path, call: Caller
) -> None:
    words = spelt(HAPPY[name], bad, out=tmp_path / "out", links=links)
    call(*words, "--debugg").is_error(2, "--debugg", "--debug?", "see gptwo")
    key, nearest = SETTINGS[name]
    call(*words, "--set", f"{key}=1").is_error(2, repr(key), nearest)
    call(*words, "--set", "nonsense").is_error(2, "nonsense")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", MAKERS)
def test_a_folder_of_other_things_is_refused_and_untouched(
    name: str, bad: dict[str, Path], links: Path, tmp_path: Path, call: Caller
) -> None:
    mine = {"thesis.txt": b"years of work", "notes.tmp-1": b"mine too"}
    folder = tmp_path / "mine"
    folder.mkdir()
    for file, content in mine.items():
        (folder / file).write_bytes(content)
    call(*spelt(HAPPY[name], bad, out=folder, links=links)).is_error(2, str(folder), "--out")
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == mine
    file = folder / "thesis.txt"
    call(*spelt(HAPPY[name], bad, out=file, links=links)).is_error(2, f"{file} is a file")
    call(*spelt(HAPPY[name], bad, out=file / "x", links=links)).is_error(2, f"{file} is a file")
    assert file.read_bytes() == mine["thesis.txt"]


@pytest.mark.parametrize("name", ("links", "corpus", "tokenizer", "pack"))
def test_a_folder_of_other_settings_is_refused_and_untouched(
    name: str, bad: dict[str, Path], tmp_path: Path, call: Caller
) -> None:
    folder = Path(shutil.copytree(bad["run"] / {"pack": "tokens"}.get(name, name), tmp_path / "o"))
    before = stamps(folder)
    setting = {"links": "min_score=5", "corpus": "language=de", "pack": "shard_tokens=5"}
    told = call(*spelt(HAPPY[name], bad, out=folder), "--set", setting.get(name, "vocab_size=400"))
    told.is_error(2, f"{folder} exists, made from something else", "--out")
    assert {p: s for p, s in stamps(folder).items() if p != folder} == {
        p: s for p, s in before.items() if p != folder
    }


def test_errors_for_machines_and_for_the_curious(bad: dict[str, Path], call: Caller) -> None:
    told = call("verify", bad["none"], "--json")
    told.is_error(4)
    assert told.result["exit_code"] == 4 and told.result["remedy"]
    assert told.result["error"] in told.err
    told = call("verify", bad["none"], "--debug")
    assert told.code == 4 and "Traceback" in told.err and "language_model.py" in told.err


@pytest.mark.parametrize("name", HAPPY)
def test_help_mentions_every_argument(name: str, call: Caller) -> None:
    told = call(name, "--help")
    assert told.code == 0 and told.err == ""
    for parameter in inspect.signature(app[name].default_command).parameters.values():
        positional = parameter.kind == parameter.POSITIONAL_ONLY
        if parameter.name not in ("call", "config", "options"):
            dashed = parameter.name.replace("_", "-")
            assert (dashed.upper() if positional else f"--{dashed}") in told.out
    for option in ("--set", "--json", "--quiet", "--debug", "--dry-run"):
        assert option in told.out


def test_a_prompt_comes_from_stdin(
    bad: dict[str, Path], call: Caller, monkeypatch: pytest.MonkeyPatch
) -> None:
    for given, read in (
        (b"The sea", "The sea"),
        (b"a\xff\0b", "a\ufffd\0b"),
        (b"by echo\n\n", "by echo\n"),
    ):
        monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(given)))
        told = call("sample", bad["run"], "-", "--max-tokens", "2", "--json", "--quiet")
        assert told.code == 0 and told.result["prompt"] == read
    call("sample", bad["run"], "word " * 500).is_error(2, "the prompt has", "shorten")


@pytest.mark.slow
def test_a_reader_that_leaves_ends_the_command_quietly(bad: dict[str, Path]) -> None:
    for words in (["verify", str(bad["run"])], ["sample", str(bad["run"]), "--n", "50"]):
        process = start([*words, "--quiet"])
        assert process.stdout
        process.stdout.read(1)
        process.stdout.close()
        process.stdout = None
        told = end(process)
        assert (told.code, told.err) == (0, "")


def test_a_full_disk_under_stdout(bad: dict[str, Path]) -> None:
    with Path("/dev/full").open("w") as full:
        ran = subprocess.run(
            [*MODULE, "verify", str(bad["run"])], stdout=full, stderr=subprocess.PIPE, text=True
        )
    assert ran.returncode == 5 and ran.stderr.startswith("error: cannot write: No space left")
    assert ran.stderr.count("\n") == 2
