"""Reading files that may be damaged: what can be read is read, the rest is said."""

import json
import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from gptwo import streams
from gptwo.errors import GptwoError

DAMAGE = (
    *(GptwoError, OSError, pa.ArrowException),
    *streams.DAMAGE,
    *(ValueError, LookupError, TypeError, AttributeError),  # JSON of another shape than ours
)


class NotThere(Exception):  # noqa: N818 - nothing is wrong
    """A part that has not been made."""


def told(error: BaseException) -> str:
    if isinstance(error, GptwoError):
        return f"{error.message} ({error.remedy})" if error.remedy else error.message
    return f"{type(error).__name__}: {error}"[:300]


def is_number(value: Any) -> bool:
    return isinstance(value, int | float) and math.isfinite(value)


def number_or_nan(value: Any) -> float:
    return float(value) if is_number(value) else math.nan


def or_note(notes: list[str], read: Callable[[], Any], otherwise: Any) -> Any:
    """Details that may be damaged while the rest of the part is whole."""
    try:
        return read()
    except DAMAGE as error:
        notes.append(f"Damaged: {told(error)}")
        return otherwise


def columns(lines: list[dict[str, Any]], *names: str) -> dict[str, np.ndarray]:
    """Arrays of "step", "tokens" and the names, of the lines that carry a step and the first name.

    Other names that are missing or not a finite number are NaN; "tokens" is 0 then.
    """
    chosen = [line for line in lines if is_number(line.get("step"))]
    chosen = [line for line in chosen if is_number(line.get(names[0]))]
    found = {
        name: np.array([number_or_nan(line.get(name)) for line in chosen], float)
        for name in ("step", "tokens", *names)
    }
    return found | {"tokens": np.nan_to_num(found["tokens"])}


def json_lines(path: Path, notes: list[str]) -> list[dict[str, Any]]:
    """JSON lines; those that cannot be read are counted in a note. None where there is no file."""
    if not path.exists():
        return []
    found, bad = [], 0
    with path.open("rb") as handle:
        for line in handle:
            try:
                value = json.loads(line)
                found += [value] if isinstance(value, dict) else []
                bad += not isinstance(value, dict)
            except (ValueError, RecursionError):
                bad += 1
    if bad:
        verb = "line is" if bad == 1 else "lines are"
        notes.append(f"Damaged: {bad:,} {verb} not JSON in {path} and left out.")
    return found
