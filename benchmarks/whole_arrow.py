"""How long the embedded default takes, stage by stage, and how much memory: prints JSON.

usage: python benchmarks/whole_arrow.py [OUT] [-- more arguments of `gptwo reproduce demo`]

Measured: the whole command from an empty folder, the same command again when nothing is left to
do, and `gptwo --help`. Memory is the most that the command and its children held together
(proportional set size: shared pages count once), looked at every quarter of a second.
"""

import json
import statistics
import subprocess
import sys
import tempfile
import time
from contextlib import suppress
from pathlib import Path

import psutil

from gptwo.world import machine

GPTWO = str(Path(sys.executable).with_name("gptwo"))


def main() -> None:
    words = sys.argv[1:]
    more = words[words.index("--") + 1 :] if "--" in words else []
    own = words[: words.index("--")] if "--" in words else words
    with tempfile.TemporaryDirectory() as temporary:
        out = Path(own[0]) if own else Path(temporary) / "demo"
        command = [GPTWO, "reproduce", "demo", "--out", str(out), *more]
        seconds, peak = measured(command)
        again, _ = measured(command)
        run = json.loads((out / "run.json").read_text())
        timings = [json.loads(line) for line in (out / "timings.jsonl").read_text().splitlines()]
    stages = {name: entry["seconds"] for name, entry in run["stages"].items()}
    print(
        json.dumps(
            {
                "command": " ".join(["gptwo reproduce demo", *more]),
                "machine": machine(),
                "commit": run["commit"],
                "seconds": round(seconds, 1),
                "stage_seconds": stages,
                "share_of_training": round(stages["training"] / seconds, 3),
                "slowest_other_stage_seconds": max(
                    value for name, value in stages.items() if name != "training"
                ),
                "peak_memory_mb": round(peak / 1e6),
                "median_tokens_per_second": statistics.median(
                    line["tokens_per_second"] for line in timings
                ),
                "median_mfu": statistics.median(line["mfu"] for line in timings),
                "second_run_seconds": round(again, 2),
                "help_seconds": round(statistics.median(help_times()), 3),
            },
            indent=2,
        )
    )


def measured(command: list[str]) -> tuple[float, int]:
    """Wall-clock seconds of a command, and the most bytes it and its children held together."""
    started, peak = time.monotonic(), 0
    process = psutil.Popen(command, stdout=subprocess.DEVNULL)
    while process.poll() is None:
        peak = max(peak, tree_memory(process))
        time.sleep(0.25)
    if process.returncode:
        sys.exit(f"{' '.join(command)} ended with exit code {process.returncode}")
    return time.monotonic() - started, peak


def tree_memory(process: psutil.Process) -> int:
    total = 0
    with suppress(psutil.NoSuchProcess):
        for one in (process, *process.children(recursive=True)):
            with suppress(psutil.NoSuchProcess, psutil.AccessDenied):
                total += one.memory_full_info().pss
    return total


def help_times() -> list[float]:
    times = []
    for _ in range(10):
        started = time.monotonic()
        subprocess.run([GPTWO, "--help"], stdout=subprocess.DEVNULL, check=True)
        times.append(time.monotonic() - started)
    return times


if __name__ == "__main__":
    main()
