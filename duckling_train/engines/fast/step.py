"""One training step of K models at once: the losses of their batches, the gradients, and the clipping of these."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
import torch.nn.functional as F  # noqa: N812  # the field's name for it

from duckling_train.config import TrainConfig
from duckling_train.engines.base import GRADIENT_PARTS, PROBABILITIES
from duckling_train.engines.fast.arithmetic import Arithmetic
from duckling_train.engines.fast.body import Body
from duckling_train.engines.fast.compiled import CompiledHead
from duckling_train.engines.fast.head import Head
from duckling_train.engines.fast.parameters import Parameters

WTE, WPE, HEAD = "transformer.wte.weight", "transformer.wpe.weight", "lm_head.weight"


class Step:
    """The arithmetic of a step; K models of one shape, each with a batch of its own."""

    def __init__(self, parameters: Parameters, config: TrainConfig, arithmetic: Arithmetic) -> None:
        self.parameters, self.arithmetic = parameters, arithmetic
        device = parameters.weights.device
        self._body = Body(config, arithmetic)
        self._compiled = config.compile == "yes"
        self._head = CompiledHead(arithmetic) if self._compiled else Head(arithmetic, config.vocab_size, device)
        self._softmax = WTE if config.tied else HEAD
        self._weights = parameters.stacked(parameters.weights)
        self._gradients = parameters.stacked(parameters.gradients)
        self._offsets = torch.arange(len(parameters.weights), device=device)[:, None, None] * config.vocab_size
        self.hidden: torch.Tensor | None = None
        """The last batch's final hidden states, [K, rows, context, width]."""
        self.probabilities: dict[int, torch.Tensor] = {}
        """`StepView.probabilities` of each model that needs them, by its number."""
        self._added: dict[int, tuple[torch.Tensor, torch.Tensor, torch.Tensor]] = {}
        """Of each model that needs its gradient's parts: ids, the softmax's gradients of them, and what is added."""
        self._scaled: dict[int, torch.Tensor] = {}
        """What clipping multiplied a model's gradients by, where it did."""

    @property
    def results(self) -> tuple[Any, ...]:
        """What the last step left for the hooks; it can be set, as a CUDA graph's replay fills the same tensors."""
        return self.hidden, self.probabilities, self._added, self._scaled

    @results.setter
    def results(self, results: tuple[Any, ...]) -> None:
        self.hidden, self.probabilities, self._added, self._scaled = results

    def gradients(
        self, ids: torch.Tensor, mask: torch.Tensor | None = None, needed: Sequence[frozenset[str]] = ()
    ) -> torch.Tensor:
        """Fill `parameters.gradients` from int64[K, rows, context] ids. Returns the losses, float32[K], in nats.

        A loss is the sum over the rows' context − 1 predictions, divided by rows · context, as in the Trainer.
        `needed` is what each model's hooks need (`Hook.needs`); empty, none needs anything.
        """
        after = self.parameters.places[WPE].end
        operands = self.parameters.stacked(self.arithmetic.operand(self.parameters.weights[:, after:]), after)
        weights = {
            name: (self._weights if "ln_" in name else operands)[name].detach().requires_grad_()
            for name in self.parameters.names
            if name not in (WTE, WPE, HEAD)
        }
        x = self._embedded(ids).requires_grad_()
        hidden = self._body(x, weights, mask)
        self.hidden = hidden.detach()
        softmax = self._weights[self._softmax]
        if not self._compiled:
            softmax = self.arithmetic.operand(softmax)
        self.probabilities = {
            number: torch.zeros(softmax.shape[1], device=ids.device)
            for number, needs in enumerate(needed)
            if PROBABILITIES in needs
        }
        losses, d_hidden = self._losses(self.hidden, ids, softmax)
        d_x, *others = torch.autograd.grad(hidden, [x, *weights.values()], d_hidden.to(hidden.dtype))
        for name, gradient in zip(weights, others, strict=True):
            self._gradients[name].copy_(gradient if "ln_" in name else self.arithmetic.result(gradient))
        self._added = {
            number: (at := ids[number].flatten(), self._gradients[self._softmax][number, at], d_x[number].flatten(0, 1))
            for number, needs in enumerate(needed)
            if GRADIENT_PARTS in needs
        }
        self._embedding_gradients(ids, d_x)
        return losses

    def gradient_parts(self, number: int) -> tuple[torch.Tensor, torch.Tensor] | None:
        """Return `StepView.gradient_parts` of a model, after `clip`; None where the last step did not need them."""
        if number not in self._added:
            return None
        total = self._gradients[WTE][number]
        if self._softmax != WTE:
            return total, self._gradients[self._softmax][number]
        at, of_softmax, added = self._added[number]
        of_input = torch.zeros_like(total).index_add_(0, at, added)
        if number in self._scaled:
            of_input, of_softmax = of_input * self._scaled[number], of_softmax * self._scaled[number]
        return of_input, total.clone().index_copy_(0, at, of_softmax)

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
        made = [
            self._head(*of_one, self.probabilities.get(number))
            for number, of_one in enumerate(zip(given, softmax, targets, into, strict=True))
        ]
        for total in self.probabilities.values():
            total /= ids[0, :, 1:].numel()
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
        self._scaled = {}
        for number, (gradients, norm, limit) in enumerate(zip(self.parameters.gradients, norms, largest, strict=True)):
            if limit > 0 and not limit > norm + 1e-6:  # a factor of 1 is left out
                self._scaled[number] = torch.clamp(limit / (norm + 1e-6), max=1.0)  # the Trainer's 1e-6
                gradients.mul_(self._scaled[number])
        return torch.as_tensor(norms)

    def clip_at_once(self, largest: torch.Tensor) -> torch.Tensor:
        """Do as `clip` for norms [K] on the device, in the gradients' dtype, without waiting for it."""
        norms = torch.linalg.vector_norm(self.parameters.gradients, dim=1)
        factors = (largest / (norms + 1e-6)).clamp(max=1.0)
        factors = torch.where(largest > 0, factors, torch.ones_like(factors))
        self.parameters.gradients.mul_(factors[:, None])
        self._scaled = dict(enumerate(factors))
        return torch.as_tensor(norms)
