"""What several commands take."""

import os
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from gptwo.console import Call

Out = Annotated[Path, Parameter(name=["--out", "-o"], help="Folder to make.")]
Model = Annotated[
    Path,
    Parameter(
        help="A run folder, a checkpoint folder, a Hugging Face GPT-2 folder, or a released name: "
        "gpt2, gpt2-medium, gpt2-large, gpt2-xl."
    ),
]
PLAIN = Call()


def default_data(recipe: str = "") -> Path | None:
    """The folder of evaluation sets in the environment; the demo brings its own data."""
    folder = os.environ.get("GPTWO_DATA", "")
    return Path(folder) if folder and recipe != "demo" else None
