"""Files that PyTorch pickled, read without running them.

A pickle is a program. The one here is read by a child process that knows only tensors and plain
values (`unpickle.py`), may use little more memory than the file is large, and hands over a
safetensors file and JSON; this process opens only those two.
"""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from safetensors.torch import load_file
from torch import Tensor

from gptwo.errors import ModelError, ResourceError
from gptwo.formats import unpickle
from gptwo.model.weights import PICKLES, what_is

STARTS = (b"PK\x03\x04", *PICKLES)


@dataclass(frozen=True)
class Unpickled:
    """The tensors of the state dict, and the plain values beside it."""

    tensors: dict[str, Tensor]
    facts: dict[str, Any]


def is_pickle(path: Path) -> bool:
    """Whether the first bytes are those of a file by torch.save, of any age."""
    with path.open("rb") as handle:
        return handle.read(4).startswith(STARTS)


def load(path: Path) -> Unpickled:
    """Read a state dict, or a dict that holds one as "model". Raises ModelError (exit code 4)."""
    if not is_pickle(path):
        raise ModelError(
            f"{path} ({path.stat().st_size:,} bytes) is {what_is(path)}, expected a file by "
            "torch.save",
            remedy="download or save it again",
        )
    with TemporaryDirectory(prefix="gptwo-") as folder:
        tensors, facts = Path(folder, "tensors.safetensors"), Path(folder, "facts.json")
        command = [
            sys.executable,
            "-P",
            "-W",
            "ignore",
            unpickle.__file__,
            path.resolve(),
            tensors,
            facts,
        ]
        here = {"PYTHONPATH": os.pathsep.join(filter(None, sys.path)), "OMP_NUM_THREADS": "1"}
        ran = subprocess.run(
            command,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            start_new_session=True,  # a Ctrl-C is this process' to handle
            env=os.environ | here,
        )
        if "No space left" in ran.stderr:
            raise ResourceError(
                f"the tensors of {path} do not fit into {folder}",
                remedy="make room, or let TMPDIR name a folder with more",
            )
        if ran.returncode:
            raise ModelError(
                f"{path} was not read: {_reason(ran)}",
                remedy="use a file from a source you trust, best as safetensors",
            )
        return Unpickled(load_file(tensors), json.loads(facts.read_text(encoding="utf-8")))


def _reason(ran: subprocess.CompletedProcess[str]) -> str:
    """Why the child gave up: its last line, or what it means that it was killed."""
    if ran.returncode < 0:
        return f"it takes more memory or time than a file of its size may ({-ran.returncode})"
    lines = ran.stderr.strip().splitlines()
    return lines[-1] if lines else f"the process that read it ended with {ran.returncode}"
