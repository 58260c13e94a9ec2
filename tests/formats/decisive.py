"""A small trained model: it knows a text by heart, so its greedy choices have no near-ties."""

from collections import Counter
from functools import cache

import torch

from gptwo.formats.weights import Weights, model_of
from gptwo.model.gpt2 import GPT2
from gptwo.model.sizes import GPT2Config
from gptwo.tokens.bpe import cut
from gptwo.tokens.learn import learn_merges
from gptwo.tokens.tokenizer import Tokenizer

TEXT = (
    "The ferry leaves the old harbour at six, when the gulls are still asleep on the roofs. "
    "Anna, who sells the tickets, counts 14 people: two farmers, a priest, nine children and "
    "a man with a cello. He doesn't say where he's going; nobody asks him. “It's the café of "
    "the poor,” says the priest, “but the view costs nothing!”\n"
)
PROMPTS = ["The ferry leaves", "Anna, who sells", "“It's the café", "He doesn't say"]
CONFIG = GPT2Config(vocab_size=400, n_ctx=64, n_layer=2, n_head=2, n_embd=64)


STEPS, RATE = 200, 5e-3


@cache
def decisive() -> Weights:
    """Trained on `TEXT` for two seconds, with a vocabulary learned from it."""
    tokenizer = Tokenizer(learn_merges(Counter(cut(TEXT)), CONFIG.vocab_size - 257))
    ids = torch.tensor(tokenizer.encode(TEXT) * 2)
    torch.manual_seed(0)
    model = GPT2(CONFIG)
    optimizer = torch.optim.AdamW(model.parameters(), lr=RATE, weight_decay=0.0)
    decay = torch.optim.lr_scheduler.LinearLR(optimizer, 1.0, 0.0, STEPS)
    for _ in range(STEPS):
        starts = torch.randint(len(ids) // 2, (4,)).tolist()
        rows = torch.stack([ids[start : start + CONFIG.n_ctx + 1] for start in starts])
        loss = model.loss(rows[:, :-1], rows[:, 1:])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        decay.step()
    assert loss.item() < 0.1
    return Weights(CONFIG, {name: x.detach() for name, x in model.state_dict().items()}, tokenizer)


def greedy(weights: Weights, prompt: list[int], length: int) -> list[int]:
    """Our own continuation, without a cache: the most probable id, again and again."""
    model, ids = model_of(weights), list(prompt)
    with torch.no_grad():
        for _ in range(length):
            ids.append(int(model(torch.tensor([ids]))[0, -1].argmax()))
    return ids[len(prompt) :]
