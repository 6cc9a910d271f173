"""One training step of K models at once: the losses of their batches, the gradients, and the clipping of these."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it

from duckling_train.config import TrainConfig
from duckling_train.engines.fast.arithmetic import Arithmetic
from duckling_train.engines.fast.body import Body
from duckling_train.engines.fast.head import Head
from duckling_train.engines.fast.parameters import Parameters

WTE, WPE, HEAD = "transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"


class Step:
    """The arithmetic of a step; K models of one shape, each with a batch of its own."""

    def __init__(self, parameters: Parameters, config: TrainConfig, arithmetic: Arithmetic) -> None:
        self.parameters, self.arithmetic = parameters, arithmetic
        device = parameters.weights.device
        self._body = Body(config, arithmetic)
        self._head = Head(arithmetic, config.vocab_size, device)
        self._softmax = WTE if config.tied else HEAD
        self._weights = parameters.stacked(parameters.weights)
        self._gradients = parameters.stacked(parameters.gradients)
        self._offsets = torch.arange(len(parameters.weights), device=device)[:, None, None] * config.vocab_size
        self.hidden: torch.Tensor | None = None
        """The last batch's final hidden states, [K, rows, context, width]."""

    def gradients(self, ids: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
        """Fill `parameters.gradients` from int64[K, rows, context] ids. Returns the losses, float32[K], in nats.

        A loss is the sum over the rows' context − 1 predictions, divided by rows · context, as in the Trainer.
        """
        operands = self.parameters.stacked(self.arithmetic.operand(self.parameters.weights))
        weights = {
            name: (self._weights if "ln_" in name else operands)[name].detach().requires_grad_()
            for name in self.parameters.names
            if name not in (WTE, WPE, HEAD)
        }
        x = self._embedded(ids).requires_grad_()
        hidden = self._body(x, weights, mask)
        self.hidden = hidden.detach()
        losses, d_hidden = self._losses(self.hidden, ids, operands[self._softmax])
        d_x, *others = torch.autograd.grad(hidden, [x, *weights.values()], d_hidden.to(hidden.dtype))
        for name, gradient in zip(weights, others, strict=True):
            self._gradients[name].copy_(gradient if "ln_" in name else self.arithmetic.result(gradient))
        self._embedding_gradients(ids, d_x)
        return losses

    def logits(self, number: int, ids: torch.Tensor, mask: torch.Tensor | None) -> torch.Tensor:
        """Return one model's logits of int64[rows, context] ids, [rows, context, vocabulary]; no gradients."""
        with torch.no_grad(), torch.autocast(ids.device.type, enabled=False):
            own = self.parameters.weights[number : number + 1]
            plain, operands = self.parameters.stacked(own), self.parameters.stacked(self.arithmetic.operand(own))
            weights = {name: (plain if "ln_" in name else operands)[name] for name in self.parameters.names}
            x = F.embedding(ids, plain[WTE][0]) + plain[WPE][0, : ids.shape[1]]
            hidden = self.arithmetic.operand(self._body(x[None], weights, mask)[0])
            return self.arithmetic.result(hidden @ operands[self._softmax][0].T)

    def _embedded(self, ids: torch.Tensor) -> torch.Tensor:
        """Return the sum of the tokens' and the positions' embeddings, [K, rows, context, width]."""
        tokens = F.embedding(ids + self._offsets, self._weights[WTE].reshape(-1, self._weights[WTE].shape[-1]))
        return tokens + self._weights[WPE][:, None, : ids.shape[2]]

    def _losses(
        self, hidden: torch.Tensor, ids: torch.Tensor, softmax: torch.Tensor
    ) -> tuple[torch.Tensor, torch.Tensor]:
        """Return the losses and their gradients by the hidden states; write those by the softmax matrices."""
        targets = F.pad(ids[:, :, 1:], (0, 1), value=-1).flatten(1)
        into = self._gradients[self._softmax]
        given = self.arithmetic.operand(hidden).flatten(1, 2)
        made = [self._head(*of_one) for of_one in zip(given, softmax, targets, into, strict=True)]
        losses, d_hidden = zip(*made, strict=True)
        return torch.stack(losses), torch.stack(d_hidden).view_as(hidden)

    def _embedding_gradients(self, ids: torch.Tensor, d_x: torch.Tensor) -> None:
        """Add the gradients by the embeddings: a tied one has the softmax's already."""
        positions, tokens = self._gradients[WPE], self._gradients[WTE]
        positions.zero_()
        positions[:, : ids.shape[2]] = d_x.sum(1)
        if self._softmax != WTE:
            tokens.zero_()
        for into, at, gradient in zip(tokens, ids.flatten(1), d_x.flatten(1, 2), strict=True):
            # In bf16 the sum over a token's positions is rounded before it is added, as it is by autograd.
            own = into if into.dtype == torch.float32 else torch.zeros_like(into)
            own.index_add_(0, at, gradient)
            if own is not into:
                into.add_(own)

    def clip(self, largest: Sequence[float]) -> torch.Tensor:
        """Scale each model's gradients down to its largest norm; 0 scales nothing. Returns the norms before, [K]."""
        norms = torch.linalg.vector_norm(self.parameters.gradients, dim=1)
        for gradients, norm, limit in zip(self.parameters.gradients, norms, largest, strict=True):
            if limit > 0 and not (gradients.device.type == "cpu" and limit > norm + 1e-6):  # a factor of 1 is left out
                gradients.mul_(torch.clamp(limit / (norm + 1e-6), max=1.0))  # the Trainer's 1e-6
        return torch.as_tensor(norms)
