"""The languages of texts by py3langid; a child of benchmarks/language.py.

usage: PYTHON benchmarks/language_peers.py < TEXTS.json

TEXTS.json is a list of texts. Prints their languages, the processor seconds it took and the version
as JSON. PYTHON belongs to an environment that has py3langid, which need not be ours.
"""

import json
import sys
import time
from importlib.metadata import version

import py3langid  # type: ignore[import-not-found]


def main() -> None:
    texts = json.load(sys.stdin)
    py3langid.classify(texts[0])  # what is loaded late
    began = time.process_time()
    found = [py3langid.classify(text)[0] for text in texts]
    seconds = time.process_time() - began
    print(json.dumps({"languages": found, "seconds": seconds, "version": version("py3langid")}))


if __name__ == "__main__":
    main()
