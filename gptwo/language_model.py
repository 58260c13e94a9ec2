"""A model with its tokenizer: the Python face of gptwo."""

import math
from dataclasses import dataclass, fields
from pathlib import Path
from typing import Any

from gptwo.artifacts import MANIFEST, digest, read_manifest, sha256_file
from gptwo.config import from_dict
from gptwo.errors import ModelError, UsageError
from gptwo.model.gpt2 import GPT2
from gptwo.model.weights import WEIGHTS, load_model, resolve, weight_files
from gptwo.progress import SILENT, Reporter
from gptwo.text.config import SampleConfig
from gptwo.text.generate import stream
from gptwo.tokens.tokenizer import Tokenizer
from gptwo.web.sources import fetch_released, released
from gptwo.world import here
from gptwo.zeroshot.score import Request, Scorer


@dataclass(frozen=True)
class LanguageModel:
    """Weights and vocabulary that belong together.

    >>> model = load("runs/demo")
    >>> model.generate("The state of the Union", max_tokens=20, temperature=0)
    """

    model: GPT2
    tokenizer: Tokenizer
    path: Path
    description: dict[str, Any]  # name, parameters, weights_sha256, tokenizer_fingerprint, ...

    def score(self, pairs: list[tuple[str, str]]) -> list[float]:
        """log p(continuation | context) in nats, one number a pair.

        An empty context is the start of a document.
        """
        requests = []
        for context, continuation in pairs:
            ids = self.tokenizer.encode(continuation)
            if not ids:
                raise UsageError("a continuation is empty", remedy="score some text")
            context_ids = self.tokenizer.encode(context) or [self.tokenizer.eot]
            requests.append(Request(context=context_ids, continuation=ids))
        return [score.logprob for score in self._scorer().score(requests)]

    def perplexity(self, text: str) -> float:
        """Per token, from the start of a document, each window half overlapping the last."""
        ids = self.tokenizer.encode(text)
        if not ids:
            raise UsageError("the text is empty", remedy="give some text")
        window = self.model.config.n_ctx
        found = self._scorer().rolling(
            ids, window=window, stride=max(window // 2, 1), prefix=self.tokenizer.eot
        )
        return math.exp(-found.mean())

    def _scorer(self) -> Scorer:
        """Rows of the embedding past the tokenizer's last id are padding, not words."""
        return Scorer(self.model, vocab_size=self.tokenizer.vocab_size)

    def generate(self, prompt: str = "", **settings: Any) -> str:
        """A continuation of `prompt`; settings are the fields of `SampleConfig`."""
        names = {field.name for field in fields(SampleConfig)}
        unknown = sorted(set(settings) - names)
        if unknown:
            raise UsageError(
                f"unknown setting {unknown[0]!r}",
                remedy=f"settings are: {', '.join(sorted(names))}",
            )
        config = from_dict(SampleConfig, settings)
        return "".join(stream(self.model, self.tokenizer, prompt, config))


def find_model(model: str | Path, reporter: Reporter = SILENT) -> Path:
    """What a MODEL stands for: a path as it is, or a released name as its folder in the cache.

    A released model is downloaded the first time. Something of that name on disk comes first.
    """
    path, known = Path(model), released()
    if path.exists():
        return path
    if str(model) not in known:
        raise ModelError(
            f"{model} does not exist",
            remedy=f"name a run or a model folder, or one of {', '.join(known)}",
        )
    return fetch_released(known[str(model)], reporter)


def released_name(weights_sha256: str) -> str:
    """The released model that has these very weights, "" for none."""
    names = [n for n, m in released().items() if m.files[WEIGHTS].sha256 == weights_sha256]
    return names[0] if names else ""


def load(model: str | Path, *, device: str = "", reporter: Reporter = SILENT) -> LanguageModel:
    """Open a model: its folder, a run (the newest checkpoint), or a released name such as "gpt2".

    A folder may be a checkpoint or a Hugging Face GPT-2. Raises ModelError (exit code 4) for what
    is missing, damaged or does not fit together, NetworkError (7) for a download without an answer.
    """
    folder = resolve(find_model(model, reporter))
    world = here(device=device)
    network = load_model(folder, world.device)
    tokenizer = Tokenizer.load(folder)
    if tokenizer.vocab_size > network.config.vocab_size:
        raise ModelError(
            f"{folder}: the tokenizer has {tokenizer.vocab_size:,} tokens, "
            f"the model {network.config.vocab_size:,}",
            remedy="use the tokenizer this model was trained with",
        )
    description = {
        "name": str(model),
        "parameters": sum(p.numel() for p in network.parameters()),
        "weights_sha256": _weights_sha256(folder),
        "tokenizer_fingerprint": tokenizer.fingerprint,
        "dtype": str(network.wte.weight.dtype).removeprefix("torch."),
        "shape": dict(network.config.__dict__),
    }
    return LanguageModel(network, tokenizer, folder, description)


def _weights_sha256(folder: Path) -> str:
    """Of the file, or of the hashes of its shards.

    From the manifest where there is one: loading has just checked the files against it.
    """
    known = {}
    if (folder / MANIFEST).exists():
        known = read_manifest(folder, error=ModelError).files
    hashes = [
        known[path.name]["sha256"] if path.name in known else sha256_file(path)
        for path in weight_files(folder)
    ]
    return hashes[0] if len(hashes) == 1 else digest(hashes)
