"""What several commands take."""

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

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


@dataclass(frozen=True, kw_only=True)
class TrainOptions:
    """How `gptwo train` goes about it."""

    size: str = ""
    """Model size, see `gptwo doctor`; micro, or what --budget chooses, when not given."""
    recipe: Literal["fast", "paper"] = "fast"
    """fast: Muon, and a rate that falls in a line. paper: AdamW and a cosine."""
    budget: str = ""
    """Time for it, such as 10m or 2h: measures this machine and chooses size and steps."""
    tune: bool = False
    """First choose the learning rate on held-out text, by short runs."""
    track: tuple[str, ...] = ()
    """tensorboard, trackio or wandb; repeatable."""
    accept_change: tuple[str, ...] = ()
    """A setting that may differ from the interrupted run's, by name."""
    drop_damaged: bool = False
    """Delete a damaged last checkpoint and go on from the one before."""


TRAINING = TrainOptions()


def default_data(recipe: str = "") -> Path | None:
    """The folder of evaluation sets in the environment; the demo brings its own data."""
    folder = os.environ.get("GPTWO_DATA", "")
    return Path(folder) if folder and recipe != "demo" else None
