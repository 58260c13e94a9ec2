"""From tokens to what a client reads: text that is certain, log-probabilities token by token."""

import codecs
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

from gptwo.serve.worker import Piece
from gptwo.text.generate import Held
from gptwo.text.prefixes import Scores
from gptwo.tokens.bpe import END_OF_TEXT
from gptwo.tokens.tokenizer import Tokenizer

Told = tuple[int, float | None, list[tuple[int, float]]]  # id, its log-probability, alternatives


@dataclass
class Delta:
    """What is new of a choice: text, and an entry for each of its tokens."""

    text: str = ""
    logprobs: dict[str, list] | None = None


@dataclass
class Choice:
    """One text of an answer while it is written.

    `most` alternatives are told for each token; None tells no log-probabilities.
    """

    tokenizer: Tokenizer
    prompt: list[int]
    stops: tuple[str, ...]
    echo: bool
    most: int | None
    finish: str = ""
    tokens: int = 0  # that were written
    logprob: float = 0.0  # of those, together
    _length: int = 0  # characters that were told
    _untold: list[tuple[Told, int]] = field(default_factory=list)  # with places in the text

    def __post_init__(self) -> None:
        self._held = Held(self.stops)
        self._places = Places(self.tokenizer)

    def begin(self, scores: Scores | None) -> Delta:
        """The prompt itself, if it is to be echoed."""
        if not self.echo:
            return Delta("", _entries([], self.tokenizer, self.most))
        text = self.tokenizer.decode(self.prompt)
        if self.most is not None:
            self._take(told_of(self.prompt, scores, self.most))
        self._places.fresh(len(text))
        return self._delta(text)

    def push(self, piece: Piece) -> Delta:
        """More tokens; sets `finish` when this was the last of it."""
        text = ""
        for number, token in enumerate(piece.ids):
            self.tokens += 1
            if piece.logprobs:
                logprob, best = piece.logprobs[number]
                self.logprob += logprob
                if self.most is not None:
                    self._take([(token, logprob, best[: self.most])])
            text += self._held.push(self.tokenizer.token_bytes(token))
            if self._held.stopped:
                self.finish = "stop"
                break
        if piece.finish and not self.finish:
            self.finish = piece.finish
            text += self._held.end()
        return self._delta(text)

    def _take(self, told: Sequence[Told]) -> None:
        self._untold += [(entry, self._places.of(entry[0])) for entry in told]

    def _delta(self, text: str) -> Delta:
        """`text` with the tokens that begin in it. At the end those without a character come too,
        but for those past a stop text."""
        self._length += len(text)
        open_end = bool(self.finish) and not self._held.stopped
        count = 0
        for _, place in self._untold:
            if place >= self._length and not open_end:
                break
            count += 1
        told, self._untold = self._untold[:count], self._untold[count:]
        return Delta(text, _entries(told, self.tokenizer, self.most))


class Places:
    """Where tokens begin in the text, in characters; a part of one begins where the whole does."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self.tokenizer, self.at = tokenizer, 0
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")

    def of(self, token: int) -> int:
        """The place of the next token."""
        place = self.at
        self.at += len(self._decoder.decode(self.tokenizer.token_bytes(token)))
        return place

    def fresh(self, at: int) -> None:
        """Go on at a character's border."""
        self.at = at
        self._decoder.reset()


def told_of(ids: Sequence[int], scores: Scores | None, most: int) -> list[Told]:
    """The prompt's tokens; nothing is known of the first."""
    if scores is None or not ids:
        return [(token, None, []) for token in ids]
    numbers = scores.logprobs.tolist()
    best = zip(scores.ids[:, :most].tolist(), scores.best[:, :most].tolist(), strict=True)
    pairs = [list(zip(*both, strict=True)) for both in best]
    first: list[Told] = [(ids[0], None, [])]
    return first + list(zip(ids[1:], numbers[1:], pairs[1:], strict=True))


def _entries(
    told: Sequence[tuple[Told, int]], tokenizer: Tokenizer, most: int | None
) -> dict[str, list] | None:
    """The shape of /v1/completions: four lists of one length. A token's own log-probability is
    always among its alternatives."""
    if most is None:
        return None
    tops: list[dict[str, float] | None] = []
    for (token, logprob, best), _ in told:
        top = {name_of(i, tokenizer): value for i, value in best}
        tops.append(None if logprob is None else top | {name_of(token, tokenizer): logprob})
    return {
        "tokens": [name_of(token, tokenizer) for (token, _, _), _ in told],
        "token_logprobs": [logprob for (_, logprob, _), _ in told],
        "top_logprobs": tops,
        "text_offset": [place for _, place in told],
    }


def name_of(token: int, tokenizer: Tokenizer) -> str:
    """A token's text; its bytes, "bytes:\\xe6", where they are a part of a character: so no two
    tokens have the same name."""
    if token == tokenizer.eot:
        return END_OF_TEXT
    spelt = tokenizer.token_bytes(token)
    try:
        return spelt.decode("utf-8")
    except UnicodeDecodeError:
        return "bytes:" + "".join(f"\\x{byte:02x}" for byte in spelt)


def joined(deltas: Sequence[Delta]) -> Delta:
    """All of a choice."""
    entries: dict[str, list] | None = None
    for delta in deltas:
        if delta.logprobs is not None:
            entries = entries or {name: [] for name in delta.logprobs}
            for name, values in delta.logprobs.items():
                entries[name] += values
    return Delta("".join(delta.text for delta in deltas), entries)


def choice_object(index: int, delta: Delta, finish: str) -> dict[str, Any]:
    """As in "choices" of an answer or of a part of one."""
    return {
        "text": delta.text,
        "index": index,
        "logprobs": delta.logprobs,
        "finish_reason": finish or None,
    }
