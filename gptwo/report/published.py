"""The paper's numbers, from the one file that holds them."""

import json
from functools import cache
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "zeroshot" / "paper.json"


@cache
def published() -> dict[str, Any]:
    """`sizes`, `paper` (task -> row -> metric), `plots` (read off drawings), `overlap`, ..."""
    return json.loads(FILE.read_text(encoding="utf-8"))


def parameters_of(label: str) -> int:
    """Of a size as the paper calls it, as the released weights count them; 0 for another row."""
    return published()["sizes"].get(label, {}).get("parameters", 0)


def points(task: str, metric: str, kind: str = "paper") -> list[tuple[str, int, float]]:
    """(label, parameters, value) of the paper's sizes, smallest first; `kind` is paper or plots."""
    rows = published()[kind].get(task, {})
    known = [
        (label, parameters_of(label), row[metric])
        for label, row in rows.items()
        if isinstance(row, dict) and metric in row and parameters_of(label)
    ]
    return sorted(known, key=lambda point: point[1])


def levels(task: str, metric: str) -> dict[str, float]:
    """What the paper compares with: rows of no size, such as the best result before it."""
    return {
        label: row[metric]
        for kind in ("plots", "paper")
        for label, row in published()[kind].get(task, {}).items()
        if isinstance(row, dict) and metric in row and not parameters_of(label.split(" ")[0])
    }
