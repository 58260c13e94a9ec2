"""How much memory can still be had."""

import os
import resource
from contextlib import suppress
from pathlib import Path

import torch

CGROUPS = (  # limit, use and the part of it that is given back on demand: version 2, version 1
    ("memory.max", "memory.current", "memory.stat", "inactive_file"),
    (
        "memory/memory.limit_in_bytes",
        "memory/memory.usage_in_bytes",
        "memory/memory.stat",
        "total_inactive_file",
    ),
)


def bytes_available(device: str, root: Path = Path("/sys/fs/cgroup")) -> float:
    """Memory that can still be had: of the device, or of this process on this machine."""
    if device != "cpu":
        return torch.cuda.mem_get_info()[0]
    limits = [float("inf")]
    with suppress(OSError, ValueError, IndexError):  # not Linux
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        soft = resource.getrlimit(resource.RLIMIT_AS)[0]
        if soft != resource.RLIM_INFINITY:
            limits.append(soft - pages * os.sysconf("SC_PAGE_SIZE"))
    with suppress(OSError, ValueError, KeyError):
        lines = (line.split() for line in Path("/proc/meminfo").read_text().splitlines())
        kilobytes = {words[0]: int(words[1]) for words in lines}
        limits.append(1024 * (kilobytes["MemAvailable:"] + kilobytes["SwapFree:"]))
    for limit, use, stat, cache in CGROUPS:
        with suppress(OSError, ValueError, KeyError):  # another version, or "max": no limit
            held = dict(line.split() for line in (root / stat).read_text().splitlines())
            free = int((root / limit).read_text()) - int((root / use).read_text())
            limits.append(free + int(held[cache]))
    return max(min(limits), 0)
