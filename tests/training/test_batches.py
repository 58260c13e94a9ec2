"""Batches: every token once an epoch, whatever the corpus, the mix, the ranks and the step."""

import threading
from itertools import pairwise

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from gptwo.errors import DataError, UsageError
from gptwo.tokens.shards import Shards
from gptwo.training.data.batches import Batches, batches, held_out_windows, read_windows
from gptwo.training.data.epochs import shuffled
from gptwo.training.data.mixture import cycle_of, shares
from gptwo.world import World

lengths = st.lists(st.integers(1, 40), min_size=1, max_size=12)
seeds = st.integers(0, 2**32 - 1)


def stream(*corpora: list[int], parts: int = 1) -> Shards:
    """Corpora of documents of these lengths. Token number i is i: where it is from can be read."""
    documents = [length for corpus in corpora for length in corpus]
    ids = np.arange(sum(documents), dtype=np.uint32)
    pieces = tuple(np.array_split(ids, parts))
    return Shards(
        parts=pieces,
        ends=np.cumsum([len(piece) for piece in pieces]),
        starts=np.cumsum([0, *documents[:-1]]).astype(np.uint64),
        corpora=tuple(sum(corpus) for corpus in corpora),
        vocab_size=1 << 30,
        eot=0,
        tokenizer_fingerprint="",
    )


def reading(
    *corpora: list[int], n_ctx: int = 8, rows: int = 4, seed: int = 0, mix: str = "", parts: int = 1
) -> Batches:
    split = stream(*corpora, parts=parts)
    return batches(split, n_ctx=n_ctx, batch_tokens=n_ctx * rows, seed=seed, mix=mix)


def targets(reads: Batches, steps: range) -> np.ndarray:
    return np.concatenate([reads.at(step)[1].numpy().ravel() for step in steps])


# ---- each token once an epoch ----


@given(documents=lengths, n_ctx=st.integers(1, 16), rows=st.integers(1, 5), seed=seeds)
@settings(max_examples=60, deadline=None)
def test_each_token_is_a_target_exactly_once_an_epoch(
    documents: list[int], n_ctx: int, rows: int, seed: int
) -> None:
    """Also the remainder that fills no window: epoch e is targets e N to (e + 1) N of the run."""
    documents = [*documents, n_ctx + 1]
    tokens, epochs = sum(documents), 3
    reads = reading(documents, n_ctx=n_ctx, rows=rows, seed=seed)
    seen = targets(reads, range(-(-epochs * tokens // (n_ctx * rows))))
    for epoch in range(epochs):
        once = np.sort(seen[epoch * tokens : (epoch + 1) * tokens])
        assert once.tolist() == list(range(tokens))


@given(documents=lengths, seed=seeds, step=st.integers(0, 40), parts=st.integers(1, 5))
@settings(max_examples=60, deadline=None)
def test_rows_are_whole_documents_one_after_the_other(
    documents: list[int], seed: int, step: int, parts: int
) -> None:
    """A row leaves a document only at its end and enters another only at its beginning.

    But for one document an epoch, which is entered inside; also across the borders of shards.
    """
    documents = [*documents, 9]
    begins = set(np.cumsum([0, *documents]).tolist())
    inputs, ahead = reading(documents, seed=seed, parts=parts).at(step)
    assert (inputs[:, 1:] == ahead[:, :-1]).all()
    rows = torch.cat([inputs, ahead[:, -1:]], dim=1).tolist()
    jumps = [(a, b) for row in rows for a, b in pairwise(row) if b != a + 1]
    epochs = (step + 1) * 32 // sum(documents) - step * 32 // sum(documents) + 2
    assert sum(a + 1 not in begins for a, _ in jumps) <= epochs
    assert sum(b not in begins for _, b in jumps) <= epochs


def test_epochs_differ_in_neighbours_in_cuts_and_in_order() -> None:
    documents = [13, 40, 7, 21, 30, 9, 17, 33, 11, 19] * 8  # 1,600 tokens, 200 windows
    reads = reading(documents, rows=200)
    first, second = reads.at(0)[1].numpy(), reads.at(1)[1].numpy()
    assert set(first[:, 0]) != set(second[:, 0])
    begins = np.cumsum([0, *documents[:-1]])
    before = [dict(zip(x.ravel(), y.ravel(), strict=True)) for y, x in (reads.at(0), reads.at(1))]
    before = [{int(k): int(v) for k, v in one.items()} for one in before]
    same = sum(before[0][begin] == before[1][begin] for begin in begins.tolist())
    assert same < len(begins) / 10  # what stands before a document


def test_a_single_document_is_cut_elsewhere_each_epoch() -> None:
    reads = reading([800], rows=100)
    cuts = [set((reads.at(step)[1][:, 0] % 8).tolist()) for step in range(4)]
    assert len({frozenset(cut) for cut in cuts}) > 1


def test_order_of_documents_leaves_no_trace_in_batches() -> None:
    """The corpus is sorted by length and position: a batch looks like the whole of it."""
    documents = sorted(np.random.default_rng(0).integers(5, 400, 600).tolist())
    reads = reading(documents, n_ctx=32, rows=64)
    tokens, steps = sum(documents), sum(documents) // (32 * 64)
    means = [reads.at(step)[1].double().mean().item() / tokens for step in range(steps)]
    assert abs(np.mean(means) - 0.5) < 0.01
    spread = 1 / np.sqrt(12 * 64)  # of the mean of 64 independent places
    assert np.std(means) < 1.5 * spread
    assert abs(np.corrcoef(means, range(steps))[0, 1]) < 4 / np.sqrt(steps)


@given(n=st.integers(1, 700), key=st.integers(0, 2**64 - 1))
@settings(max_examples=60, deadline=None)
def test_shuffled_is_a_permutation(n: int, key: int) -> None:
    image = shuffled(np.arange(n), n, np.array([key], np.uint64))
    assert sorted(image.tolist()) == list(range(n))


@pytest.mark.parametrize("key", [5, 1 << 40, 2**64 - 1])
def test_shuffled_leaves_no_order(key: int) -> None:
    n = 50_000
    image = shuffled(np.arange(n), n, np.array([key], np.uint64))
    assert abs(np.corrcoef(np.arange(n), image)[0, 1]) < 0.02
    assert abs(np.corrcoef(image[:-1], image[1:])[0, 1]) < 0.02
    assert (np.diff(image) == 1).sum() < 10
    places = np.bincount(image[: n // 10] * 100 // n, minlength=100)  # of the first tenth
    assert ((places - 50) ** 2 / 50).sum() < 150  # chi-square of 99 degrees: mean 99, sd 14


# ---- a function of the seed and the step ----


@given(documents=lengths, seed=seeds, step=st.integers(0, 10**12))
@settings(max_examples=60, deadline=None)
def test_a_batch_needs_no_state(documents: list[int], seed: int, step: int) -> None:
    """A reader that went through other steps gives what a new one gives: resuming at any step."""
    documents = [*documents, 9]
    used, new = (reading(documents, seed=seed) for _ in range(2))
    for other in (0, step + 7, step // 2):
        used.at(other)
    assert torch.equal(used.at(step)[1], new.at(step)[1])
    assert used.windows(step).tolist() == new.at(step)[0][:, 0].tolist()


def test_seeds_and_steps_differ() -> None:
    documents = [50] * 40
    assert reading(documents).windows(9).tolist() != reading(documents, seed=1).windows(9).tolist()
    assert reading(documents).windows(9).tolist() != reading(documents).windows(10).tolist()


@given(
    documents=lengths,
    size=st.sampled_from([1, 2, 3, 4, 6, 12]),
    step=st.integers(0, 50),
    mix=st.sampled_from(["", "0.7,0.3", "1,1"]),
)
@settings(max_examples=60, deadline=None)
def test_ranks_share_the_batch_of_one_process(
    documents: list[int], size: int, step: int, mix: str
) -> None:
    reads = reading([*documents, 9], [20, 30], rows=12, mix=mix)
    inputs, ahead = reads.at(step)
    ranks = [reads.at(step, World(rank=rank, size=size)) for rank in range(size)]
    assert torch.equal(torch.cat([x for x, _ in ranks]), inputs)
    assert torch.equal(torch.cat([y for _, y in ranks]), ahead)


def test_the_cut_into_steps_does_not_change_the_order() -> None:
    """Batches of any size walk the same list of windows, across the ends of epochs."""
    small, large = reading([30, 53], rows=2), reading([30, 53], rows=6)
    walked = np.concatenate([small.windows(step) for step in range(12)])
    assert walked.tolist() == np.concatenate([large.windows(s) for s in range(4)]).tolist()


def test_positions_beyond_32_bits() -> None:
    """Seven billion tokens in three parts that take no memory: a value repeated."""
    part = np.broadcast_to(np.uint16(7), 2_500_000_000)
    starts = np.arange(0, 7_500_000_000, 1_250_000, dtype=np.uint64)
    split = Shards(
        parts=(part,) * 3,
        ends=np.cumsum([len(part)] * 3),
        starts=starts,
        corpora=(7_500_000_000,),
        vocab_size=50_257,
        eot=7,
        tokenizer_fingerprint="",
    )
    reads = batches(split, n_ctx=1024, batch_tokens=524_288, seed=3)
    windows = np.concatenate([reads.windows(step) for step in range(0, 40_000, 1_000)])
    assert windows.min() >= 0 and windows.max() > 7_000_000_000
    assert abs(np.mean(windows / 7.5e9) - 0.5) < 0.01
    assert (reads.at(30_000)[0] == 7).all()


def test_reading_starts_no_thread_and_no_process() -> None:
    threads = threading.active_count()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("os.fork", pytest.fail)
        patch.setattr("subprocess.Popen", pytest.fail)
        reading([50] * 40).at(3)
    assert threading.active_count() == threads


# ---- mixes ----

weights = st.lists(st.integers(1, 40), min_size=1, max_size=6)


@given(weights=weights)
@settings(max_examples=100, deadline=None)
def test_any_number_of_rows_has_the_share_of_each_corpus(weights: list[int]) -> None:
    cycle = np.array(cycle_of(weights))
    for corpus, weight in enumerate(weights):
        given_rows = np.cumsum(cycle == corpus)
        due = np.arange(1, len(cycle) + 1) * weight / sum(weights)
        assert np.abs(given_rows - due).max() < 1 and given_rows[-1] == weight


@given(first=lengths, second=lengths, seed=seeds)
@settings(max_examples=30, deadline=None)
def test_each_corpus_of_a_mix_goes_through_its_own_epochs(
    first: list[int], second: list[int], seed: int
) -> None:
    corpora = [*first, 9], [*second, 9]
    border = sum(corpora[0])
    reads = reading(*corpora, seed=seed, mix="0.75,0.25")
    seen = targets(reads, range(3 * sum(map(sum, corpora)) // 32))
    whole = range(border), range(border, border + sum(corpora[1]))
    for corpus, mine in zip(whole, (seen[seen < border], seen[seen >= border]), strict=True):
        for epoch in range(len(mine) // len(corpus)):
            once = np.sort(mine[epoch * len(corpus) : (epoch + 1) * len(corpus)])
            assert once.tolist() == list(corpus)


def test_every_batch_has_the_shares_of_the_mix() -> None:
    reads = reading([40] * 20, [30] * 10, rows=10, mix="0.7,0.3")
    for step in range(30):
        assert (reads.windows(step) < 800).sum() == 7


def test_without_a_mix_the_corpora_are_one() -> None:
    joined, one = reading([40] * 20, [30] * 10), reading([40] * 20 + [30] * 10)
    assert torch.equal(joined.at(11)[1], one.at(11)[1])


@pytest.mark.parametrize(
    ("mix", "found"), [("0.7,0.3", (7, 3)), ("7, 3", (7, 3)), ("1,1,1", (1, 1, 1)), (".5", (1,))]
)
def test_shares(mix: str, found: tuple[int, ...]) -> None:
    assert shares(mix) == found


@pytest.mark.parametrize("mix", ["0.7,", "0.7,0", "0.7,-0.3", "a,b", "nan,1", "1e9999999,1", ","])
def test_a_mix_that_is_no_list_of_weights_is_refused(mix: str) -> None:
    with pytest.raises(ValueError, match="mix must be positive numbers"):
        shares(mix)
    with pytest.raises(ValueError, match="sum 10,000 or less"):
        shares("0.12345,0.87655")


# ---- what is refused ----


def test_too_little_text_and_uneven_batches_are_refused() -> None:
    with pytest.raises(DataError, match="training split has 8 tokens; one context takes 9"):
        batches(stream([8]), n_ctx=8, batch_tokens=16, seed=0)
    with pytest.raises(DataError, match="split of token folder 2 has 8 tokens"):
        reading([40], [8], mix="1,1")
    with pytest.raises(UsageError, match="20 is not a multiple of n_ctx 8") as error:
        batches(stream([99]), n_ctx=8, batch_tokens=20, seed=0)
    assert error.value.remedy == "set training.batch_tokens=16"
    with pytest.raises(UsageError, match="3 rows of n_ctx 8, which 2 processes cannot") as error:
        batches(stream([99]), n_ctx=8, batch_tokens=24, seed=0, world=World(size=2))
    assert error.value.remedy == "set training.batch_tokens=32"
    with pytest.raises(UsageError, match="has 2 weights for 3 token folders"):
        reading([40], [40], [40], mix="1,1")
    assert reading([9], rows=2).at(3)[0].shape == (2, 8)


# ---- held-out windows ----


@given(documents=lengths, most=st.integers(1, 400))
def test_held_out_windows_are_fixed_and_do_not_overlap(documents: list[int], most: int) -> None:
    tokens = stream([*documents, 1])
    starts, width = held_out_windows(tokens, n_ctx=8, most_tokens=most)
    assert width == min(8, len(tokens) - 1)
    seen = read_windows(tokens, starts, width)[1].numpy().ravel()
    assert len(np.unique(seen)) == len(seen) <= max(most, width)
    assert seen.max() < len(tokens) and (most < len(tokens) or len(seen) > len(tokens) - 1 - width)


@given(first=st.integers(1, 200), second=st.integers(1, 200), most=st.integers(16, 300))
def test_held_out_windows_of_a_mix(first: int, second: int, most: int) -> None:
    tokens = stream([first], [second, 20])
    starts, width = held_out_windows(tokens, n_ctx=8, most_tokens=most, mix="0.5,0.5")
    seen = read_windows(tokens, starts, width)[1].numpy().ravel()
    assert width == 8 and len(np.unique(seen)) == len(seen)
    counts = (starts < first).sum(), (starts >= first).sum()
    assert counts[0] == (max(min(most // 2, first - 1) // 8, 1) if first > 8 else 0)
    assert counts[1] == max(min(most // 2, second + 19) // 8, 1)


def test_a_held_out_split_of_one_token_is_refused() -> None:
    with pytest.raises(DataError, match="validation split has 1 tokens"):
        held_out_windows(stream([1]), n_ctx=8, most_tokens=99)
