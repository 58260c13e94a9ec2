"""Safetensors files as streams: the library's bytes, and copies that later steps do not touch."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from safetensors.torch import load, save

from gptwo.model.tensor_file import TYPES, TensorFile, bytes_to_copy, copied, tensor_file

SHAPES = st.lists(st.integers(0, 5), max_size=3).map(tuple)
TENSORS = st.dictionaries(
    st.text(st.characters(exclude_categories=["Cs"]), max_size=8).filter("__metadata__".__ne__),
    st.tuples(st.sampled_from(list(TYPES)), SHAPES, st.integers(0, 2**31)),
    max_size=8,
)


def made(kind: torch.dtype, shape: tuple[int, ...], seed: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(0, 100, shape, generator=generator).to(kind)


def whole(file: TensorFile) -> bytes:
    return b"".join(file.pieces())


@given(described=TENSORS, metadata=st.sampled_from([None, {"format": "pt"}]))
@settings(deadline=None)
def test_the_bytes_are_the_library_s(
    described: dict[str, tuple], metadata: dict[str, str] | None
) -> None:
    tensors = {name: made(*parts) for name, parts in described.items()}
    file = tensor_file(tensors, metadata)
    assert whole(file) == save(tensors, metadata)
    assert file.size == len(whole(file))
    read = load(whole(file))
    assert read.keys() == tensors.keys()
    assert all(torch.equal(read[name], tensors[name]) for name in tensors)


@given(described=TENSORS)
@settings(deadline=None)
def test_copies_stay_as_they_were(described: dict[str, tuple]) -> None:
    tensors = {name: made(*parts) for name, parts in described.items()}
    files = {"a": tensor_file(tensors, None), "b": tensor_file(tensors, {"format": "pt"})}
    before = {name: whole(file) for name, file in files.items()}
    copies = copied(files, torch.empty(bytes_to_copy(files), dtype=torch.uint8))
    for tensor in tensors.values():
        tensor.zero_()
    assert {name: whole(file) for name, file in copies.items()} == before


def test_transposed_and_tracked_tensors_are_written_in_their_own_order() -> None:
    weight = torch.nn.Parameter(torch.arange(6.0).view(2, 3)).t()
    file = tensor_file({"w": weight}, None)
    assert torch.equal(load(whole(file))["w"], weight.detach())
    copies = copied({"f": file}, torch.empty(file.size, dtype=torch.uint8))
    assert whole(copies["f"]) == whole(file)


def test_a_type_without_a_place_is_refused() -> None:
    with pytest.raises(KeyError):
        tensor_file({"a": torch.zeros(1, dtype=torch.complex64)}, None)
