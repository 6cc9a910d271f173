"""The loss on the validation rows, while a run trains and at its end.

A row of n tokens gives n - 1 predictions; all means are over predictions, in nats. (The Trainer divides the training
loss by n instead, see `model.py`: multiply a logged training loss by n / (n - 1) to compare.)
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import GPT2LMHeadModel

from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, PackedRows
from duckling_train.engines.base import DivergedError, Hook, StepView
from duckling_train.precision import uses_autocast
from duckling_train.runs.hooks import Progress, append_line

ROWS_A_BATCH = 4
"""4 × 512 × 8,192 float32 logits are 67 MB."""

LARGEST = 700.0
"""exp of more overflows float64."""


def evaluate(
    model: GPT2LMHeadModel, rows: PackedRows, limit: int | None, unk_id: int, *, autocast: bool
) -> dict[str, Any]:
    """Return `loss`, `perplexity`, `loss_known` and `rows` of the first `limit` rows (None: all).

    `loss` is the mean cross-entropy (nats) of all predictions, `perplexity` its exponential, `loss_known` the mean over
    the predictions whose target is not `unk_id`. Under the policy `most-frequent` a target 0 is an unknown token or a
    real `.`, which rows cannot tell apart, so neither is in `loss_known`; under `reserved` unknowns alone are left out.
    None where no prediction is left, or where the exponential is too large for a float. Sums are float64; the model's
    mode is put back; no random number is drawn.
    """
    count = len(rows) if limit is None else min(limit, len(rows))
    sums = np.zeros(4)  # loss, predictions, loss of known targets, known targets
    was_training = model.training
    model.train(False)
    with torch.no_grad(), torch.autocast(model.device.type, dtype=torch.bfloat16, enabled=autocast):
        for first in range(0, count, ROWS_A_BATCH):
            batch = [rows[index][COLUMN] for index in range(first, min(first + ROWS_A_BATCH, count))]
            ids = torch.from_numpy(np.stack(batch).astype(np.int64)).to(model.device)
            sums += _sums(model(ids).logits, ids, unk_id)
    model.train(was_training)
    loss, known = float(sums[0] / sums[1]), float(sums[2] / sums[3]) if sums[3] else None
    return {"loss": loss, "perplexity": math.exp(loss) if loss < LARGEST else None, "loss_known": known, "rows": count}


def _sums(logits: torch.Tensor, ids: torch.Tensor, unk_id: int) -> np.ndarray[Any, np.dtype[np.float64]]:
    targets = ids[:, 1:].flatten()
    losses = torch.nn.functional.cross_entropy(logits[:, :-1].flatten(0, 1).float(), targets, reduction="none")
    losses, known = losses.cpu().double(), (targets != unk_id).cpu()
    return np.array([losses.sum(), len(losses), losses[known].sum(), known.sum()], dtype=np.float64)


class Evaluator(Hook):
    """Evaluates every `config.eval_steps` steps and after the last, and appends each result to a JSON Lines file.

    `clock` is the run's; it stops meanwhile.
    """

    def __init__(self, rows: PackedRows, config: TrainConfig, unk_id: int, path: Path, clock: Progress) -> None:
        self.rows = rows
        self.config = config
        self.unk_id = unk_id
        self.path = path
        self.clock = clock

    def step(self, view: StepView) -> None:
        """Evaluate where it is due. Raises DivergedError where the loss is not finite."""
        every = self.config.eval_steps
        if view.step < self.config.steps and not (every and view.step % every == 0):
            return
        with self.clock.paused():
            autocast = uses_autocast(self.config.precision)
            result = evaluate(view.model, self.rows, self.config.eval_rows, self.unk_id, autocast=autocast)
            if not math.isfinite(result["loss"]):
                raise DivergedError(f"the validation loss is {result['loss']} after step {view.step}")
            append_line(self.path, {"step": view.step, **result})
