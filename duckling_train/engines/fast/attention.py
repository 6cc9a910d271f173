"""Causal attention with its gradient: on a CPU faster than torch's, which is made for much longer contexts.

The queries are taken in blocks. A block needs no keys behind its own, so nearly half of the products are left out. For
a block, with keys K and values V: S = Q Kᵀ / √e, P = softmax(S), out = P V, and backward dV = Pᵀ dout, dP = dout Vᵀ,
dS = P (dP − Σ P dP), dQ = dS K / √e, dK = dSᵀ Q / √e. S, dP and both softmaxes are float32; P and dS are rounded to the
arithmetic's operands where they are multiplied.
"""

from __future__ import annotations

from typing import Any

import torch

from duckling_train.engines.fast.arithmetic import Arithmetic

BLOCKS = 4
"""Blocks of a context: fewer leave less out, more have smaller products."""


class CausalAttention(torch.autograd.Function):
    """Softmax attention of queries to the keys up to their own, or to those that a mask admits of them."""

    @staticmethod
    def forward(
        ctx: Any, joined: torch.Tensor, heads: int, mask: torch.Tensor | None, arithmetic: Arithmetic
    ) -> torch.Tensor:
        """Return what the heads attended to, [sequences, context, width], in the dtype of `joined`.

        `joined` are the queries, keys and values, [sequences, context, 3 · width], as GPT-2 has them side by side.
        `mask` is bool[sequences, 1, context, context], as of `model.story_mask`; None masks the future alone.
        """
        sequences, context, width = *joined.shape[:2], joined.shape[2] // 3
        parts = joined.view(sequences, context, 3, heads, -1).permute(2, 0, 3, 1, 4)
        query, key, value = _copied(parts, torch.float32).flatten(1, 2)
        query *= (scale := query.shape[-1] ** -0.5)
        values = arithmetic.operand(value)
        out, kept = torch.empty_like(values), []
        for first, end in _blocks(context):
            scores = torch.bmm(query[:, first:end], key[:, :end].transpose(1, 2))
            if mask is None:
                scores[:, :, first:] += _future(end - first, scores.device)
            else:
                admitted = mask[:, :, first:end, :end]
                scores.view(sequences, heads, end - first, end).masked_fill_(~admitted, float("-inf"))
            kept.append(torch.softmax(scores, -1))
            torch.bmm(arithmetic.operand(kept[-1]), values[:, :end], out=out[:, first:end])
        ctx.save_for_backward(query, key, value, *kept)
        ctx.scale, ctx.arithmetic = scale, arithmetic
        return _side_by_side(out, (sequences, heads, context), joined.dtype).view(sequences, context, width)

    @staticmethod
    def backward(ctx: Any, d_out: torch.Tensor) -> tuple[torch.Tensor, None, None, None]:
        """Return the gradient by `joined`."""
        query, key, value, *kept = ctx.saved_tensors
        sequences, context, _ = d_out.shape
        heads = len(query) // sequences
        d_heads = d_out.view(sequences, context, heads, -1).transpose(1, 2)
        d_heads = _copied(d_heads, torch.float32).flatten(0, 1)
        operand = ctx.arithmetic.operand
        queries, keys, d_outs = operand(query), operand(key), operand(d_heads)
        d_joined = query.new_empty(3, *query.shape)
        d_query, d_key, d_value = d_joined
        for (first, end), p in reversed(list(zip(_blocks(context), kept, strict=True))):
            d_p = torch.bmm(d_heads[:, first:end], value[:, :end].transpose(1, 2))
            d_scores = operand(torch._softmax_backward_data(d_p, p, -1, torch.float32))
            d_query[:, first:end] = torch.bmm(d_scores, keys[:, :end])
            for into, left, right in ((d_key, d_scores, queries), (d_value, operand(p), d_outs)):
                product = torch.bmm(left.transpose(1, 2), right[:, first:end])
                if end == context:  # the last block, which comes first
                    into.copy_(product)
                else:
                    into[:, :end] += product
        d_query *= ctx.scale
        joined = _side_by_side(d_joined, (sequences, heads, context), d_out.dtype)
        return joined.view(sequences, context, -1), None, None, None


def _blocks(context: int) -> list[tuple[int, int]]:
    """Return the first and the end position of each block of queries."""
    size = -(-context // BLOCKS)
    return [(first, min(first + size, context)) for first in range(0, context, size)]


def _future(size: int, device: torch.device) -> torch.Tensor:
    """Return −∞ where the key comes after the query, 0 elsewhere, float32[size, size]."""
    return torch.full((size, size), float("-inf"), device=device).triu_(1)


def _side_by_side(x: torch.Tensor, shape: tuple[int, int, int], dtype: torch.dtype) -> torch.Tensor:
    """Return [..., sequences · heads, context, e] as [sequences, context, ..., heads, e], contiguous, in a dtype."""
    x = x.view(*x.shape[:-3], *shape[:2], *x.shape[-2:]).movedim((-4, -2), (0, 1))
    return _copied(x, dtype)


def _copied(x: torch.Tensor, dtype: torch.dtype) -> torch.Tensor:
    """Return a contiguous copy in a dtype, made in one pass."""
    return torch.empty(x.shape, dtype=dtype, device=x.device).copy_(x)
