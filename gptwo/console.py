"""How commands speak: results on stdout, errors as two lines on stderr and an exit code."""

import json
import os
import signal
import sys
import traceback
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Annotated, Any

from cyclopts import App, CycloptsError, Parameter

from gptwo.errors import GptwoError, Interrupted, ResourceError, UsageError
from gptwo.lock import DISK_FULL
from gptwo.progress import Reporter
from gptwo.records import TaskResult


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


def has_only_settings(call: Call) -> bool:
    """For a command without settings: --set is refused; True when --dry-run asked for them."""
    if call.set:
        name = call.set[0].partition("=")[0]
        raise UsageError(f"unknown setting {name!r}", remedy="this command has no settings")
    if call.dry_run:
        print("{}")
    return call.dry_run


def make_stage(config: Any, call: Call, make: Callable[[Any, Reporter], Any]) -> None:
    """Resolve the settings, make one folder, print its counts."""
    from gptwo.config import with_settings

    config = with_settings(config, call.set)
    if call.dry_run:
        return print_settings(config)
    manifest = make(config, reporter_for(call))
    print_result({"fingerprint": manifest.fingerprint, **manifest.counts}, call)


def reporter_for(call: Call) -> Reporter:
    """Progress as the call wants it; from now on signals are requests to stop."""
    reporter = Reporter(quiet=call.quiet)
    reporter.listen()
    return reporter


def print_result(result: dict[str, Any], call: Call) -> None:
    if call.json:
        print(json.dumps(result, ensure_ascii=False))
        return
    for line in _lines(result):
        print(line)


def print_table(table: str, result: dict[str, Any], call: Call) -> None:
    """A result that has a table of its own for people."""
    print(json.dumps(result, ensure_ascii=False) if call.json else table)


def _lines(value: dict[str, Any], indent: str = "") -> list[str]:
    lines = []
    for key, item in value.items():
        if isinstance(item, dict):
            lines += [f"{indent}{key}", *_lines(item, indent + "  ")]
        elif isinstance(item, list) and item and isinstance(item[0], dict):
            lines.append(f"{indent}{key}")
            lines += [f"{indent}  {', '.join(f'{k} {v}' for k, v in row.items())}" for row in item]
        elif isinstance(item, list):
            lines.append(f"{indent}{key}  {'; '.join(map(str, item)) or 'none'}")
        else:
            shown = f"{item:,}" if isinstance(item, int) and not isinstance(item, bool) else item
            shown = f"{item:.4g}" if isinstance(item, float) else shown
            lines.append(f"{indent}{key}  {shown}")
    return lines


def print_scores(results: Mapping[str, TaskResult], call: Call) -> None:
    """Each metric with its interval, then baselines and the paper's models for the same metric."""
    if call.json:
        print(json.dumps({name: asdict(r) for name, r in results.items()}, ensure_ascii=False))
        return
    for name, result in results.items():
        print(f"{name}  n={result.n:,}")
        for metric, value in result.metrics.items():
            interval = result.intervals.get(metric)
            between = f" [{interval.low:.4g}, {interval.high:.4g}]" if interval else ""
            counted = value >= 1000 and value == int(value)  # tokens, words
            print(f"  {metric}  {value:{',.0f' if counted else '.4g'}}{between}")
            for kind, rows in (("baseline", result.baselines), ("paper", result.paper)):
                beside = [
                    f"{label} {row[metric]:.4g}" for label, row in rows.items() if metric in row
                ]
                if beside:
                    print(f"    {kind}: {', '.join(beside)}")


def read_prompt(prompt: str) -> str:
    """A prompt as given; "-" stands for stdin, less the line end that `echo` puts there."""
    if prompt != "-":
        return prompt
    return sys.stdin.buffer.read().decode("utf-8", "replace").removesuffix("\n")


def ask_line(prompt: str, reporter: Reporter) -> str:
    """A line from the terminal, with editing and history; `reporter` listens again afterwards.

    Raises EOFError at the end of the input, KeyboardInterrupt for Ctrl-C.
    """
    with suppress(ImportError):
        import readline  # noqa: F401 - input() uses it once it is there
    signal.signal(signal.SIGINT, signal.default_int_handler)
    signal.signal(signal.SIGTERM, signal.SIG_DFL)  # nothing is under way
    try:
        return input(prompt)
    finally:
        reporter.listen()


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
        _understood(app, words)()
        sys.stdout.flush()
        return 0
    except GptwoError as error:
        return fail(error, words)
    except KeyboardInterrupt:  # before the command began to listen for it
        return fail(Interrupted("stopped before it began", remedy="run the command again"), words)
    except BrokenPipeError:  # the reader of our output has gone, as in `gptwo ... | head`
        _hang_up()
        return 0
    except Exception as error:
        return fail(_unforeseen(error), words)


def _understood(app: App, words: list[str]) -> Callable[[], Any]:
    """The command in `words`, ready to be called; what does not fit it is a `UsageError`."""
    if "-" in words and "--" not in words:  # it would be taken for an option
        words = [*(word for word in words if word != "-"), "--", "-"]
    try:
        command, bound, _ = app.parse_args(words, exit_on_error=False, print_error=False)
    except (CycloptsError, ValueError) as error:  # ValueError: a setting out of its range
        name = f"{words[0]} " if words and words[0] in list(app) else ""
        raise UsageError(str(error), remedy=f"see gptwo {name}--help") from error
    return lambda: command(*bound.args, **bound.kwargs)


def _unforeseen(error: Exception) -> GptwoError:
    """An error that no room has words for yet."""
    if isinstance(error, OSError) and error.errno in DISK_FULL:
        where = f" {error.filename}" if error.filename else ""
        return ResourceError(
            f"cannot write{where}: {error.strerror}", remedy="make room and run it again"
        )
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
        with suppress(OSError):  # the reader may have gone, the disk may be full
            print(json.dumps(fault, ensure_ascii=False), flush=True)
    lines = f"error: {_one_line(error.message)}\n"
    if error.remedy:
        lines += f"try:   {_one_line(error.remedy)}\n"
    with suppress(OSError):
        sys.stderr.write(lines)
    try:
        sys.stdout.flush()
    except OSError:
        _hang_up()
    return error.exit_code


def _hang_up() -> None:
    """Nobody takes our output: what is left of it must not fail once more at exit."""
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _one_line(text: str) -> str:
    """Messages of libraries and names of files may hold line ends."""
    return " ".join(text.splitlines())
