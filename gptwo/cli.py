"""The commands, in arrow order. Each parses, calls one function and prints one result."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated, Any

from cyclopts import App, Parameter

from gptwo import __version__
from gptwo.console import (
    Call,
    answer,
    has_only_settings,
    make_stage,
    parse_seconds,
    print_result,
    print_scores,
    print_settings,
    read_prompt,
    reporter_for,
)
from gptwo.errors import UsageError
from gptwo.progress import Reporter
from gptwo.text.config import SampleConfig

app = App(
    name="gptwo",
    version=__version__,
    version_flags=["--version"],
    help="GPT-2 as one system: "
    "web -> corpus -> tokens -> model -> training -> zeroshot -> text.\n\n"
    "`gptwo reproduce demo` runs all of it in minutes on two CPU cores.",
    help_format="markdown",
    default_parameter=Parameter(negative=""),
    suppress_keyboard_interrupt=False,
    sort_key=None,
)


Out = Annotated[Path, Parameter(name=["--out", "-o"], help="Folder to make.")]
Model = Annotated[
    Path, Parameter(help="A run folder, a checkpoint folder or a Hugging Face GPT-2 folder.")
]
PLAIN = Call()
SAMPLING = SampleConfig()


@app.command(sort_key=1)
def reproduce(
    name: str = "demo",
    sources: tuple[Path, ...] = (),
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    links: tuple[Path, ...] = (),
    data: Path | None = None,
    size: str = "",
    budget: str = "",
    call: Call = PLAIN,
) -> None:
    """The whole arrow into one run folder: from a web or your texts to results and a report.

    Stages already done for the same settings and inputs are kept, interrupted ones go on, and a
    changed setting remakes exactly what depends on it.

    Parameters
    ----------
    name
        The recipe: demo, laptop, small, medium, large or xl.
    sources
        Pages and texts to learn from: WARC, folders or tars of HTML, JSONL, Parquet, text.
    out
        The run folder; runs/RECIPE when not given.
    links
        Reddit dumps or URL lists to crawl.
    data
        Folder with evaluation sets under eval/; adds the paper's tasks. Default: $GPTWO_DATA
        for every recipe but demo.
    size
        Model size, the one dial: see `gptwo doctor` for the list.
    budget
        Time for training, such as 10m or 2h: measures this machine and chooses size and tokens;
        --size and settings of model and training that you name are kept.
    """
    from gptwo.arrow import reproduce as run
    from gptwo.recipes import Budget, assemble

    recipe = assemble(name, sources, links, data or _default_data(name), size, call.set)
    if call.dry_run:
        return print_settings(recipe)
    folder = out or Path("runs") / name
    seconds, own = parse_seconds(budget), ("model.", "training.")
    kept = tuple(setting for setting in call.set if setting.startswith(own))
    limit = Budget(seconds=seconds, size=size, settings=kept) if seconds else None
    done = run(recipe, folder, budget=limit, reporter=reporter_for(call))
    print_result(done, call)


@app.command(sort_key=2)
def links(files: tuple[Path, ...], /, *, out: Out, call: Call = PLAIN) -> None:
    """Reddit dumps and URL lists -> scored, canonical, de-duplicated links (score >= 3).

    Parameters
    ----------
    files
        JSONL (plain, .gz, .xz, .zst), CSV or one URL per line.
    """
    from gptwo.web.config import LinksConfig
    from gptwo.web.links import collect_links

    make_stage(LinksConfig(), call, lambda *given: collect_links(list(files), out, *given))


@app.command(sort_key=3)
def crawl(links: Path, /, *, out: Out, call: Call = PLAIN) -> None:
    """Links -> WARC files, politely and resumably.

    Parameters
    ----------
    links
        A folder made by `gptwo links`.
    """
    from gptwo.web.config import CrawlConfig
    from gptwo.web.crawl import crawl as run

    make_stage(CrawlConfig(), call, lambda *given: run(links, out, *given))


@app.command(sort_key=4)
def corpus(
    sources: tuple[Path, ...],
    /,
    *,
    out: Out,
    workers: int = 0,
    call: Call = PLAIN,
) -> None:
    """Pages and texts -> clean, de-duplicated, split documents, with a reason for every drop.

    Parameters
    ----------
    sources
        A folder made by `gptwo crawl`, WARC files, folders or tars of HTML, JSONL, Parquet, text.
    workers
        Processes; 0 for one per core. The result does not depend on it.
    """
    from gptwo.corpus.build import build_corpus
    from gptwo.corpus.config import CorpusConfig

    make_stage(
        CorpusConfig(),
        call,
        lambda config, reporter: build_corpus(
            list(sources), out, config, workers=workers, reporter=reporter
        ),
    )


@app.command(sort_key=5)
def tokenizer(source: Path, /, *, out: Out, call: Call = PLAIN) -> None:
    """Learn byte-level BPE from a corpus, or take over existing GPT-2 files.

    Parameters
    ----------
    source
        A corpus folder to learn from, or a folder with encoder.json and vocab.bpe.
    """
    from gptwo.tokens.config import TokenizerConfig
    from gptwo.tokens.learn import import_tokenizer, train_tokenizer

    def make(config: TokenizerConfig, reporter: Reporter) -> Any:
        if (source / "vocab.bpe").exists():
            return import_tokenizer(source, out, reporter)
        return train_tokenizer(source, out, config, reporter)

    make_stage(TokenizerConfig(), call, make)


@app.command(sort_key=6)
def pack(
    corpus: Path,
    /,
    *,
    tokenizer: Path,
    out: Out,
    call: Call = PLAIN,
) -> None:
    """Documents -> memory-mapped token shards.

    Parameters
    ----------
    corpus
        A folder made by `gptwo corpus`.
    tokenizer
        A folder made by `gptwo tokenizer`.
    """
    from gptwo.tokens.config import PackConfig
    from gptwo.tokens.pack import pack as run

    make_stage(PackConfig(), call, lambda *given: run(corpus, tokenizer, out, *given))


@app.command(sort_key=7)
def train(
    tokens: Path,
    /,
    *,
    tokenizer: Path,
    out: Out,
    size: str = "micro",
    accept_change: tuple[str, ...] = (),
    call: Call = PLAIN,
) -> None:
    """Token shards -> checkpoints; run it again to go on after a stop or a kill.

    Parameters
    ----------
    tokens
        A folder made by `gptwo pack`.
    tokenizer
        The tokenizer the tokens were made with.
    size
        Model size; see `gptwo doctor`.
    accept_change
        A setting that may differ from the interrupted run's, by name.
    """
    from gptwo.config import with_settings
    from gptwo.recipes import ModelAndTraining, model_of_size

    config = with_settings(ModelAndTraining(model=model_of_size(size)), call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.training.loop import train as run

    checkpoint = run(
        config.training,
        config.model,
        tokens=tokens,
        tokenizer=tokenizer,
        out=out,
        accept_changes=accept_change,
        reporter=reporter_for(call),
    )
    print_result({"checkpoint": str(checkpoint)}, call)


@app.command(name="eval", sort_key=8)
def evaluate(
    model: Model,
    tasks: tuple[str, ...] = (),
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    data: Path | None = None,
    corpus: Path | None = None,
    call: Call = PLAIN,
) -> None:
    """The paper's zero-shot tasks and the built-in ones, with intervals and baselines.

    Parameters
    ----------
    tasks
        lambada, wikitext2, ptb, wsc273 (need --data); cloze, lastword, heldout (need a corpus).
        Without any: all whose data is there.
    out
        Where results and sample logs go; MODEL/scores when not given.
    data
        Folder with evaluation sets under eval/. Default: $GPTWO_DATA.
    corpus
        Corpus whose held-out split makes the built-in tasks. Default: the run's own.
    """
    from gptwo.config import with_settings
    from gptwo.zeroshot.config import EvalConfig

    config = with_settings(EvalConfig(), call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.language_model import load
    from gptwo.recipes import BUILT_IN_TASKS, PAPER_TASKS
    from gptwo.zeroshot.run import evaluate as run

    loaded, reporter = load(model), reporter_for(call)
    data = data or _default_data()
    corpus = corpus or (model / "corpus" if (model / "corpus").exists() else None)
    wanted = tasks or (BUILT_IN_TASKS if corpus else ()) + (PAPER_TASKS if data else ())
    if not wanted:
        raise UsageError("no task has its data", remedy="give --data DIR or --corpus DIR")
    results = run(
        loaded,
        list(wanted),
        out=out or model / "scores",
        data=data,
        corpus=corpus,
        config=config,
        reporter=reporter,
    )
    print_scores(results, call)


@app.command(sort_key=9)
def sample(
    model: Model,
    prompt: str = "",
    /,
    *,
    n: int = 1,
    config: Annotated[SampleConfig, Parameter(name="*")] = SAMPLING,
    call: Call = PLAIN,
) -> None:
    """Text from a model, streamed.

    Parameters
    ----------
    prompt
        Text to continue; "-" reads it from stdin, less one line end; empty starts a document.
    n
        How many continuations.
    """
    from gptwo.config import with_settings

    config = with_settings(config, call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.language_model import load
    from gptwo.text.generate import print_samples

    text = read_prompt(prompt)
    loaded, reporter = load(model), reporter_for(call)
    print_samples(
        loaded.model, loaded.tokenizer, text, config, n=n, as_json=call.json, reporter=reporter
    )


@app.command(sort_key=10)
def report(
    run: Path,
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    call: Call = PLAIN,
) -> None:
    """One self-contained HTML page about a run.

    Parameters
    ----------
    run
        A run folder.
    out
        The page; RUN/report.html when not given.
    """
    if has_only_settings(call):
        return
    from gptwo.report.page import write_report

    print_result({"report": str(write_report(run, out, reporter_for(call)))}, call)


@app.command(sort_key=11)
def verify(folder: Path, /, *, call: Call = PLAIN) -> None:
    """Check every file of a run or a model folder against its SHA-256.

    Parameters
    ----------
    folder
        A run folder or any folder with a manifest.json.
    """
    if has_only_settings(call):
        return
    from gptwo.artifacts import verify as check

    print_result(check(folder), call)


@app.command(sort_key=12)
def doctor(*, call: Call = PLAIN) -> None:
    """This machine, versions, model sizes, extras and what a missing one would enable."""
    if has_only_settings(call):
        return
    from gptwo.doctor import examine

    print_result(examine(), call)


def _default_data(recipe: str = "") -> Path | None:
    folder = os.environ.get("GPTWO_DATA", "")
    return Path(folder) if folder and recipe != "demo" else None


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; every failure becomes two lines on stderr and an exit code."""
    if arguments is None:  # a process of its own
        Reporter.listen_early()
    return answer(app, list(sys.argv[1:] if arguments is None else arguments))


if __name__ == "__main__":
    sys.exit(main())
