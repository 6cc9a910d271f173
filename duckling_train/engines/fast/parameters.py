"""The parameters of K models of one shape in one buffer, [K, parameters], and a second one for their gradients.

A model's own parameters become views of its row, so what an update does to the buffer it does to the model. A name's
parameter of all models is a view, too: [K, *shape]. Those with weight decay come first.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch

Views = dict[str, torch.Tensor]


@dataclass(frozen=True)
class Place:
    """Where a parameter is in a model's row."""

    shape: torch.Size
    first: int

    @property
    def end(self) -> int:
        """The first element after it."""
        return self.first + math.prod(self.shape)


class Parameters:
    """K models' weights and gradients."""

    def __init__(self, models: Sequence[torch.nn.Module], device: torch.device) -> None:
        """Move the models to `device` and make their parameters views of the buffer."""
        self.models = list(models)
        named = dict(models[0].named_parameters())
        self.names = list(named)
        """In the model's own order."""
        ordered = sorted(named, key=lambda name: not decays(name))
        self.places: dict[str, Place] = {}
        size = 0
        for name in ordered:
            self.places[name] = Place(named[name].shape, size)
            size = self.places[name].end
        self.decayed = sum(parameter.numel() for name, parameter in named.items() if decays(name))
        """How many elements of a row have weight decay: the first ones."""
        dtype = next(iter(named.values())).dtype
        self.weights = torch.empty(len(models), size, dtype=dtype, device=device)
        self.gradients = torch.zeros_like(self.weights)
        for number, model in enumerate(models):
            for name, view in self.of(self.weights, number).items():
                parameter = model.get_parameter(name)
                view.copy_(parameter.detach())
                parameter.data = view

    def release(self) -> None:
        """Give the models' parameters memory of their own again."""
        for model in self.models:
            for parameter in model.parameters():
                parameter.data, parameter.grad = parameter.detach().clone(), None

    def of(self, buffer: torch.Tensor, number: int) -> Views:
        """Return one model's views of a buffer, by name."""
        return {name: buffer[number, place.first : place.end].view(place.shape) for name, place in self.places.items()}

    def stacked(self, buffer: torch.Tensor, first: int = 0) -> Views:
        """Return all models' views of a buffer, [K, *shape], by name: of those that lie in it where it begins later."""
        return {
            name: buffer[:, place.first - first : place.end - first].view(-1, *place.shape)
            for name, place in self.places.items()
            if place.first >= first
        }


def decays(name: str) -> bool:
    """Whether a parameter has weight decay: biases and LayerNorm's have none, as in the Trainer."""
    return name.endswith("weight") and "ln_" not in name
