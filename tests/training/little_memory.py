"""Train with more rows at once than a limit on memory allows.

usage: little_memory.py OUT TOKENS TOKENIZER
"""

import os
import resource
import sys
from dataclasses import replace
from pathlib import Path

import pydantic  # noqa: F401 - what is imported late would find no room
from small_run import SHORT, TINY, Inputs, train_small

from gptwo.progress import Reporter
from gptwo.training import loop

MORE_BYTES = 150 << 20  # than the process has when it starts: room for some 60 rows


def main(out: Path, tokens: Path, tokenizer: Path) -> None:
    shape = replace(TINY, n_ctx=128, n_embd=64)
    rows = 256
    config = replace(SHORT, steps=1, batch_tokens=rows * 128, micro_batch=rows)
    loop.check_memory = lambda *unused: None  # it would refuse, and is tried elsewhere
    plain = loop.validate

    def limited(*arguments, **more):
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = pages * os.sysconf("SC_PAGE_SIZE") + MORE_BYTES
        resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
        loop.validate = plain
        return plain(*arguments, **more)

    loop.validate = limited
    train_small(out, Inputs(tokens, tokenizer), config, shape, reporter=Reporter())


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
