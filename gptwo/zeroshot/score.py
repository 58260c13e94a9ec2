"""The scoring engine: how likely is this continuation after that context?

Ten options after one long passage need not read the passage ten times. Requests with the same
context become one row, the context followed by all continuations:

    token      the  cat  sat |  on  the |  by  its  own
    position    0    1    2  |   3   4  |   3   4    5
    branch      0    0    0  |   1   1  |   2   2    2

A token sees the context and its own branch, so each continuation is scored as if it stood alone.
Rows are sorted by length and batched to a token budget, and the vocabulary projection, the most
expensive matrix product of a small model, runs only where a token is scored. Scores depend on the
batch a request falls into by rounding alone: at most 1e-5 nats per token in float32.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from gptwo.errors import ModelError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.zeroshot.forward import forward_of

PROJECTION_FLOATS = 1 << 25  # logits held at once: 128 MB in float32
CACHED_ROWS = 8  # of logits, read several times while they are in a processor's cache


@dataclass(frozen=True, kw_only=True, slots=True)
class Request:
    """The tokens to score and what stands before them."""

    context: Sequence[int]
    continuation: Sequence[int]


@dataclass(frozen=True, kw_only=True, slots=True)
class Score:
    """Natural-log probabilities of one continuation.

    `token_greedy` says of each token whether none was more likely; `allowed` the same of the
    first token when barred tokens do not count; `cut` how many context tokens did not fit.
    """

    token_logprobs: list[float]
    token_greedy: list[bool]
    allowed: bool
    cut: int

    @property
    def logprob(self) -> float:
        return sum(self.token_logprobs)

    @property
    def greedy(self) -> bool:
        return all(self.token_greedy)


@dataclass(slots=True)
class Row:
    """A context and the continuations (indices into the requests) that share it."""

    context: Sequence[int]
    cut: int
    members: list[int]
    length: int


class Scorer:
    """Scores requests with one model.

    `vocab_size` hides padding rows of the embedding (0: there are none); tokens in `barred` are
    passed over by `Score.allowed`. `reordered` says that the weights will not change: where it
    pays, a copy of them is kept as the processor's kernels read them (see `forward.py`).
    """

    def __init__(
        self,
        model: GPT2,
        *,
        token_budget: int = 2048,
        vocab_size: int = 0,
        barred: Sequence[int] = (),
        reordered: bool = False,
    ) -> None:
        self.model, self.token_budget = model.eval(), token_budget
        self.reader = forward_of(model) if reordered else model
        self.n_ctx = model.config.n_ctx
        self.vocab_size = vocab_size or model.config.vocab_size
        self.device = next(model.parameters()).device
        self.barred = torch.tensor(list(barred), dtype=torch.long, device=self.device)

    @torch.inference_mode()
    def score(self, requests: Sequence[Request]) -> list[Score]:
        """One score per request, in their order.

        A context that does not fit is cut from the left, by as much for all that share it.
        """
        scores: list[Score | None] = [None] * len(requests)
        for batch in self._batches(self._rows(requests)):
            self._score_batch(batch, requests, scores)
        return [score for score in scores if score is not None]

    def rolling(
        self, ids: Sequence[int], *, window: int = 0, stride: int = 0, prefix: int | None
    ) -> np.ndarray:
        """Log-probability of each token of a text of any length, float64 [len(ids)].

        Without a prefix token the first token has no context and is left out: [len(ids) - 1].
        """
        windows = rolling_windows(ids, window or self.n_ctx, stride, prefix)
        if windows and (window or 1) > self.n_ctx:
            raise UsageError(
                f"window of {window} tokens, the model sees {self.n_ctx}", remedy="make it smaller"
            )
        return np.array([p for score in self.score(windows) for p in score.token_logprobs])

    def _rows(self, requests: Sequence[Request]) -> list[Row]:
        """Group requests by context; a group too long for one row is spread over several."""
        groups: dict[tuple[int, ...], list[int]] = {}
        for index, request in enumerate(requests):
            if not len(request.context) or not len(request.continuation):
                raise UsageError(
                    f"request {index} has an empty context or continuation",
                    remedy="put <|endoftext|> before a text that has no context",
                )
            groups.setdefault(tuple(request.context), []).append(index)
        rows = []
        for context, members in groups.items():
            fed = {index: len(requests[index].continuation) - 1 for index in members}
            room = self.n_ctx - max(fed.values())  # the last token is scored, never fed
            if room < 1:
                raise UsageError(
                    f"a continuation of {max(fed.values()) + 1} tokens does not fit the model's "
                    f"context of {self.n_ctx}",
                    remedy="score it as a rolling text (perplexity)",
                )
            kept = context[-room:]
            width = 2 * self.n_ctx
            row = None
            for index in members:
                if row is None or row.length + fed[index] > width:
                    row = Row(kept, len(context) - len(kept), [], len(kept))
                    rows.append(row)
                row.members.append(index)
                row.length += fed[index]
        return rows

    def _batches(self, rows: list[Row]) -> Iterator[list[Row]]:
        """Rows of like length together; single continuations apart, they need no tree mask."""
        batch: list[Row] = []
        order = sorted(range(len(rows)), key=lambda i: (_branches(rows[i]), -rows[i].length, i))
        for row in (rows[i] for i in order):
            if batch and (
                _branches(row) != _branches(batch[0])
                or (len(batch) + 1) * batch[0].length > self.token_budget
            ):
                yield batch
                batch = []
            batch.append(row)
        if batch:
            yield batch

    def _score_batch(
        self, rows: list[Row], requests: Sequence[Request], scores: list[Score | None]
    ) -> None:
        B, T = len(rows), rows[0].length
        ids, positions, branch = (np.zeros((B, T), dtype=np.int64) for _ in range(3))
        branch[:] = -1  # padding is a branch of its own
        at: list[int] = []  # flat position whose hidden state predicts ...
        targets: list[int] = []  # ... this token
        for b, row in enumerate(rows):
            start = len(row.context)
            ids[b, :start], positions[b, :start] = row.context, np.arange(start)
            branch[b, :start] = 0
            for number, index in enumerate(row.members, 1):
                continuation = requests[index].continuation
                stop = start + len(continuation) - 1
                ids[b, start:stop] = continuation[:-1]
                positions[b, start:stop] = len(row.context) + np.arange(stop - start)
                branch[b, start:stop] = number
                at += [b * T + len(row.context) - 1, *range(b * T + start, b * T + stop)]
                targets += continuation
                start = stop
        hidden = self._hidden(ids, positions, branch, tree=_branches(rows[0]))  # B T C
        logprobs, greedy, allowed = self._project(hidden.flatten(0, 1), at, targets)
        first = 0
        for row in rows:
            for index in row.members:
                part = slice(first, first + len(requests[index].continuation))
                scores[index] = Score(
                    token_logprobs=logprobs[part],
                    token_greedy=greedy[part],
                    allowed=allowed[first],
                    cut=row.cut,
                )
                first = part.stop

    def _hidden(
        self, ids: np.ndarray, positions: np.ndarray, branch: np.ndarray, *, tree: bool
    ) -> Tensor:
        tokens = torch.from_numpy(ids).to(self.device)
        if not tree:  # padding comes after everything scored, so the causal mask hides it
            return self.reader.hidden(tokens)
        seen = torch.from_numpy(tree_mask(branch)).to(self.device)  # B 1 T T
        return self.reader.hidden(
            tokens, positions=torch.from_numpy(positions).to(self.device), mask=seen
        )

    def _project(
        self, hidden: Tensor, at: list[int], targets: list[int]
    ) -> tuple[list[float], list[bool], list[bool]]:
        """Log-probability of targets[i] after position at[i], and whether it is the best token."""
        head = self.model.head[: self.vocab_size]  # V C
        step = max(1, PROJECTION_FLOATS // len(head))
        block = CACHED_ROWS if hidden.device.type == "cpu" else step
        where = torch.tensor(at, device=self.device)  # N
        wanted = torch.tensor(targets, device=self.device)  # N
        held = hidden.new_empty(min(step, len(at)), len(head))
        logprobs, greedy, allowed = [], [], []
        for first in range(0, len(at), step):
            chunk = hidden[where[first : first + step]]  # n C
            torch.mm(chunk, head.t(), out=held[: len(chunk)])
            for start in range(0, len(chunk), block):
                logits = held[start : min(start + block, len(chunk))].float()  # b V
                target = wanted[first + start : first + start + len(logits)]  # b
                chosen = logits.gather(1, target[:, None])[:, 0]
                if len(self.barred):
                    allowed.append(self._best_allowed(logits, target, chosen))
                best = logits.amax(-1)
                greedy.append(chosen == best)
                # logsumexp in place: the logits are the largest thing there is
                total = logits.sub_(best[:, None]).exp_().sum(-1).log_()
                logprobs.append(chosen - best - total)
        found = torch.cat(logprobs)
        if not bool(torch.isfinite(found).all()):
            raise ModelError(
                "the model's scores are not finite numbers",
                remedy="check the checkpoint; evaluate in float32",
            )
        first_choice = torch.cat(greedy).tolist()
        passed = torch.cat(allowed).tolist() if allowed else first_choice
        return found.tolist(), first_choice, passed

    def _best_allowed(self, logits: Tensor, target: Tensor, chosen: Tensor) -> Tensor:
        """Whether each target is the best of the tokens that are not barred."""
        kept = logits[:, self.barred]
        logits[:, self.barred] = -torch.inf
        best = logits.amax(-1)
        logits[:, self.barred] = kept
        return (chosen == best) & ~torch.isin(target, self.barred)


def _branches(row: Row) -> bool:
    return len(row.members) > 1


def tree_mask(branch: np.ndarray) -> np.ndarray:
    """True where position i may look at position j: bool [B, 1, T, T] from branch numbers [B, T].

    Branch 0 is the context, seen by all that follows; other branches see themselves only.
    """
    T = branch.shape[1]
    same = branch[:, :, None] == branch[:, None, :]
    mask = np.tril(np.ones((T, T), dtype=bool)) & (same | (branch[:, None, :] == 0))
    return mask[:, None]


def rolling_windows(
    ids: Sequence[int], window: int, stride: int, prefix: int | None
) -> list[Request]:
    """Cut a text into requests that score every token once.

    A window feeds at most `window` tokens. The first scores all it can; each later one moves on by
    `stride` (0: by a whole window) and scores only those last tokens; the last may score fewer.
    """
    stride = stride or window
    if not 0 < stride <= window:
        raise UsageError(f"stride {stride} with window {window}", remedy="1 <= stride <= window")
    tokens = [*([] if prefix is None else [prefix]), *(int(token) for token in ids)]
    windows, start, stop = [], 1, min(1 + window, len(tokens))
    while start < stop:
        left = max(0, stop - 1 - window)
        windows.append(Request(context=tokens[left:start], continuation=tokens[start:stop]))
        start, stop = stop, min(stop + stride, len(tokens))
    return windows


@torch.inference_mode()
def score_plainly(model: GPT2, requests: Sequence[Request]) -> list[Score]:
    """The plain twin of `Scorer`: one request at a time, every position projected."""
    scores = []
    for request in requests:
        fed = len(request.continuation) - 1
        context = list(request.context)[-(model.config.n_ctx - fed) :]
        ids = torch.tensor([[*context, *request.continuation[:-1]]])
        logprobs = torch.log_softmax(model(ids)[0].float(), dim=-1)[len(context) - 1 :]
        targets = torch.tensor(list(request.continuation))
        best = (logprobs.argmax(-1) == targets).tolist()
        scores.append(
            Score(
                token_logprobs=logprobs.gather(1, targets[:, None])[:, 0].tolist(),
                token_greedy=best,
                allowed=best[0],
                cut=len(request.context) - len(context),
            )
        )
    return scores
