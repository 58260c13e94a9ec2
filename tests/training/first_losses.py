"""The losses of the small run, as JSON. The stored ones were made by

python tests/training/first_losses.py > tests/goldens/training/first_losses.json
"""

import json
import sys
import tempfile
from pathlib import Path

from small_run import Inputs, make_inputs, train_small


def losses_of(out: Path) -> dict[str, list[float]]:
    """The training and held-out losses in a run's metrics.jsonl."""
    rows = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    return {key: [row[key] for row in rows if key in row] for key in ("loss", "valid_loss")}


def first_losses(folder: Path, inputs: Inputs) -> dict[str, list[float]]:
    """Train the tiny model for ten steps in `folder`."""
    train_small(folder, inputs)
    return losses_of(folder)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as made:
        found = first_losses(Path(made) / "run", make_inputs(Path(made), seed=1))
    sys.stdout.write(json.dumps(found, indent=2) + "\n")
