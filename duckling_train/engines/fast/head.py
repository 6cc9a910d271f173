"""The softmax over the vocabulary: the loss, and at once its gradient, without autograd and in parts that fit a cache.

For a row of hidden states h and the softmax matrix W: z = W h, p = softmax(z), loss = log Σ exp(z) − z[target], and the
gradient by z is p with 1 taken off at the target, divided by the number of positions in the batch.
"""

from __future__ import annotations

import torch

from duckling_train.engines.fast.arithmetic import Arithmetic

PART = 1 << 23
"""Logits that are in memory at once: a batch of Duckling II's. In bf16 the gradient by W is rounded for each part."""
SMALL = 1 << 20
"""Those whose softmax is taken at once: 4 MB in float32."""
ON_GPU = 1 << 24
"""Both on a GPU, where fewer kernels count for more than a cache: two batches of Duckling II's."""


class Head:
    """One model's softmax and its gradients; its buffers are made once."""

    def __init__(self, arithmetic: Arithmetic, vocabulary: int, device: torch.device) -> None:
        self.arithmetic = arithmetic
        part, small = (PART, SMALL) if device.type == "cpu" else (ON_GPU, ON_GPU)
        self.rows, self.few = max(1, part // vocabulary), max(1, small // vocabulary)
        self._logits = torch.empty(self.rows, vocabulary, dtype=arithmetic.multiplied, device=device)
        self._z = torch.empty(self.few, vocabulary, device=device)

    def __call__(
        self, hidden: torch.Tensor, weight: torch.Tensor, targets: torch.Tensor, d_weight: torch.Tensor,
        total: torch.Tensor | None = None,
    ) -> tuple[torch.Tensor, torch.Tensor]:  # fmt: skip
        """Return the sum of the losses over the number of rows, and its gradient by `hidden`, float32[rows, width].

        `hidden` and `weight` [vocabulary, width] are operands of the arithmetic. `targets` are int64[rows]; −1 marks a
        row without a target, which counts as a row but has no loss. The gradient by `weight` is written to `d_weight`.
        The probabilities, summed over the rows with a target, are added to `total`, float32[vocabulary].
        """
        count, losses, product = len(hidden), [], torch.zeros((), device=hidden.device)
        d_hidden = torch.empty_like(hidden)
        for first in range(0, count, self.rows):
            part = slice(first, min(first + self.rows, count))
            h, logits = hidden[part], self._logits[: min(self.rows, count - first)]
            torch.mm(h, weight.T, out=logits)
            for few, at in zip(torch.split(logits, self.few), torch.split(targets[part], self.few), strict=True):
                losses.append(self._softmax(few, at, count, total))
            torch.mm(logits, weight, out=d_hidden[part])
            d_part = torch.mm(logits.T, h)
            product = d_part if first == 0 else product.add_(d_part)
        d_weight.copy_(self.arithmetic.result(product))
        return torch.stack(losses).sum(), self.arithmetic.result(d_hidden).float()

    def _softmax(
        self, logits: torch.Tensor, targets: torch.Tensor, count: int, total: torch.Tensor | None
    ) -> torch.Tensor:
        """Replace logits by the gradients by them of the loss over `count`. Returns the sum of the losses over it."""
        z = self.arithmetic.rounded(logits) if logits.dtype == torch.float32 else self._z[: len(logits)].copy_(logits)
        known = (targets >= 0).float()[:, None]
        at = targets.clamp(min=0)[:, None]
        highest, of_target = z.amax(1, keepdim=True), z.gather(1, at)
        p = torch.softmax(z, 1, out=z)
        # log Σ exp(z) = max z − log max p: exact where p[target] itself is 0 in float32.
        losses = (highest - p.amax(1, keepdim=True).log() - of_target) * known
        if total is not None:
            total.addmv_(p.T, known[:, 0])
        p.scatter_add_(1, at, -torch.ones_like(known)).mul_(known / count)
        if p.dtype != logits.dtype:
            logits.copy_(p)
        else:
            self.arithmetic.rounded(p)
        return losses.sum() / count
