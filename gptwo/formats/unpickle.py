"""The child process that reads a pickle: `python -P unpickle.py FILE TENSORS FACTS`.

It imports nothing of ours, runs under limits taken from the size of the file, and ends with a line
on stderr when it does not like what it sees. See `pickles.py`.
"""

import json
import re
import resource
import sys
import zipfile
from pathlib import Path
from typing import Any

PAGE_BYTES = resource.getpagesize()
SPARE_BYTES = 500_000_000  # beside the interpreter, torch and some copies of the tensors
COPIES = 4  # of the file: as read, one that shares no memory, as written, and room
BYTES_PER_SECOND = 5_000_000
SPARE_SECONDS = 60
MAX_MEMBERS = 100_000  # GPT-2 XL and its optimiser have 1,740


def main(source: Path, tensors_file: Path, facts_file: Path) -> None:
    import torch
    from safetensors.torch import save_file

    torch.set_num_threads(1)
    _limit(source.stat().st_size)
    tensors, facts = read(source)
    save_file({name: tensor.clone().contiguous() for name, tensor in tensors.items()}, tensors_file)
    facts_file.write_text(json.dumps(facts), encoding="utf-8")


def read(source: Path) -> tuple[dict[str, Any], dict[str, Any]]:
    """The tensors, and plain values beside them; raises for anything that is not just these."""
    import torch

    size = source.stat().st_size
    with source.open("rb") as handle:
        zipped = handle.read(2) == b"PK"
    if zipped:
        _inspect(source, size)
    tensors, facts = _parts(torch.load(source, map_location="cpu", weights_only=True))
    if sum(tensor.numel() * tensor.element_size() for tensor in tensors.values()) > 2 * size:
        raise ValueError(f"its tensors are larger than the file of {size:,} bytes")
    return tensors, facts


def _limit(size: int) -> None:
    """Memory, processor time and file size that an honest file of `size` bytes stays within."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * PAGE_BYTES
    for kind, most in (
        (resource.RLIMIT_AS, used + SPARE_BYTES + COPIES * size),
        (resource.RLIMIT_CPU, SPARE_SECONDS + size // BYTES_PER_SECOND),
        (resource.RLIMIT_FSIZE, SPARE_BYTES + 2 * size),
        (resource.RLIMIT_CORE, 0),
    ):
        hard = resource.getrlimit(kind)[1]  # may only be lowered
        most = most if hard == resource.RLIM_INFINITY else min(most, hard)
        resource.setrlimit(kind, (most, most))


def _inspect(source: Path, size: int) -> None:
    """torch stores members uncompressed, each once; anything else is a bomb or damage."""
    with zipfile.ZipFile(source) as archive:
        members = archive.infolist()
        if len(members) > MAX_MEMBERS:
            raise ValueError(f"a zip of {len(members):,} members, expected at most {MAX_MEMBERS:,}")
        for member in members:
            if member.compress_type != zipfile.ZIP_STORED:
                raise ValueError(
                    f"a zip bomb? {member.filename} is compressed ({member.file_size:,} bytes in "
                    f"{member.compress_size:,}), expected members as torch stores them"
                )
        total = sum(member.file_size for member in members)
        if total > size:
            raise ValueError(f"a zip bomb? {total:,} bytes in a file of {size:,}")
        if len({member.filename for member in members}) < len(members):
            raise ValueError("a zip with two members of one name")
        if sum(member.filename.endswith("/data.pkl") for member in members) != 1:
            raise ValueError("a zip archive, but not one by torch.save")
        damaged = archive.testzip()
        if damaged:
            raise ValueError(f"damaged: {damaged} does not match its CRC-32")


def _parts(value: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """A state dict, alone or as the "model" of a checkpoint -> tensors, plain values."""
    import torch

    if not isinstance(value, dict):
        raise ValueError(f"it holds a {type(value).__name__}, expected a dict of tensors")
    inner = value.get("model")
    state = inner if isinstance(inner, dict) else value
    for name, tensor in state.items():
        if not isinstance(name, str) or not isinstance(tensor, torch.Tensor):
            raise ValueError(f"it holds {type(tensor).__name__} {str(name)[:60]!r} among tensors")
        if tensor.layout != torch.strided or tensor.is_quantized or tensor.is_meta:
            raise ValueError(f"{name} is not a plain tensor")
        if tensor.numel() * tensor.element_size() > tensor.untyped_storage().nbytes():
            raise ValueError(f"{name} is {tuple(tensor.shape)}, more than the file holds for it")
    beside = {} if state is value else value
    return state, {
        str(key): _plain(item) for key, item in beside.items() if key not in ("model", "optimizer")
    }


def _plain(value: Any) -> Any:
    """What JSON can say of `value`; a number in a tensor is a number, the rest is its type."""
    import torch

    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, torch.Tensor) and value.numel() == 1:
        return value.item()
    if isinstance(value, dict):
        return {str(key): _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return type(value).__name__


def reason(error: Exception) -> str:
    """One line for a person of what went wrong; torch says it in many."""
    text = str(error)
    asked = re.search(r"GLOBAL (\S+)", text)
    if asked:
        return f"it is a pickle that asks for {asked[1]}, which is code and not weights"
    if isinstance(error, MemoryError) or "allocate memory" in text:
        return "it takes more memory than a file of its size may"
    if isinstance(error, zipfile.BadZipFile | EOFError):
        return f"damaged or truncated ({text or 'it ends too early'})"
    refused = re.search(r"WeightsUnpickler error:\s*(.+)", text)
    lines = [refused[1]] if refused else text.splitlines()
    line = lines[0][:200] if lines else type(error).__name__
    return "".join(char if char.isprintable() else "?" for char in line)  # names are strangers'


if __name__ == "__main__":
    try:
        main(*map(Path, sys.argv[1:]))
    except Exception as error:
        sys.exit(reason(error))
