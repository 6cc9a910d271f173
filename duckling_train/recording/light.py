"""What every run keeps of its dead rows, without a recording: a line of `dynamics.jsonl` at each log.

W_t is the embedding after step t, C_t the mean of its dead rows (the centroid), Δ = W_t − W_{t−1} of the one step:

    centroid_norm      ‖C_t‖
    centroid_moved     ‖C_t − C_0‖
    radius_mean        the mean of ‖W_i − C_t‖ over the dead rows
    radius_max         its largest
    velocity           ‖C_t − C_{t−1}‖
    coherence          the mean cosine between the Δ of two dead rows, over all pairs of rows that moved
    displacement_dead  the mean of ‖W_i,t − W_i,0‖ over the dead rows
    displacement_live  the same over the live rows
    dead_mass          Σ p_i over the dead rows, p the mean probabilities in the step's forward pass, before its update
    isotropy           min Z(c) / max Z(c), Z(c) = Σ_i exp(c·W_i), c = ± the eigenvectors of WᵀW
    mean_shift         the norm of the mean of all rows

W is computed with in float32, on its own device. What is not defined (no dead row, fewer than two that moved) or not
finite is None, and so is `isotropy`, which costs more than all else, in nine lines of ten.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch

from duckling_train.engines.base import PROBABILITIES, Hook, StepView

ISOTROPY_EVERY = 10
"""`isotropy` is in the first line, and in those of every so many times `logging_steps` steps."""
OF_DEAD_ROWS = ("centroid_norm", "centroid_moved", "radius_mean", "radius_max", "velocity", "coherence",
                "displacement_dead")  # fmt: skip


class DynamicsWriter(Hook):
    """Hands a line to `write` at step 1 and every `logging_steps` steps.

    `first` is W_0, [vocabulary, width], also where a run is resumed. The rows from `live` on are the dead ones; in the
    step before a line they are copied. So a run that goes on from any checkpoint writes the lines that it would have.
    """

    needs = frozenset({PROBABILITIES})

    def __init__(
        self, write: Callable[[dict[str, Any]], object], first: torch.Tensor, live: int, logging_steps: int
    ) -> None:
        self.write, self.live, self.every = write, live, logging_steps
        self._first = first.detach().to(torch.float32, copy=True)
        self._before = self._first[live:]

    def needs_at(self, step: int) -> frozenset[str]:
        """Return the probabilities of a step that has a line."""
        return self.needs if self._due(step) else frozenset()

    def begin(self, view: StepView) -> None:
        """Take W_0 to where W is."""
        self._first = self._first.to(_matrix(view).device)
        self._copy(view)

    def step(self, view: StepView) -> None:
        """Hand on the line of a step that has one."""
        if self._due(view.step):
            w, p = _matrix(view), view.probabilities
            values = moved(w, self._first, self._before, self.live)
            values["dead_mass"] = float(p[self.live :].sum()) if p is not None and self.live < len(w) else math.nan
            shown = view.step == 1 or view.step % (ISOTROPY_EVERY * self.every) == 0
            values |= {"isotropy": isotropy(w) if shown else math.nan, "mean_shift": float(_mean(w).norm())}
            self.write({"step": view.step, **{name: _written(value) for name, value in values.items()}})
        self._copy(view)

    def _due(self, step: int) -> bool:
        return step == 1 or step % self.every == 0

    def _copy(self, view: StepView) -> None:
        if self._due(view.step + 1):
            self._before = _matrix(view)[self.live :].clone()


def moved(w: torch.Tensor, first: torch.Tensor, before: torch.Tensor, live: int) -> dict[str, float]:
    """Return OF_DEAD_ROWS and `displacement_live`; NaN for what is not defined.

    `w` and `first`, float32[vocabulary, width], are W_t and W_0; `before` are the dead rows of W_{t−1}.
    """
    lengths = torch.linalg.vector_norm(w - first, dim=1)
    of_live = float(lengths[:live].mean())
    dead, move = w[live:], w[live:] - before
    if not len(dead):
        return dict.fromkeys(OF_DEAD_ROWS, math.nan) | {"displacement_live": of_live}
    centre = _mean(dead)
    radii = torch.linalg.vector_norm(dead - centre.float(), dim=1)
    values = {
        "centroid_norm": centre.norm(), "centroid_moved": _mean(dead - first[live:]).norm(),
        "radius_mean": radii.mean(), "radius_max": radii.max(), "velocity": _mean(move).norm(),
        "coherence": coherence(move), "displacement_dead": lengths[live:].mean(), "displacement_live": of_live,
    }  # fmt: skip
    return {name: float(value) for name, value in values.items()}


def coherence(moves: torch.Tensor) -> float:
    """Return the mean cosine of two different displacements, float32[rows, width], over all pairs of rows that moved.

    It is (‖Σ û_i‖² − n) / (n(n − 1)) with the n unit displacements û_i; NaN for n < 2.
    """
    lengths = torch.linalg.vector_norm(moves, dim=1, keepdim=True, dtype=torch.float64)
    count = int((lengths > 0).sum())
    together = (moves / torch.where(lengths > 0, lengths, 1)).sum(0)
    return (float(together @ together) - count) / (count * (count - 1)) if count > 1 else math.nan


def isotropy(w: torch.Tensor) -> float:
    """Return min Z(c) / max Z(c) of float32[vocabulary, width]; 1 where all directions are alike, NaN where not finite.

    Mu and Viswanath (2018), after Arora et al. (2016).
    """
    products = (w.T @ w).cpu()
    if not bool(products.isfinite().all()):
        return math.nan
    along = w @ torch.linalg.eigh(products)[1].to(w.device)
    logs = torch.cat([torch.logsumexp(along, 0), torch.logsumexp(-along, 0)])  # Z may be larger than float32 holds
    return math.exp(float(logs.min() - logs.max()))


def _matrix(view: StepView) -> torch.Tensor:
    """Return W in float32, where float64 can be summed in: Apple's processors have none."""
    return view.W.to("cpu" if view.W.device.type == "mps" else None, torch.float32)


def _mean(rows: torch.Tensor) -> torch.Tensor:
    """Return the mean row, float64[width]."""
    return rows.sum(0, dtype=torch.float64) / len(rows)


def _written(value: float) -> float | None:
    """Return a value in the nine digits that a float32 has."""
    return float(f"{value:.9g}") if math.isfinite(value) else None
