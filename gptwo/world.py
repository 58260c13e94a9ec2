"""Where this process runs: its rank among how many, on which device, in which number format."""

import os
import platform
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True, kw_only=True)
class World:
    """One process is a world of size 1."""

    rank: int = 0
    size: int = 1
    device: str = "cpu"
    threads: int = 1


def here(*, device: str = "", threads: int = 0) -> World:
    """The world of this process: the named device or the best there is."""
    import torch

    if not device:
        device = "cuda" if torch.cuda.is_available() else "cpu"
    threads = threads or len(os.sched_getaffinity(0))
    torch.set_num_threads(threads)
    return World(device=device, threads=threads)


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
