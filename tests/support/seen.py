"""What a hook sees of a small training run of either engine, kept step by step."""

from __future__ import annotations

import dataclasses
import itertools
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines import FAST, REFERENCE, load_engine
from duckling_train.engines.base import GRADIENT, GRADIENT_PARTS, HIDDEN, Hook, Job, StepView
from duckling_train.engines.state import OPTIMIZER

LIVE, VOCABULARY, WIDTH, CONTEXT = 192, 256, 32, 48
SMALL = TrainConfig(
    engine="fast", steps=12, batch_size=2, n_positions=CONTEXT, n_embd=WIDTH, vocab_size=VOCABULARY, precision="fp32",
    learning_rate=1e-3, device="cpu", threads=1,
)  # fmt: skip
Change = Callable[[Any], None]
ON_BOTH = pytest.mark.parametrize("engine", [FAST, REFERENCE])
"""Marks a test of what both engines obey."""


def numbers(count: int = 16) -> Any:
    """Rows in which a token often follows from the one before it, uint16[count, context]."""
    return (np.cumsum(np.random.default_rng(3).integers(0, 7, (count, CONTEXT)), axis=1) % LIVE).astype(np.uint16)


class Seen(Hook):
    """Keeps W from before the first step on, and of each step what the view shows, the moments of all weights too."""

    needs = frozenset({GRADIENT, GRADIENT_PARTS, HIDDEN})

    def __init__(self) -> None:
        self.matrices: list[torch.Tensor] = []
        self.gradients: list[torch.Tensor] = []
        self.parts: list[tuple[torch.Tensor, ...]] = []
        self.hidden: list[torch.Tensor] = []
        self.losses: list[float] = []
        self.states: list[dict[str, torch.Tensor]] = []

    def begin(self, view: StepView) -> None:
        self.matrices.append(view.W.clone())

    def step(self, view: StepView) -> None:
        assert view.gradient is not None
        assert view.gradient_parts is not None
        assert view.hidden is not None
        assert view.loss is not None
        self.matrices.append(view.W.clone())
        self.gradients.append(view.gradient.clone())
        self.parts.append(tuple(part.clone() for part in view.gradient_parts))
        self.hidden.append(view.hidden.clone())
        self.losses.append(view.loss)
        self.states.append(safetensors.torch.load(view.state().files[OPTIMIZER]))

    @property
    def moves(self) -> list[torch.Tensor]:
        """W's displacement in each step, exact: float64."""
        return [after.double() - before.double() for before, after in itertools.pairwise(self.matrices)]

    def moment(self, name: str, step: int = 1) -> torch.Tensor:
        """AdamW's first moment of a weight after a step."""
        return self.states[step - 1][f"exp_avg/{name}.weight"]

    def predicting(self, step: int = 1) -> torch.Tensor:
        """The hidden states of the positions that predict, [B · (T − 1), width]."""
        return self.hidden[step - 1][:, :-1].flatten(0, 1)


def trained(config: TrainConfig = SMALL, rows: Any = None, change: Change | None = None, **settings: Any) -> Seen:
    """Train a model by the config's engine, its first weights changed by `change`. Returns what its hook saw."""
    (seen,) = trained_at_once([dataclasses.replace(config, **settings)], rows, change)
    return seen


def trained_at_once(configs: Sequence[TrainConfig], rows: Any = None, change: Change | None = None) -> list[Seen]:
    """Train models of these configs, of one engine, by one call of it. Returns what the hook of each saw."""
    engine = load_engine(configs[0].engine)
    packed = PackedRows(Rows([numbers() if rows is None else rows]))
    jobs, seen = [], [Seen() for _ in configs]
    with tempfile.TemporaryDirectory() as folder:
        for number, config in enumerate(map(engine.checked, configs)):
            model = engine.build(config)
            if change is not None:
                with torch.no_grad():
                    change(model)
            jobs.append(Job(config, model, packed, Path(folder) / str(number)))
        assert engine.fit(jobs, [[one] for one in seen]) == [None] * len(jobs)
    return seen


def tie(model: Any) -> None:
    """Start an untied softmax matrix at the embedding's values."""
    model.lm_head.weight.copy_(model.transformer.wte.weight)
