"""From links to tokens, and the whole arrow."""

from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Parameter

from gptwo.cli.options import PLAIN, Out, default_data
from gptwo.console import (
    Call,
    make_stage,
    parse_seconds,
    print_result,
    print_settings,
    reporter_for,
)
from gptwo.errors import UsageError
from gptwo.progress import Reporter


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

    recipe = assemble(name, sources, links, data or default_data(name), size, call.set)
    if call.dry_run:
        return print_settings(recipe)
    folder = out or Path("runs") / name
    seconds, own = parse_seconds(budget), ("model.", "training.")
    kept = tuple(setting for setting in call.set if setting.startswith(own))
    limit = Budget(seconds=seconds, size=size, settings=kept) if seconds else None
    done = run(recipe, folder, budget=limit, reporter=reporter_for(call))
    print_result(done, call)


def links(files: tuple[Path, ...], /, *, out: Out, workers: int = 0, call: Call = PLAIN) -> None:
    """Reddit dumps and URL lists -> scored, canonical, de-duplicated links (score >= 3).

    Parameters
    ----------
    files
        JSONL (plain, .gz, .xz, .zst), CSV or one URL per line.
    workers
        Threads; 0 for one per core. The result does not depend on it.
    """
    from gptwo.web.config import LinksConfig
    from gptwo.web.links import collect_links

    make_stage(
        LinksConfig(),
        call,
        lambda config, reporter: collect_links(list(files), out, config, reporter, workers=workers),
    )


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


def corpus(
    sources: tuple[Path, ...],
    /,
    *,
    out: Out,
    workers: int = 0,
    extractor: Literal["quality", "bulk", "both"] = "quality",
    executor: Literal["pool", "ray"] = "pool",
    address: str = "",
    call: Call = PLAIN,
) -> None:
    """Pages and texts -> clean, de-duplicated, split documents, with a reason for every drop.

    Parameters
    ----------
    sources
        A folder made by `gptwo crawl`, WARC files, folders or tars of HTML, JSONL, Parquet, text.
    workers
        Processes; 0 for one per core. The result does not depend on it.
    extractor
        What finds the main text: trafilatura, our own (many times as fast), or the lines of both.
    executor
        What runs them: processes of this machine, or Ray. The result does not depend on it.
    address
        The head node of a running Ray cluster, HOST:PORT; without it Ray runs here.
    """
    from gptwo.corpus.build import build_corpus
    from gptwo.corpus.config import CorpusConfig

    make_stage(
        CorpusConfig(extractor=extractor),
        call,
        lambda config, reporter: build_corpus(
            list(sources),
            out,
            config,
            workers=workers,
            reporter=reporter,
            executor=executor,
            address=address,
        ),
    )


def tokenizer(source: Path, /, *, out: Out, workers: int = 0, call: Call = PLAIN) -> None:
    """Learn byte-level BPE from a corpus, or take over existing GPT-2 files.

    Parameters
    ----------
    source
        A corpus folder to learn from, or one with vocab.bpe, merges.txt or tokenizer.json.
    workers
        Processes that count; 0 for one per core. The result does not depend on it.
    """
    from gptwo.tokens.config import TokenizerConfig
    from gptwo.tokens.files import FILES
    from gptwo.tokens.learn import import_tokenizer, train_tokenizer

    def make(config: TokenizerConfig, reporter: Reporter) -> Any:
        if any((source / name).exists() for name in FILES):
            return import_tokenizer(source, out, reporter)
        return train_tokenizer(source, out, config, reporter, workers=workers)

    make_stage(TokenizerConfig(), call, make)


def pack(
    sources: tuple[Path, ...],
    /,
    *,
    tokenizer: Path,
    out: Out,
    call: Call = PLAIN,
) -> None:
    """Documents -> memory-mapped token shards.

    Parameters
    ----------
    sources
        A folder made by `gptwo corpus`, or token files of nanoGPT or llm.c (train.bin val.bin).
    tokenizer
        A folder made by `gptwo tokenizer`; for token files the vocabulary they were made with.
    """
    from gptwo.tokens.bins import import_bins
    from gptwo.tokens.config import PackConfig
    from gptwo.tokens.pack import pack as run

    def make(config: PackConfig, reporter: Reporter) -> Any:
        if any(path.suffix == ".bin" for path in sources):
            return import_bins(list(sources), tokenizer, out, config, reporter)
        if len(sources) != 1:
            raise UsageError(
                f"{len(sources)} corpus folders given", remedy="build one corpus from all sources"
            )
        return run(sources[0], tokenizer, out, config, reporter)

    make_stage(PackConfig(), call, make)
