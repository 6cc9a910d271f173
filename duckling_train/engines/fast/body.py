"""The transformer of K models at once, from the sum of the embeddings to `ln_f`: what `Gpt2` computes for each.

Linear layers are batched products over K, attention is one call over the K · rows sequences.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it

from duckling_train.config import TrainConfig
from duckling_train.engines.fast.arithmetic import Arithmetic
from duckling_train.engines.fast.attention import CausalAttention
from duckling_train.engines.fast.compiled import CompiledAttention, CompiledGelu
from duckling_train.engines.fast.parameters import Views
from duckling_train.gpt2 import ACTIVATIONS, EPSILON


@dataclass(frozen=True)
class Body:
    """The blocks and the last LayerNorm."""

    config: TrainConfig
    arithmetic: Arithmetic

    def __call__(self, x: torch.Tensor, weights: Views, mask: torch.Tensor | None) -> torch.Tensor:
        """Return the final hidden states, [K, rows, context, width].

        `x` is the sum of the embeddings, of that shape; `weights` are [K, *shape], those of the linear layers as
        operands; `mask` is bool[K · rows, 1, context, context], or None for plain causal attention.
        """
        activation = ACTIVATIONS[self.config.activation]
        if self.config.compile == "yes" and self.config.activation == "gelu":
            activation = CompiledGelu.apply
        for number in range(self.config.n_layer):
            at = f"transformer.h.{number}."
            joined = self._linear(_norm(x, weights, at + "ln_1"), weights, at + "attn.c_attn")
            x = self._linear(self._attend(joined, mask), weights, at + "attn.c_proj") + x
            inner = self._linear(_norm(x, weights, at + "ln_2"), weights, at + "mlp.c_fc")
            x = x + self._linear(activation(inner), weights, at + "mlp.c_proj")
        return _norm(x, weights, "transformer.ln_f")

    def _linear(self, x: torch.Tensor, weights: Views, name: str) -> torch.Tensor:
        weight, bias = weights[name + ".weight"], weights[name + ".bias"]
        flat = self.arithmetic.operand(x).flatten(1, 2)
        if len(x) == 1:
            product = torch.addmm(
                bias.squeeze(0), flat.squeeze(0), weight.squeeze(0)
            )  # an index would fill its gradient
        else:
            product = torch.baddbmm(bias[:, None], flat, weight)
        return self.arithmetic.result(product).view(*x.shape[:-1], -1)

    def _attend(self, joined: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        if joined.device.type != "cpu":
            return torch_attention(joined.flatten(0, 1), self.config.n_head, mask).view(*joined.shape[:-1], -1)
        attention = CompiledAttention if self.config.compile == "yes" else CausalAttention
        mixed: torch.Tensor = attention.apply(  # type: ignore[no-untyped-call]
            joined.flatten(0, 1), self.config.n_head, mask, self.arithmetic
        )
        return mixed.view(*joined.shape[:-1], -1)


def torch_attention(joined: torch.Tensor, heads: int, mask: torch.Tensor | None) -> torch.Tensor:
    """Return what `CausalAttention` does, by torch's own, which on a GPU is one kernel."""
    query, key, value = joined.view(*joined.shape[:2], 3, heads, -1).permute(2, 0, 3, 1, 4)
    mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask, is_causal=mask is None)
    return mixed.transpose(1, 2).flatten(2)


def _norm(x: torch.Tensor, weights: Views, name: str) -> torch.Tensor:
    weight, bias = weights[name + ".weight"], weights[name + ".bias"]
    if len(x) == 1:
        return F.layer_norm(x, x.shape[-1:], weight.squeeze(0), bias.squeeze(0), EPSILON)
    # In float32, rounded once, as layer_norm itself does it.
    normal = F.layer_norm(x.float(), x.shape[-1:], eps=EPSILON)
    return torch.addcmul(bias[:, None, None].float(), normal, weight[:, None, None].float()).to(x.dtype)
