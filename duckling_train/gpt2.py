"""The model in plain torch: what transformers' GPT2LMHeadModel computes, by the same operations, without its import.

Parameters have the same names and shapes, are drawn from the same random stream in the same order, and logits are equal
to the last bit, under autocast, too. transformers' own class takes seconds to import; this one starts a run at once.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it
from torch import nn

from duckling_train.config import TrainConfig
from duckling_train.precision import RECIPES

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

EPSILON = 1e-5
"""LayerNorm's."""
Activation = Callable[[torch.Tensor], torch.Tensor]


def _gelu_new(x: torch.Tensor) -> torch.Tensor:
    return 0.5 * x * (1.0 + torch.tanh(math.sqrt(2.0 / math.pi) * (x + 0.044715 * torch.pow(x, 3.0))))


def _relu2(x: torch.Tensor) -> torch.Tensor:
    return torch.square(F.relu(x))


ACTIVATIONS: dict[str, Activation] = {
    "gelu": F.gelu, "gelu_new": _gelu_new, "relu": F.relu, "relu2": _relu2, "silu": F.silu, "tanh": torch.tanh,
}  # fmt: skip
"""One for each of the setting's choices, by transformers' names."""


class Output(NamedTuple):
    """What the model returns."""

    logits: torch.Tensor
    """[rows, tokens, vocabulary]."""


class Conv1D(nn.Module):
    """GPT-2's linear layer: its weight is [inputs, outputs]."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.empty(inputs, outputs).normal_(0.0, 0.02))
        self.bias = nn.Parameter(torch.zeros(outputs))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return x · weight + bias."""
        return torch.addmm(self.bias, x.view(-1, x.size(-1)), self.weight).view(*x.shape[:-1], -1)


class Attention(nn.Module):
    """Causal self-attention of all heads."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.heads = config.n_head
        self.dropout = config.dropout
        self.c_attn = Conv1D(config.n_embd, 3 * config.n_embd)
        self.c_proj = Conv1D(config.n_embd, config.n_embd)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, cache: Cache | None = None) -> torch.Tensor:
        """Return the layer's output, [rows, tokens, width]; `mask` as in `Gpt2.forward`."""
        rows, tokens, width = x.shape
        heads = (part.view(rows, tokens, self.heads, -1).transpose(1, 2) for part in self.c_attn(x).split(width, dim=2))
        query, key, value = heads
        if cache is not None:
            key, value = cache.extended(self, key, value)
        mixed = F.scaled_dot_product_attention(
            query, key, value, attn_mask=mask, dropout_p=self.dropout if self.training else 0.0,
            scale=query.shape[-1] ** -0.5, is_causal=tokens > 1 and mask is None,
        )  # fmt: skip
        mixed = self.c_proj(mixed.transpose(1, 2).reshape(rows, tokens, width))
        return F.dropout(mixed, self.dropout, self.training)


class FeedForward(nn.Module):
    """Two linear layers with the activation between them."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.activation = ACTIVATIONS[config.activation]
        self.dropout = config.dropout
        self.c_fc = Conv1D(config.n_embd, config.n_inner)
        self.c_proj = Conv1D(config.n_inner, config.n_embd)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        """Return the layer's output, [rows, tokens, width]."""
        return F.dropout(self.c_proj(self.activation(self.c_fc(x))), self.dropout, self.training)


class Block(nn.Module):
    """A transformer block."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.ln_1 = nn.LayerNorm(config.n_embd, eps=EPSILON)
        self.attn = Attention(config)
        self.ln_2 = nn.LayerNorm(config.n_embd, eps=EPSILON)
        self.mlp = FeedForward(config)

    def forward(self, x: torch.Tensor, mask: torch.Tensor | None, cache: Cache | None = None) -> torch.Tensor:
        """Return the block's output."""
        x = self.attn(self.ln_1(x), mask, cache) + x
        return x + self.mlp(self.ln_2(x))  # type: ignore[no-any-return]


class Transformer(nn.Module):
    """All of the model but the softmax matrix."""

    def __init__(self, config: TrainConfig) -> None:
        super().__init__()
        self.dropout = config.dropout
        self.wte = nn.Embedding(config.vocab_size, config.n_embd)
        self.wpe = nn.Embedding(config.n_positions, config.n_embd)
        self.h = nn.ModuleList(Block(config) for _ in range(config.n_layer))
        self.ln_f = nn.LayerNorm(config.n_embd, eps=EPSILON)

    def forward(self, ids: torch.Tensor, mask: torch.Tensor | None, cache: Cache | None = None) -> torch.Tensor:
        """Return the final hidden states, [rows, tokens, width]."""
        first = cache.length if cache is not None else 0
        positions = torch.arange(ids.shape[1], device=ids.device) + first
        x = F.dropout(self.wte(ids) + self.wpe(positions[None]), self.dropout, self.training)
        for block in self.h:
            x = block(x, mask, cache)
        return self.ln_f(x)  # type: ignore[no-any-return]


class Gpt2(nn.Module):
    """The model. It trains and is called as transformers' class; `save_pretrained` writes it for that."""

    def __init__(self, config: TrainConfig) -> None:
        """Draw the weights from torch's global random stream, which is to be seeded first."""
        super().__init__()
        self.config = config
        self.end: int | None = None
        """The id that ends a text, for `generate`; None for none."""
        self.padding: int | None = None
        """The id that fills up a batch, for who opens the saved model."""
        self.transformer = Transformer(config)
        _draw_again(self.transformer, config)
        self.lm_head = nn.Linear(config.n_embd, config.vocab_size, bias=False)
        nn.init.normal_(self.lm_head.weight, 0.0, config.init_std)
        if config.tied:
            self.lm_head.weight = self.transformer.wte.weight
        self.to(RECIPES[config.precision].weights)

    def forward(
        self, input_ids: torch.Tensor, attention_mask: torch.Tensor | None = None, *, cache: Cache | None = None
    ) -> Output:
        """Return the logits of int64[rows, tokens] ids; `attention_mask` is that of `model.story_mask`."""
        return Output(self.lm_head(self.transformer(input_ids, attention_mask, cache)))


class Cache:
    """The keys and values of the tokens before, for a text that grows by one token at a time."""

    def __init__(self) -> None:
        self._kept: dict[nn.Module, tuple[torch.Tensor, torch.Tensor]] = {}

    @property
    def length(self) -> int:
        """How many tokens are in it."""
        return next((key.shape[2] for key, _ in self._kept.values()), 0)

    def extended(self, layer: nn.Module, key: torch.Tensor, value: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the layer's keys and values with those of the new tokens, [rows, heads, tokens, width of a head]."""
        if layer in self._kept:
            key, value = (torch.cat(pair, dim=2) for pair in zip(self._kept[layer], (key, value), strict=True))
        self._kept[layer] = key, value
        return key, value


def _draw_again(transformer: Transformer, config: TrainConfig) -> None:
    """Draw the weights as transformers does after it has constructed the modules, in its order."""
    spread, narrow = config.init_std, config.init_std / math.sqrt(2 * config.n_layer)
    for table in (transformer.wte, transformer.wpe):
        nn.init.normal_(table.weight, 0.0, spread)
    for block in transformer.h:
        assert isinstance(block, Block)
        for first, last in ((block.attn.c_attn, block.attn.c_proj), (block.mlp.c_fc, block.mlp.c_proj)):
            for layer, std in ((first, spread), (last, spread), (last, narrow)):
                nn.init.normal_(layer.weight, 0.0, std)


def gpt2_of(config: TrainConfig, weights: Mapping[str, torch.Tensor]) -> Gpt2:
    """Return the model with these tensors as its weights, not copied. A tied one may be there once or twice.

    torch's random stream stays as it was. Raises RuntimeError for other names or shapes than the config's.
    """
    with torch.random.fork_rng(devices=[]):  # not on the device meta, whose random numbers take a second to import
        model = Gpt2(config)
    tied = {"lm_head.weight": weights["transformer.wte.weight"]} if config.tied else {}
    model.load_state_dict({**weights, **tied}, assign=True)
    if config.tied:
        model.lm_head.weight = model.transformer.wte.weight
    return model


def as_plain(model: Gpt2 | GPT2LMHeadModel) -> Gpt2:
    """Return the Gpt2 of transformers' model, its weights not copied; of a Gpt2 itself."""
    if isinstance(model, Gpt2):
        return model
    plain = gpt2_of(config_of(model.config.to_dict()), model.state_dict())
    plain.end = model.generation_config.eos_token_id
    return plain


def config_of(settings: Mapping[str, Any]) -> TrainConfig:
    """Return a config of the shape that the settings of a GPT2Config say. Raises LookupError where one is missing."""
    sizes = {name: settings[name] for name in ("vocab_size", "n_embd", "n_head", "n_layer", "n_positions")}
    activation, tied = settings["activation_function"], settings.get("tie_word_embeddings", True)
    return TrainConfig(**sizes, activation=activation, tied=tied)


def save_pretrained(model: Gpt2, folder: Path) -> None:
    """Write `model` to a folder as transformers' `save_pretrained` does, the same files to the byte."""
    from safetensors.torch import save_file
    from transformers.generation.configuration_utils import GenerationConfig

    from duckling_train.model import model_config

    weights = {name: parameter.detach().contiguous() for name, parameter in model.named_parameters()}
    settings = model_config(model.config)
    settings.architectures = ["GPT2LMHeadModel"]
    settings.dtype = next(iter(weights.values())).dtype
    settings.use_cache, settings.eos_token_id, settings.pad_token_id = True, model.end, model.padding
    settings.save_pretrained(str(folder))
    GenerationConfig.from_model_config(settings).save_pretrained(str(folder))
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
