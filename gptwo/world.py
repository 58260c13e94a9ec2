"""Where this process runs: its rank among how many, on which device, in which number format."""

import os
import platform
from dataclasses import dataclass
from typing import Any

from gptwo.errors import UsageError


@dataclass(frozen=True, kw_only=True)
class World:
    """One process is a world of size 1. `threads` and `device` are this process's own.

    `neighbours` processes, this one among them, share the memory of this machine.
    """

    rank: int = 0
    size: int = 1
    neighbours: int = 1
    device: str = "cpu"
    threads: int = 1

    @property
    def is_first(self) -> bool:
        """Whether this process is the one that writes and speaks for all."""
        return self.rank == 0


def here(*, device: str = "", threads: int = 0) -> World:
    """The world of this process: the named device or the best there is.

    One of several if a launcher such as torchrun says so in the environment (RANK, WORLD_SIZE,
    LOCAL_RANK, LOCAL_WORLD_SIZE): each then has its own GPU, or its share of the cores.
    """
    import torch

    size, rank = _number("WORLD_SIZE", 1), _number("RANK", 0)
    on_this_machine, place = _number("LOCAL_WORLD_SIZE", 1), _number("LOCAL_RANK", 0)
    if not (0 <= rank < size and 0 <= place < on_this_machine <= size):
        raise UsageError(
            f"RANK={rank} of WORLD_SIZE={size}, LOCAL_RANK={place} of "
            f"LOCAL_WORLD_SIZE={on_this_machine} in the environment: ranks count from 0",
            remedy="start with torchrun, or unset them for a process of its own",
        )
    if not device:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    if size > 1 and device == "cuda":
        if on_this_machine > torch.cuda.device_count():
            raise UsageError(
                f"{on_this_machine} processes on a machine with {torch.cuda.device_count()} GPUs",
                remedy=f"give torchrun --nproc-per-node {torch.cuda.device_count()}",
            )
        device = f"cuda:{place}"
        torch.cuda.set_device(place)
    threads = threads or max(1, len(os.sched_getaffinity(0)) // on_this_machine)
    torch.set_num_threads(threads)
    return World(rank=rank, size=size, neighbours=on_this_machine, device=device, threads=threads)


def refuse_several(what: str, instead: str) -> None:
    """A `UsageError` where a launcher has started this process as one of several."""
    size = _number("WORLD_SIZE", 1)
    if size > 1:
        raise UsageError(
            f"{what} is for one process, WORLD_SIZE says there are {size}",
            remedy=f"start it without a launcher; {instead} in many",
        )


def _number(name: str, otherwise: int) -> int:
    text = os.environ.get(name, "")
    try:
        return int(text) if text else otherwise
    except ValueError:
        raise UsageError(
            f"{name}={text!r} in the environment is not a number",
            remedy="start with torchrun, or unset it for a process of its own",
        ) from None


def machine() -> dict[str, Any]:
    """What a result was measured on: processor, cores, memory, versions."""
    from importlib.metadata import PackageNotFoundError, version

    versions = {}
    for package in ("gptwo", "torch", "numpy", "tiktoken", "duckdb", "trafilatura", "pyarrow"):
        try:
            versions[package] = version(package)
        except PackageNotFoundError:
            versions[package] = None
    pages = os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE")
    return {
        "processor": _processor(),
        "cores": len(os.sched_getaffinity(0)),
        "memory_gb": round(pages / 2**30, 1),
        "system": f"{platform.system()} {platform.release()}",
        "python": platform.python_version(),
        "versions": versions,
    }


def _processor() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as handle:  # noqa: PTH123
            for line in handle:
                if line.startswith("model name"):
                    return line.split(":", 1)[1].strip()
    except OSError:
        pass
    return platform.processor() or platform.machine()
