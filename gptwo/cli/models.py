"""From tokens to a model, its results, its text and other tools' files."""

from functools import partial
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter

from gptwo.cli.options import PLAIN, TRAINING, Model, Out, TrainOptions, default_data
from gptwo.console import (
    Call,
    ask_line,
    has_only_settings,
    parse_seconds,
    print_result,
    print_scores,
    print_settings,
    print_table,
    read_prompt,
    reporter_for,
)
from gptwo.errors import UsageError
from gptwo.text.config import SampleConfig

SAMPLING = SampleConfig()


def train(
    tokens: tuple[Path, ...],
    /,
    *,
    tokenizer: Path,
    out: Out,
    options: Annotated[TrainOptions, Parameter(name="*")] = TRAINING,
    call: Call = PLAIN,
) -> None:
    """Token shards -> checkpoints; run it again to go on after a stop or a kill.

    Parameters
    ----------
    tokens
        Folders made by `gptwo pack` with one tokenizer; of several, training.mix gives the shares.
    tokenizer
        The tokenizer the tokens were made with.
    """
    from gptwo.config import with_settings
    from gptwo.recipes import ModelAndTraining, model_of_size, training_of

    shape = model_of_size(options.size or "micro")
    training = training_of(options.recipe, shape)
    config = with_settings(ModelAndTraining(model=shape, training=training), call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.text.watch import sampler
    from gptwo.training.begin import Asked, begin
    from gptwo.training.checkpoints.checkpoint import best
    from gptwo.training.run import Sitting
    from gptwo.training.trackers import Trackers
    from gptwo.world import here

    if not tokens:
        raise UsageError("no token folder is named", remedy="make one with gptwo pack")
    trackers = Trackers(options.track)
    sitting = Sitting(
        accept_changes=options.accept_change,
        drop_damaged=options.drop_damaged,
        at_validation=sampler(tokenizer, out, tell=trackers.text),
        trackers=trackers,
    )
    seconds = parse_seconds(options.budget)
    asked = Asked(size=options.size, seconds=seconds, tune=options.tune, settings=call.set)
    checkpoint = begin(
        config.training,
        config.model,
        asked,
        tokens=tokens,
        tokenizer=tokenizer,
        out=out,
        sitting=sitting,
        reporter=reporter_for(call),
    )
    if here().is_first:
        kept = best(checkpoint.parent)
        print_result({"checkpoint": str(checkpoint), "best": str(kept) if kept else None}, call)


def evaluate(
    model: Model,
    tasks: tuple[str, ...] = (),
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    data: Path | None = None,
    corpus: Path | None = None,
    download: bool = False,
    compare: Literal["paper"] | None = None,
    call: Call = PLAIN,
) -> None:
    """The paper's zero-shot tasks and the built-in ones, with intervals and baselines.

    Parameters
    ----------
    tasks
        lambada, cbt-cn, cbt-ne, wikitext2, wikitext103, ptb, enwik8, text8, 1bw, wsc273, coqa,
        cnn-dailymail, wmt14-en-fr, wmt14-fr-en, nq, hellaswag (need --data); cloze, lastword,
        heldout, translate, summarise, answer (need a corpus).
        Without any: cloze, lastword, heldout, and lambada, wikitext2, ptb, wsc273, where the data
        is there.
    out
        Where results go. Default: MODEL/scores; for a released name runs/NAME/scores.
    data
        Folder with evaluation sets under eval/. Default: $GPTWO_DATA.
    corpus
        Corpus whose held-out split makes the built-in tasks. Default: the run's own.
    download
        First fetch into --data what the tasks lack and anyone may download, by pinned hash.
    compare
        paper: a row for each number of the paper, and its tasks where none is named.
    """
    from gptwo.config import with_settings
    from gptwo.zeroshot.config import EvalConfig

    config = with_settings(EvalConfig(), call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.language_model import load
    from gptwo.web.evaluation import fetch_evaluation_sets
    from gptwo.zeroshot.compare import beside_the_paper, table
    from gptwo.zeroshot.run import evaluate as run

    reporter = reporter_for(call)
    data = data or default_data()
    corpus = corpus or (model / "corpus" if (model / "corpus").exists() else None)
    out = out or (model if model.exists() else Path("runs") / model) / "scores"
    wanted = tasks or _wanted(data, corpus, compare)
    if download:
        fetch_evaluation_sets(wanted, data, reporter)
    loaded = load(model, reporter=reporter)
    places = {"out": out, "data": data, "corpus": corpus}
    work = partial(run, loaded, list(wanted), **places, config=config, reporter=reporter)
    if not compare:
        return print_scores(work(), call)
    found = beside_the_paper(loaded, work, out, some_missing=not tasks)
    print_table(table(found), found, call)


def _wanted(data: Path | None, corpus: Path | None, compare: str | None) -> tuple[str, ...]:
    """The tasks of `gptwo eval` where none is named."""
    from gptwo.recipes import BUILT_IN_TASKS, PAPER_TASKS
    from gptwo.zeroshot.compare import tasks_of_the_paper

    if compare:
        return tuple(tasks_of_the_paper())
    wanted = (BUILT_IN_TASKS if corpus else ()) + (PAPER_TASKS if data else ())
    if not wanted:
        raise UsageError("no task has its data", remedy="give --data DIR or --corpus DIR")
    return wanted


def sample(
    model: Model,
    prompt: str = "",
    /,
    *,
    n: int = 1,
    stream: Annotated[bool, Parameter(negative="--no-stream")] = True,
    interactive: bool = False,
    config: Annotated[SampleConfig, Parameter(name="*")] = SAMPLING,
    call: Call = PLAIN,
) -> None:
    """Text from a model, streamed.

    Parameters
    ----------
    prompt
        Text to continue; "-" reads it from stdin, less one line end; empty starts a document.
    n
        How many continuations, made together.
    stream
        Print a single continuation as it comes, or whole.
    interactive
        Ask for prompts, a line each; Ctrl-C stops the text and Ctrl-D ends.
    """
    from gptwo.config import with_settings

    config = with_settings(config, call.set)
    if call.dry_run:
        return print_settings(config)
    if interactive and (prompt or call.json or n != 1):
        raise UsageError(
            "--interactive asks for its prompts and prints one text for each",
            remedy="leave out the prompt, --json and --n",
        )
    from gptwo.language_model import load
    from gptwo.text.samples import converse, print_samples

    text = read_prompt(prompt)
    reporter = reporter_for(call)
    loaded = load(model, reporter=reporter)
    if interactive:
        ask = partial(ask_line, "> ", reporter)
        return converse(loaded.model, loaded.tokenizer, config, ask=ask, reporter=reporter)
    print_samples(
        loaded.model,
        loaded.tokenizer,
        text,
        config,
        n=n,
        as_json=call.json,
        streamed=stream,
        reporter=reporter,
    )


def report(
    runs: tuple[Path, ...],
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    call: Call = PLAIN,
) -> None:
    """One self-contained HTML page about a run, or about several: trainings, scores, the paper's.

    Parameters
    ----------
    runs
        Run folders: one for all that is known of it, several for their curves and scores side by
        side, each compared with the first on the same examples.
    out
        The page; RUN/report.html, or LAST/compare.html of several, when not given.
    """
    if has_only_settings(call):
        return
    from gptwo.report.compare import compare
    from gptwo.report.page import write_comparison, write_report
    from gptwo.report.paired import lines_of

    if not runs:
        raise UsageError("no run is named", remedy="name a run folder, or several")
    reporter = reporter_for(call)
    if len(runs) == 1:
        return print_result({"report": str(write_report(runs[0], out, reporter))}, call)
    found = compare(runs)
    reporter.check()
    page = write_comparison(found, out or runs[-1] / "compare.html", reporter)
    text = f"report  {page}\n{lines_of(found.pairs)}"
    print_table(text, {"report": str(page), "pairs": found.pairs}, call)


def convert(
    source: Path,
    out: Path,
    /,
    *,
    to: str,
    dtype: str = "f32",
    tokenizer: Path | None = None,
    call: Call = PLAIN,
) -> None:
    """Weights and token shards from and to the files of other tools.

    Reads Hugging Face folders (safetensors, pytorch_model.bin), nanoGPT's ckpt.pt, llm.c's .bin,
    OpenAI's TensorFlow checkpoints and minGPT's JSON; pickles in a child process that runs no code.

    Parameters
    ----------
    source
        A model in any of these formats, or a folder made by `gptwo pack`.
    out
        What to make.
    to
        hf, nanogpt, llmc, gguf or onnx; token shards: nanogpt or llmc.
    dtype
        How numbers are stored: f32, f16, bf16 or q8_0, where the format has it.
    tokenizer
        Folder with the vocabulary of a model that comes without one.
    """
    if has_only_settings(call):
        return
    from gptwo.artifacts import MANIFEST, read_manifest

    reporter = reporter_for(call)
    if (source / MANIFEST).exists() and read_manifest(source).kind == "tokens":
        from gptwo.tokens.bins import export_bins

        return print_result(export_bins(source, out, to, reporter), call)
    from gptwo.formats.convert import convert as run
    from gptwo.language_model import find_model

    found = find_model(source, reporter)
    done = run(found, out, to=to, dtype=dtype, tokenizer=tokenizer, reporter=reporter)
    print_result(done, call)


def verify(model: Model, /, *, data: Path | None = None, call: Call = PLAIN) -> None:
    """Check a run or a model: every file's SHA-256, shapes, numbers, and golden outputs.

    Golden outputs are compared where there are some for this vocabulary and shape.

    Parameters
    ----------
    data
        Folder with gpt2_golden/. Default: $GPTWO_DATA.
    """
    if has_only_settings(call):
        return
    from gptwo.verify import verify as check

    reporter = reporter_for(call)
    print_result(check(model, data=data or default_data(), reporter=reporter), call)


def doctor(*, call: Call = PLAIN) -> None:
    """This machine, versions, model sizes, extras and what a missing one would enable."""
    if has_only_settings(call):
        return
    from gptwo.doctor import examine

    print_result(examine(), call)
