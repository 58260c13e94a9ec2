"""Safetensors files as streams of bytes: hashed while written, never whole in memory twice.

The library serialises all tensors into one string first; at 124M parameters and their optimiser
that is 1.5 GB more. The bytes here are the same as the library's.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import torch
from torch import Tensor

# The library's order of types: later ones come first in a file, so that all stay aligned.
TYPES = {
    torch.bool: "BOOL",
    torch.uint8: "U8",
    torch.float16: "F16",
    torch.bfloat16: "BF16",
    torch.int32: "I32",
    torch.float32: "F32",
    torch.float64: "F64",
    torch.int64: "I64",
}
ALIGNMENT = 8  # bytes; the first tensor starts at a multiple of it


@dataclass(frozen=True)
class TensorFile:
    """A file about to be written."""

    header: bytes
    tensors: tuple[Tensor, ...]  # in the order of the file; any device

    @property
    def size(self) -> int:
        """Bytes of the file."""
        return len(self.header) + sum(tensor.nbytes for tensor in self.tensors)

    def pieces(self) -> Iterator[memoryview]:
        """The file from its first byte to its last. On the CPU nothing is copied."""
        yield memoryview(self.header)
        for tensor in self.tensors:
            flat = tensor.detach().cpu().contiguous().view(-1)
            if flat.numel():
                yield flat.view(torch.uint8).numpy().data


def tensor_file(tensors: Mapping[str, Tensor], metadata: Mapping[str, str] | None) -> TensorFile:
    """Lay out `tensors` by type, then by name. A type that has no place in `TYPES` is a KeyError.

    >>> tensor_file({"a": torch.ones(1)}, None).header[8:]
    b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}  '
    """
    rank = {kind: place for place, kind in enumerate(TYPES)}
    ordered = sorted(tensors.items(), key=lambda item: (-rank[item[1].dtype], item[0]))
    entries: dict[str, object] = {"__metadata__": dict(metadata)} if metadata else {}
    end = 0
    for name, tensor in ordered:
        begin, end = end, end + tensor.nbytes
        entries[name] = {
            "dtype": TYPES[tensor.dtype],
            "shape": list(tensor.shape),
            "data_offsets": [begin, end],
        }
    text = json.dumps(entries, ensure_ascii=False, separators=(",", ":")).encode("utf-8")
    text += b" " * (-len(text) % ALIGNMENT)
    header = len(text).to_bytes(8, "little") + text
    return TensorFile(header, tuple(tensor for _, tensor in ordered))


def bytes_to_copy(files: Mapping[str, TensorFile]) -> int:
    """The buffer that `copied` takes."""
    return sum(_aligned(tensor.nbytes) for file in files.values() for tensor in file.tensors)


def copied(files: Mapping[str, TensorFile], buffer: Tensor) -> dict[str, TensorFile]:
    """The same files with their tensors copied into `buffer` (uint8, on the CPU).

    From a device the copies are only queued when `buffer` is pinned: wait before reading them.
    """
    copies, end = {}, 0
    for name, file in files.items():
        tensors = []
        for tensor in file.tensors:
            place = buffer[end : end + tensor.nbytes].view(tensor.dtype).view(tensor.shape)
            place.copy_(tensor.detach(), non_blocking=True)
            tensors.append(place)
            end += _aligned(tensor.nbytes)
        copies[name] = TensorFile(file.header, tuple(tensors))
    return copies


def _aligned(size: int) -> int:
    return -(-size // ALIGNMENT) * ALIGNMENT
