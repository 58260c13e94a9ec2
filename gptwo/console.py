"""How commands speak: results on stdout, errors as two lines on stderr and an exit code."""

import json
import os
import sys
import traceback
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from gptwo.errors import GptwoError, ResourceError, UsageError


@Parameter(name="*", group="Common")
@dataclass(frozen=True, kw_only=True)
class Call:
    """What every command takes."""

    set: Annotated[tuple[str, ...], Parameter(show_default=False)] = ()
    """A setting, NAME=VALUE; repeatable. --dry-run lists them all."""
    json: bool = False
    """Print the result as one JSON object."""
    quiet: bool = False
    """No progress on stderr."""
    debug: bool = False
    """Show the traceback of an error."""
    dry_run: bool = False
    """Print the resolved settings and stop."""


def print_settings(config: Any) -> None:
    from gptwo.config import to_dict  # late: help needs no settings

    print(json.dumps(to_dict(config), indent=2, ensure_ascii=False))


def print_result(result: dict[str, Any], call: Call) -> None:
    if call.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for line in _lines(result):
        print(line)


def _lines(value: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            lines.append(f"{indent}{key}")
            lines += [f"{indent}  {', '.join(f'{k} {v}' for k, v in row.items())}" for row in item]
        else:
            shown = f"{item:,}" if isinstance(item, int) and not isinstance(item, bool) else item
            shown = f"{item:.4g}" if isinstance(item, float) else shown
            lines.append(f"{indent}{key}  {shown}")
    return lines


def parse_seconds(text: str) -> float:
    """`parse_seconds("10m") == 600`"""
    if not text:
        return 0.0
    units = {"s": 1, "m": 60, "h": 3600}
    try:
        value = float(text[:-1]) * units[text[-1]]
    except (ValueError, KeyError):
        value = -1.0
    if not 0 < value < float("inf"):
        raise UsageError(f"--budget {text!r} is not a time", remedy="write it as 90s, 10m or 2h")
    return value


def answer(app: App, words: list[str]) -> int:
    """Run the command in `words`; returns its exit code, every failure told on stderr."""
    try:
        app(words, exit_on_error=False, print_error=False, result_action="return_value")
        sys.stdout.flush()
        return 0
    except CycloptsError as error:
        return fail(UsageError(str(error), remedy="see gptwo --help"), words)
    except GptwoError as error:
        return fail(error, words)
    except BrokenPipeError:  # the reader of our output has gone, as in `gptwo ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return 0
    except Exception as error:
        return fail(_unforeseen(error), words)


def _unforeseen(error: Exception) -> GptwoError:
    """An error that no room has words for yet."""
    kind = ResourceError if isinstance(error, MemoryError) else GptwoError
    found = kind(
        f"{type(error).__name__}: {error}",
        remedy="this should have been said better: --debug shows where it happened; please report",
    )
    found.__cause__ = error
    return found


def fail(error: GptwoError, words: Sequence[str]) -> int:
    if "--debug" in words:
        traceback.print_exception(error)
    if "--json" in words:
        fault = {"error": error.message, "remedy": error.remedy, "exit_code": error.exit_code}
        print(json.dumps(fault, ensure_ascii=False))
    sys.stderr.write(f"error: {error.message}\n")
    if error.remedy:
        sys.stderr.write(f"try:   {error.remedy}\n")
    return error.exit_code
