"""Which rows a step takes, and at which learning rate: as the Trainer draws and schedules them."""

from __future__ import annotations

import math

import numpy as np
import torch

from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, POSITION, PackedRows
from duckling_train.model import story_mask


class Batches:
    """A run's batches. Each epoch takes all rows in an order of its own; its last one may be short."""

    def __init__(self, config: TrainConfig, rows: PackedRows) -> None:
        self.rows, self.size = rows, config.batch_size
        self._seed = config.seed if config.data_seed is None else config.data_seed
        self.masked = config.mask_across_stories
        self._epoch, self._order = -1, torch.empty(0, dtype=torch.int64)

    def indices(self, step: int) -> list[int]:
        """Return the numbers of the rows of a step; steps count from 1."""
        epoch, batch = divmod(step - 1, -(-len(self.rows) // self.size))
        if epoch != self._epoch:
            generator = torch.Generator().manual_seed(self._seed + epoch)
            self._epoch, self._order = epoch, torch.randperm(len(self.rows), generator=generator)
        chosen: list[int] = self._order[batch * self.size : (batch + 1) * self.size].tolist()
        return chosen

    def __call__(self, step: int) -> tuple[torch.Tensor, torch.Tensor | None]:
        """Return int64[rows, context] ids of a step, and the mask of their stories where the run has one."""
        chosen = [self.rows[index] for index in self.indices(step)]
        ids = torch.from_numpy(np.stack([row[COLUMN] for row in chosen]).astype(np.int64))
        return ids, story_mask(np.stack([row[POSITION] for row in chosen])) if self.masked else None


def learning_rate(config: TrainConfig, step: int) -> float:
    """Return the learning rate of a step; steps count from 1. By transformers' three schedules."""
    done = step - 1
    if done < config.warmup_steps:
        return config.learning_rate * (done / config.warmup_steps)
    if config.schedule == "constant":
        return config.learning_rate
    left = max(1, config.steps - config.warmup_steps)
    if config.schedule == "linear":
        return config.learning_rate * max(0.0, (config.steps - done) / left)
    progress = (done - config.warmup_steps) / left
    return config.learning_rate * max(0.0, 0.5 * (1.0 + math.cos(math.pi * progress)))
