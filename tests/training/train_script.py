"""Train the tiny model as the command line does: errors become exit codes, signals are heard.

usage: train_script.py OUT TOKENS TOKENIZER SETTINGS, JSON of those that differ from the small run
"""

import json
import sys
from dataclasses import replace
from pathlib import Path

from small_run import SHORT, Inputs, train_small

from gptwo.errors import GptwoError
from gptwo.progress import Reporter


def main() -> int:
    out, tokens, tokenizer = (Path(word) for word in sys.argv[1:4])
    config = replace(SHORT, checkpoint_interval=5, **json.loads(sys.argv[4]))
    reporter = Reporter(quiet=True)
    reporter.listen()
    sys.stdout.write("listening\n")
    sys.stdout.flush()
    try:
        train_small(out, Inputs(tokens, tokenizer), config, reporter=reporter)
    except GptwoError as error:
        sys.stderr.write(error.message)
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
