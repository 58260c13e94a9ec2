"""How much of test sets a corpus holds."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gptwo.cli.options import PLAIN, default_data
from gptwo.console import Call, print_result, print_settings, reporter_for


def overlap(
    source: Path,
    tasks: tuple[str, ...] = (),
    /,
    *,
    out: Annotated[Path | None, Parameter(name=["--out", "-o"])] = None,
    data: Path | None = None,
    scores: Path | None = None,
    model: Path | None = None,
    workers: int = 0,
    call: Call = PLAIN,
) -> None:
    """How much of test sets a corpus holds, what scores are without it, what a model copies.

    Parameters
    ----------
    source
        A run folder, whose corpus, scores and model count, or a corpus.
    tasks
        Tasks of the paper, as for gptwo eval. Without any: all whose files are there.
    out
        Folder to make. Default: RUN/overlap.
    data
        Folder with evaluation sets under eval/. Default: $GPTWO_DATA.
    scores
        Results of gptwo eval, to be split into examples with and without overlap.
    model
        A model that continues documents of the test split.
    workers
        Threads; 0 for one per core. The result does not depend on it.
    """
    from gptwo.config import with_settings
    from gptwo.overlap import Against, OverlapConfig, measure_overlap, parts_of

    config = with_settings(OverlapConfig(), call.set)
    if call.dry_run:
        return print_settings(config)
    from gptwo.language_model import load

    reporter = reporter_for(call)
    parts = parts_of(source, out=out, scores=scores, model=model)
    against = Against(
        tasks=tasks,
        data=data or default_data(),
        scores=parts.scores,
        model=load(parts.model, reporter=reporter) if parts.model else None,
    )
    manifest = measure_overlap(
        parts.corpus, parts.out, config, against, workers=workers, reporter=reporter
    )
    print_result(manifest.counts, call)
