"""Builds a corpus in a process of its own: `build_script.py WORKERS OUT SOURCE...`"""

import sys
from pathlib import Path

from gptwo.corpus.build import build_corpus
from gptwo.corpus.config import CorpusConfig

if __name__ == "__main__":
    workers, out, *sources = sys.argv[1:]
    build_corpus(
        [Path(source) for source in sources], Path(out), CorpusConfig(), workers=int(workers)
    )
