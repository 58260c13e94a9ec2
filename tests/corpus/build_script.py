"""Builds a corpus in a process of its own: `build_script.py WORKERS OUT SOURCE...`

In the environment `EXECUTOR` names what runs its tasks, `ADDRESS` the cluster, and `TALLY` a file
that tells the outputs it set out to make.
"""

import os
import sys
from pathlib import Path

from gptwo.cluster import Cluster
from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig
from gptwo.errors import Interrupted
from gptwo.pool import Pool
from gptwo.progress import Reporter


def tally(kind: type[Pool] | type[Cluster], path: str) -> None:
    """Have the runs of an executor write down what they begin."""
    run = kind.run

    def tallied(self, title, job, tasks) -> None:
        with Path(path).open("a") as file:
            file.writelines(f"{task.output}\n" for task in tasks if not task.output.exists())
        run(self, title, job, tasks)

    kind.run = tallied


if __name__ == "__main__":
    workers, out, *sources = sys.argv[1:]
    reporter = Reporter(quiet=True)
    reporter.listen()
    if "TALLY" in os.environ:
        tally(Pool, os.environ["TALLY"])
        tally(Cluster, os.environ["TALLY"])
    try:
        build_corpus(
            [Path(source) for source in sources],
            Path(out),
            CorpusConfig(),
            workers=int(workers),
            reporter=reporter,
            executor=os.environ.get("EXECUTOR", "pool"),
            address=os.environ.get("ADDRESS", ""),
        )
    except Interrupted as stop:
        sys.exit(stop.exit_code)
