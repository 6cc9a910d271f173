"""The fast engine on a GPU: its graph is replayed, and trains as the same without a graph and the reference engine do.

Skipped without a GPU. What is told of the graph on a CPU is in test_graph.py.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.engines import load_engine
from duckling_train.engines.base import Engine
from duckling_train.engines.fast.engine import FastEngine
from duckling_train.engines.fast.graph import WARM, CudaGraphs, DevicePart
from duckling_train.engines.fast.run import Run
from tests.support.fitted import SMALL, assert_alike, checkpoint, fit, rows_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CONFIG = dataclasses.replace(SMALL, device="cuda")
ROOM = 1 << 30
ALIKE = {"fp32": (1e-4, 5e-3), "bf16-mixed": (3e-3, 0.1)}
"""How far losses and tensors may differ, relative: sums are in another order, and in bf16 rounded otherwise."""
BEFORE = WARM + WARM
"""Steps before the graphs of whole batches and of short ones, where hooks need the same at each."""


class OnGpu(FastEngine):
    """The engine with graphs that are counted, or without any."""

    def __init__(self, *, graphs: bool = True, room: int = ROOM) -> None:
        self.made: list[CudaGraphs] = []
        self.graphs, self.room = graphs, room
        super().__init__(self.part)

    def part(self, config: TrainConfig, runs: Sequence[Run]) -> DevicePart:
        """Return what computes the runs; called again when one of them ends early."""
        self.made += [CudaGraphs()] if self.graphs else []
        return DevicePart(config, runs, self.made[-1] if self.graphs else None, self.room)

    @property
    def replays(self) -> int:
        """How often a graph was replayed."""
        return sum(graphs.replays for graphs in self.made)


VARIANTS: list[dict[str, Any]] = [
    *({"precision": name} for name in PRECISIONS), {"mask_across_stories": True}, {"tied": False},
    {"optimizer": "sgd"}, {"max_grad_norm": 0.0},
]  # fmt: skip


@pytest.mark.parametrize("room", [0, ROOM])
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_replays_are_the_steps_without_a_graph(settings: dict[str, Any], room: int) -> None:
    config = dataclasses.replace(CONFIG, **settings)
    rows, engine = rows_of(positions=config.mask_across_stories), OnGpu(room=room)
    (replayed,), (computed,) = fit(engine, [config], rows), fit(OnGpu(graphs=False), [config], rows)
    assert engine.replays == config.steps - BEFORE
    loss, tensor = ALIKE.get(config.precision, (0.01, 0.3))
    assert_alike(replayed, computed, loss=loss, tensor=tensor)
    assert replayed.lines[-1].loss < replayed.lines[0].loss


@pytest.mark.parametrize("precision", ALIKE)
def test_it_is_the_reference_engine(precision: str) -> None:
    """By the engine as a user has it, rows on the device."""
    config = dataclasses.replace(CONFIG, precision=precision, steps=20)
    (ours,), (theirs,) = (fit(load_engine(name), [config], rows_of()) for name in ("fast", "reference"))
    for kept in (ours, theirs):
        kept.seen.clear()
    loss, tensor = ALIKE[precision]
    assert_alike(ours, theirs, loss=loss, tensor=tensor)


def test_it_is_the_cpu_in_float32() -> None:
    engines: list[tuple[Engine, TrainConfig]] = [(load_engine("fast"), CONFIG), (load_engine("fast"), SMALL)]
    (ours,), (theirs,) = (fit(engine, [config], rows_of(), every=3) for engine, config in engines)
    assert_alike(ours, theirs, loss=1e-4, tensor=5e-3)


def test_a_run_goes_on_from_a_checkpoint_of_a_gpu_and_of_a_cpu(tmp_path: Path) -> None:
    (whole,) = fit(OnGpu(), [CONFIG], rows_of(), every=50, save=22)
    (of_cpu,) = fit(load_engine("fast"), [SMALL], rows_of(), every=50, save=22)
    for number, state in enumerate((whole.saved, of_cpu.saved)):
        assert state is not None
        (folder := tmp_path / str(number)).mkdir()
        engine = OnGpu()
        (rest,) = fit(engine, [CONFIG], rows_of(), every=50, start=checkpoint(state, folder, 22))
        assert engine.replays == 23 - BEFORE
        rest.lines = whole.lines[: -len(rest.lines)] + rest.lines
        assert_alike(rest, whole, loss=1e-4, tensor=5e-3)


def test_many_at_once_are_each_alone_and_one_that_diverges_ends_alone() -> None:
    changes: list[dict[str, Any]] = [{}, {"learning_rate": 1e30}, {"seed": 1, "learning_rate": 1e-4}, {"data_seed": 8}]
    configs, engine = [dataclasses.replace(CONFIG, **change) for change in changes], OnGpu()
    together = fit(engine, configs, rows_of(), every=50)
    assert "at step" in str(together[1].ended)
    assert len(engine.made) == 2
    assert engine.replays == 45 - 3 * WARM
    for number in (0, 2, 3):
        (alone,) = fit(OnGpu(graphs=False), [configs[number]], rows_of(), every=50)
        assert_alike(together[number], alone, loss=1e-4, tensor=5e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_check_at_the_start_passes_at_the_default_size(precision: str) -> None:
    engine = load_engine("fast")
    config = engine.checked(TrainConfig(engine="fast", device="cuda", precision=precision, n_positions=32))
    engine.prove(config, rows_of(80))


def test_at_the_default_size_most_steps_are_replays() -> None:
    """In bf16-mixed, whose attention is another kernel; the losses fall."""
    config = TrainConfig(steps=60, device="cuda", n_positions=32, logging_steps=20, learning_rate=1e-3)
    engine = OnGpu()
    (kept,) = fit(engine, [config], rows_of(80), every=100)
    assert engine.replays == 60 - WARM
    assert kept.lines[-1].loss < kept.lines[0].loss - 1
