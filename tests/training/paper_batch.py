"""Train with the paper's batch of 512 x 1024 tokens, after a small one: megabytes held, as JSON.

usage: paper_batch.py OUT TOKENS TOKENIZER
"""

import json
import re
import sys
from dataclasses import replace
from pathlib import Path

from small_run import SHORT, Inputs, train_small

from gptwo.model.sizes import GPT2Config

SHAPE = GPT2Config(n_ctx=1024, n_layer=1, n_head=1, n_embd=8)


def peak_megabytes() -> float:
    """The most that this process itself has held so far."""
    status = Path("/proc/self/status").read_text()
    found = re.search(r"VmHWM:\s+(\d+) kB", status)
    assert found
    return int(found[1]) / 1024


def main(out: Path, tokens: Path, tokenizer: Path) -> None:
    peaks = {}
    for batch_tokens in (8_192, 8_192, 524_288):  # the first call loads what is loaded late
        config = replace(SHORT, steps=2, batch_tokens=batch_tokens, micro_batch=4)
        folder = out / f"{len(peaks)}-{batch_tokens}"
        train_small(folder, Inputs(tokens, tokenizer), config, SHAPE)
        peaks[batch_tokens] = peak_megabytes()
    sys.stdout.write(json.dumps(peaks))


if __name__ == "__main__":
    main(*(Path(word) for word in sys.argv[1:]))
