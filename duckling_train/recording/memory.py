"""Snapshots of the embedding during training, kept in memory: the seed's `WRecorder`."""

from __future__ import annotations

import torch

from duckling_data.base.errors import InputError
from duckling_train.engines.base import StepView
from duckling_train.engines.reference.callbacks import TrainerHook


class WRecorder(TrainerHook):
    """Copies W every `record_every` steps: a hook, and a Trainer callback.

    `snapshots` is a list of (step, W): the optimizer steps done, and W after that step, a tensor [vocabulary, width] on
    the CPU in the weights' own dtype. Step 0 is not among them: copy `W.detach().cpu().clone()` before training.
    Recording changes no number of the run. Raises InputError where `record_every` is below 1.
    A float32 snapshot of Duckling II takes 4 MiB: 0.4 GB for 10,000 steps, one in 100 recorded; 42 GB for every step.

    >>> recorder = WRecorder(record_every=1)
    >>> tracker = experiment.train(2, callbacks=[recorder])
    step ...
    >>> [(step, W.shape) for step, W in recorder.snapshots]
    [(1, torch.Size([8192, 128])), (2, torch.Size([8192, 128]))]
    """

    def __init__(self, record_every: int = 100) -> None:
        if record_every < 1:
            raise InputError(f"record_every is {record_every}; it must be at least 1, the steps between two snapshots")
        super().__init__()
        self.record_every = record_every
        self.snapshots: list[tuple[int, torch.Tensor]] = []

    def step(self, view: StepView) -> None:
        """Copy W, if this step is one to record."""
        if view.step % self.record_every == 0:
            self.snapshots.append((view.step, view.W.to("cpu", copy=True)))
