import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.errors import DataError, UsageError
from gptwo.training.batches import Batches, batches, held_out_windows, read_windows, shuffled


class Stream:
    """Token number i is i: where a token came from can be read off."""

    tokenizer_fingerprint, vocab_size = "", 1 << 30

    def __init__(self, length: int) -> None:
        self.length = length

    def __len__(self) -> int:
        return self.length

    def read(self, start: int, length: int) -> np.ndarray:
        assert start >= 0 and start + length <= self.length
        return np.arange(start, start + length, dtype=np.int64)


def stream(length: int, *, n_ctx: int = 8, rows: int = 4, seed: int = 0) -> Batches:
    return Batches(tokens=Stream(length), n_ctx=n_ctx, rows=rows, seed=seed)  # type: ignore[arg-type]


@given(n=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_shuffled_is_a_permutation(n: int, key: int) -> None:
    image = shuffled(np.arange(n), n, np.array([key], np.uint64))
    assert sorted(image.tolist()) == list(range(n))


def test_shuffled_leaves_no_order() -> None:
    n = 50_000
    image = shuffled(np.arange(n), n, np.array([5], np.uint64))
    assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.02
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert (np.diff(image) == 1).sum() < 10


@given(length=st.integers(9, 400), seed=st.integers(0, 2**32 - 1), epoch=st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_an_epoch_predicts_each_token_once(length: int, seed: int, epoch: int) -> None:
    """All but the remainder that does not fill a window, which moves with the epoch."""
    per_epoch = length // 8
    reads = stream(length, rows=1, seed=seed)
    steps = range(epoch * per_epoch, (epoch + 1) * per_epoch)
    targets = np.concatenate([reads.at(step)[1].numpy().ravel() for step in steps])
    assert len(np.unique(targets)) == len(targets) == length - length % 8


def test_epochs_differ_in_order_and_in_where_windows_begin() -> None:
    reads = stream(803, rows=100)
    first, second = reads.windows(0), reads.windows(1)
    assert sorted(first) != sorted(second) and list(first) != list(second)
    assert set(first % 8) != set(second % 8)


def test_a_batch_is_a_pure_function_of_seed_and_step() -> None:
    assert stream(803).windows(9).tolist() == stream(803).windows(9).tolist()
    assert stream(803).windows(9).tolist() != stream(803, seed=1).windows(9).tolist()
    assert stream(803).windows(9).tolist() != stream(803).windows(10).tolist()


def test_the_cut_into_steps_does_not_change_the_order() -> None:
    """Batches of any size walk the same list of windows, across the ends of epochs."""
    small, large = stream(83, rows=2), stream(83, rows=6)
    walked = np.concatenate([small.windows(step) for step in range(12)])
    assert walked.tolist() == np.concatenate([large.windows(s) for s in range(4)]).tolist()


def test_targets_are_one_ahead_around_the_circle() -> None:
    inputs, targets = stream(20, rows=40).at(0)
    assert ((inputs + 1) % 20 == targets).all()
    assert (inputs[:, 1:] == targets[:, :-1]).all()
    assert inputs.shape == targets.shape == (40, 8)


def test_too_little_text_and_uneven_batches_are_refused() -> None:
    with pytest.raises(DataError, match="has 8 tokens; one context takes 9"):
        batches(Stream(8), n_ctx=8, batch_tokens=16, seed=0)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="20 is not a multiple of n_ctx 8") as error:
        batches(Stream(99), n_ctx=8, batch_tokens=20, seed=0)  # type: ignore[arg-type]
    assert error.value.remedy == "set training.batch_tokens=16"
    assert batches(Stream(9), n_ctx=8, batch_tokens=16, seed=0).at(3)[0].shape == (2, 8)  # type: ignore[arg-type]


@given(length=st.integers(2, 300), most=st.integers(1, 400))
def test_held_out_windows_are_fixed_and_do_not_overlap(length: int, most: int) -> None:
    tokens = Stream(length)
    starts, width = held_out_windows(tokens, n_ctx=8, most_tokens=most)  # type: ignore[arg-type]
    assert width == min(8, length - 1)
    targets = read_windows(tokens, starts, width)[1].numpy().ravel()  # type: ignore[arg-type]
    assert len(np.unique(targets)) == len(targets) <= max(most, width)
    assert targets.max() < length and (most < length or len(targets) > length - 1 - width)


def test_a_held_out_split_of_one_token_is_refused() -> None:
    with pytest.raises(DataError, match="validation split has 1 tokens"):
        held_out_windows(Stream(1), n_ctx=8, most_tokens=99)  # type: ignore[arg-type]
