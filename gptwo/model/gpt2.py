"""GPT-2, exactly as released (paper section 2.3; openai/gpt-2 src/model.py).

Axes in the shape comments:
    B batch   T time, the positions of this call   S all positions seen, cached ones included
    C channels (n_embd)   H heads   D head width (C / H)   V vocabulary

Compared with GPT-1, layer normalisation moves to the input of each sub-block, one more follows the
last block, and the residual branches start smaller the more of them there are.
"""

import copy
import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from gptwo.model.loss import linear_cross_entropy
from gptwo.model.sizes import GPT2Config

INIT_STD = 0.02
LAYER_NORM_EPSILON = 1e-5


class Conv1D(nn.Module):
    """An affine map whose weight is stored [in, out], as in the released files.

    Keeping the released orientation means weights load without a transposition (a square c_proj
    transposed by mistake loads silently) and the product reads memory in order.
    """

    def __init__(self, n_in: int, n_out: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(n_in, n_out))
        self.bias = nn.Parameter(torch.zeros(n_out))

    def forward(self, x: Tensor) -> Tensor:
        flat = torch.addmm(self.bias, x.reshape(-1, x.size(-1)), self.weight)
        return flat.view(*x.shape[:-1], -1)  # (..., out)


class KeyValueCache:
    """Keys and values of the positions already seen: one K and one V tensor per layer.

    Preallocated, so that a decoding step writes in place and copies nothing.
    """

    def __init__(
        self,
        config: GPT2Config,
        batch: int,
        length: int,
        device: torch.device | str = "cpu",
        dtype: torch.dtype = torch.float32,
    ) -> None:
        shape = (batch, config.n_head, length, config.n_embd // config.n_head)  # (B, H, S, D)
        self.keys = [torch.zeros(shape, device=device, dtype=dtype) for _ in range(config.n_layer)]
        self.values = [torch.zeros_like(k) for k in self.keys]
        self.capacity = length
        self.length = 0  # positions filled; advanced once per call, by the model

    def extend(self, layer: int, k: Tensor, v: Tensor) -> tuple[Tensor, Tensor]:
        """Append this call's keys and values; return all that are filled."""
        end = self.length + k.size(2)
        self.keys[layer][:, :, self.length : end] = k
        self.values[layer][:, :, self.length : end] = v
        return self.keys[layer][:, :, :end], self.values[layer][:, :, :end]  # (B, H, S, D)

    def row(self, row: int, length: int) -> "KeyValueCache":
        """One row as a cache of its own, on the same memory, with `length` positions filled."""
        own = copy.copy(self)
        own.keys = [k[row : row + 1] for k in self.keys]
        own.values = [v[row : row + 1] for v in self.values]
        own.length = length
        return own


def left_padded(padding: Tensor, length: int, start: int = 0) -> tuple[Tensor, Tensor]:
    """Texts of different lengths in one batch, ending together: where each id stands and looks.

    `padding` (B) counts the ids before each text. For `length` columns from `start` on (how much
    the cache holds): positions (B, T), 0 at a text's first id, and the mask (B, 1, T, S), both for
    `GPT2.hidden`. Padding sees itself, because a softmax over nothing is not a number.
    """
    keys = torch.arange(start + length, device=padding.device)  # (S)
    queries = keys[start:, None]  # (T, 1)
    positions = (keys[start:] - padding[:, None]).clamp(min=0)  # (B, T)
    of_text = keys >= padding[:, None, None]  # (B, 1, S)
    return positions, ((keys <= queries) & of_text | (keys == queries))[:, None]


class Attention(nn.Module):
    """Causal multi-head self-attention."""

    def __init__(self, n_embd: int, n_head: int, dropout: float) -> None:
        super().__init__()
        self.n_head, self.dropout = n_head, dropout
        self.c_attn = Conv1D(n_embd, 3 * n_embd)
        self.c_proj = Conv1D(n_embd, n_embd)

    def forward(
        self,
        x: Tensor,
        layer: int = 0,
        cache: KeyValueCache | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        B, T, C = x.shape
        # One map gives queries, keys and values, in this order; heads are contiguous slices.
        q, k, v = (
            part.view(B, T, self.n_head, C // self.n_head).transpose(1, 2)  # (B, H, T, D)
            for part in self.c_attn(x).split(C, dim=2)
        )
        if cache is not None:
            k, v = cache.extend(layer, k, v)  # (B, H, S, D)
        mixed = F.scaled_dot_product_attention(  # scores are scaled by 1 / sqrt(D)
            q,
            k,
            v,
            attn_mask=mask,
            dropout_p=self.dropout if self.training else 0.0,
            is_causal=mask is None and T > 1,
        )
        return self.c_proj(mixed.transpose(1, 2).reshape(B, T, C))  # (B, T, C)


class MLP(nn.Module):
    """Two maps with a GELU between them: the released models were trained with its tanh form."""

    def __init__(self, n_embd: int, activation: str = "gelu_new") -> None:
        super().__init__()
        self.c_fc = Conv1D(n_embd, 4 * n_embd)
        self.c_proj = Conv1D(4 * n_embd, n_embd)
        self.approximate = "tanh" if activation == "gelu_new" else "none"

    def forward(self, x: Tensor) -> Tensor:
        return self.c_proj(F.gelu(self.c_fc(x), approximate=self.approximate))  # (B, T, C)


class Block(nn.Module):
    """One layer: each sub-block reads a normalised copy and adds to the residual stream."""

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, LAYER_NORM_EPSILON)
        self.attn = Attention(config.n_embd, config.n_head, config.dropout)
        self.ln_2 = nn.LayerNorm(config.n_embd, LAYER_NORM_EPSILON)
        self.mlp = MLP(config.n_embd, config.activation)
        self.drop = nn.Dropout(config.dropout)

    def forward(
        self, x: Tensor, layer: int, cache: KeyValueCache | None, mask: Tensor | None
    ) -> Tensor:
        x = x + self.drop(self.attn(self.ln_1(x), layer, cache, mask))  # (B, T, C)
        return x + self.drop(self.mlp(self.ln_2(x)))  # (B, T, C)


class GPT2(nn.Module):
    """The model: embeddings, blocks, a last normalisation, and wte again as the output head.

    A config may ask for a head of its own (`lm_head`), as some descendants have.

    >>> model = GPT2(GPT2Config(n_layer=2, n_head=2, n_embd=64))
    >>> model(torch.tensor([[15496, 995]])).shape
    torch.Size([1, 2, 50257])
    """

    def __init__(self, config: GPT2Config) -> None:
        super().__init__()
        self.config = config
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_ctx, config.n_embd)
        self.drop = nn.Dropout(config.dropout)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, LAYER_NORM_EPSILON)
        if not config.tied_head:
            self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        self._initialise()

    @property
    def head(self) -> Tensor:
        """The weight of the output head (V, C): the input embedding, if it is tied."""
        return self.wte.weight if self.config.tied_head else self.lm_head.weight

    def _initialise(self) -> None:
        """All matrices N(0, 0.02), biases 0, gains 1.

        The last map of each residual branch starts smaller by the square root of their number, so
        that the stream's variance does not grow with depth. The paper (section 2.3) leaves open
        what it counts: two branches per block, or blocks.
        """
        L = self.config.n_layer
        scale = 1 / math.sqrt({"2L": 2 * L, "L": L, "none": 1}[self.config.residual_scale])
        for name, parameter in self.named_parameters():
            if parameter.dim() > 1:
                std = self.config.wpe_std if name == "wpe.weight" else INIT_STD
                branch_end = name.endswith("c_proj.weight")
                nn.init.normal_(parameter, std=std * scale if branch_end else std)

    def hidden(
        self,
        ids: Tensor,
        *,
        cache: KeyValueCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """ids (B, T) -> the stream after ln_f (B, T, C).

        Without `positions` they continue the cache. `mask` (B, 1, T, S), True where a query may
        look; without one attention is causal. Raises ValueError past the last position.
        """
        T = ids.size(1)
        start = cache.length if cache is not None else 0
        if cache is not None and start + T > cache.capacity:
            raise ValueError(f"{start + T} positions, but the cache holds {cache.capacity}")
        if positions is None:
            positions = torch.arange(start, start + T, device=ids.device)  # (T)
            last = start + T - 1
        else:
            last = int(positions.max())
        if last >= self.config.n_ctx:  # past its table a device may answer with zeros
            raise ValueError(f"{last + 1} positions, but the model has {self.config.n_ctx} (n_ctx)")
        if mask is None and start and T > 1:
            # Query i of this call stands at start + i and sees everything up to itself; a single
            # query is the last position and sees all there is, so it needs no mask.
            mask = torch.ones(T, start + T, dtype=torch.bool, device=ids.device).tril(start)
        x = self.drop(self.wte(ids) + self.wpe(positions))  # (B, T, C)
        for layer, block in enumerate(self.h):
            x = block(x, layer, cache, mask)  # (B, T, C)
        if cache is not None:
            cache.length += T
        return self.ln_f(x)  # (B, T, C)

    def logits(self, hidden: Tensor) -> Tensor:
        """(..., C) -> (..., V), without a bias."""
        return F.linear(hidden, self.head)

    def forward(
        self,
        ids: Tensor,
        *,
        cache: KeyValueCache | None = None,
        positions: Tensor | None = None,
        mask: Tensor | None = None,
    ) -> Tensor:
        """ids (B, T) -> logits (B, T, V); the arguments of `hidden`."""
        return self.logits(self.hidden(ids, cache=cache, positions=positions, mask=mask))

    def loss(self, ids: Tensor, targets: Tensor) -> Tensor:
        """Mean cross-entropy in nats of `targets` (B, T) given `ids` (B, T)."""
        hidden = self.hidden(ids).reshape(-1, self.config.n_embd)  # (B T, C)
        return linear_cross_entropy(hidden, self.head, targets.reshape(-1))
