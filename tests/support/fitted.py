"""Small models trained by an engine as it is given, and all that a hook sees of them: to hold two ways of training."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch

from duckling_data.rows.read import Column, Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines.base import (
    GRADIENT,
    GRADIENT_PARTS,
    HIDDEN,
    PROBABILITIES,
    Checkpoint,
    DivergedError,
    Engine,
    EngineState,
    Hook,
    Job,
    LogLine,
    StepView,
)

CONTEXT, LIVE = 32, 192
SMALL = TrainConfig(
    steps=45, batch_size=3, n_positions=CONTEXT, n_embd=16, vocab_size=256, precision="fp32", learning_rate=1e-3,
    logging_steps=4, device="cpu", threads=1, max_grad_norm=0.5, weight_decay=0.1, compile="no",  # as on a GPU
)  # fmt: skip


def rows_of(count: int = 20, *, positions: bool = False, kind: type = np.uint16, live: int = LIVE) -> PackedRows:
    """Rows in which a token often follows from the one before it; 20 rows by 3 are six batches and a short one."""
    tokens = np.cumsum(np.random.default_rng(3).integers(0, 7, (count, CONTEXT)) * (1 + live // 200), axis=1) % live
    index = (np.arange(count * CONTEXT).reshape(count, CONTEXT) % 11).astype(np.uint32)
    return PackedRows(Rows([tokens[:7].astype(kind), tokens[7:].astype(kind)], Column([index])), positions=positions)


class Kept(Hook):
    """Keeps the logs and, of every `every`-th step, what the view shows; the loss of each of these, or of no step."""

    needs = frozenset({GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES})

    def __init__(self, every: int = 1, save: int = 0) -> None:
        self.every, self.save_at, self.end_at = every, save, 0
        self.lines: list[LogLine] = []
        self.losses: list[float | None] = []
        self.seen: list[dict[str, torch.Tensor]] = []
        self.saved: EngineState | None = None
        self.ended: DivergedError | None = None
        self.weights: dict[str, torch.Tensor] = {}

    def needs_at(self, step: int) -> frozenset[str]:
        return frozenset() if step % self.every else self.needs

    def log(self, line: LogLine) -> None:
        self.lines.append(line)

    def step(self, view: StepView) -> None:
        if view.step == self.end_at:
            raise DivergedError(f"as asked at step {view.step}")
        if view.step == self.save_at:
            self.saved = view.state()
        if view.step % self.every:
            return
        self.losses.append(view.loss)
        assert view.gradient_parts is not None
        shown = {"W": view.W, "of input": view.gradient_parts[0], "of softmax": view.gradient_parts[1]}
        shown |= {name: getattr(view, name) for name in ("gradient", "hidden", "probabilities")}
        shown |= dict(zip(("m", "v"), view.moments or (), strict=False))
        self.seen.append({name: tensor.detach().to("cpu", copy=True) for name, tensor in shown.items()})


def fit(
    engine: Engine, configs: Sequence[TrainConfig], rows: PackedRows, *, every: int = 1, save: int = 0,
    start: Checkpoint | None = None, end_first: int = 0,
) -> list[Kept]:  # fmt: skip
    """Train models of these configs by one call. Returns what the hook of each kept, the weights at the end too.

    `save` is the step whose state is kept, `end_first` that at which the first one's hook finds that it diverged.
    """
    torch.set_num_threads(1)
    configs = [engine.checked(dataclasses.replace(config, engine=engine.name)) for config in configs]
    jobs = [Job(config, engine.build(config), rows, Path("unused"), start) for config in configs]
    kept = [Kept(every, save) for _ in jobs]
    kept[0].end_at = end_first
    for hook, job, ended in zip(kept, jobs, engine.fit(jobs, [[hook] for hook in kept]), strict=True):
        hook.ended = ended
        hook.weights = {name: tensor.detach().cpu() for name, tensor in job.model.named_parameters()}
    return kept


def assert_alike(ours: Kept, theirs: Kept, *, loss: float = 1e-5, tensor: float = 1e-5) -> None:
    """The same lines and losses within `loss`, relative, tensors within `tensor`, relative to their largest element.

    But for the keys' biases: attention does not depend on them, and AdamW makes steps of their gradients' rounding.
    """
    np.testing.assert_allclose(ours.losses, theirs.losses, rtol=loss)
    for one, other in zip(ours.lines, theirs.lines, strict=True):
        assert (one.step, one.learning_rate) == (other.step, other.learning_rate)
        np.testing.assert_allclose([one.loss, one.grad_norm], [other.loss, other.grad_norm], rtol=10 * loss)
    assert str(ours.ended) == str(theirs.ended)
    pairs: list[tuple[dict[str, Any], dict[str, Any]]] = [*zip(ours.seen, theirs.seen, strict=True)]
    for one_seen, other_seen in [*pairs, (ours.weights, theirs.weights)] if ours.ended is None else pairs:
        assert one_seen.keys() == other_seen.keys()
        for name, expected in other_seen.items():
            if not name.endswith("c_attn.bias"):
                difference = (one_seen[name].float() - expected.float()).abs().max()
                assert difference <= tensor * expected.float().abs().max(), f"{name}: {difference:.1e}"


def checkpoint(state: EngineState, folder: Path, step: int) -> Checkpoint:
    """Return a checkpoint of an engine's state, written to a folder."""
    for name, content in state.files.items():
        (folder / name).write_bytes(content)
    return Checkpoint(folder, step, state.values)
