"""The fast engine on a GPU: its graph is replayed, and trains as the same without a graph and the reference engine do.

Skipped without a GPU. What is told of the graph on a CPU is in test_graph.py.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.engines import load_engine
from duckling_train.engines.base import Engine
from duckling_train.engines.fast.engine import FastEngine
from duckling_train.engines.fast.graph import WARM, CudaGraphs, DevicePart
from tests.support.fitted import SMALL, assert_alike, checkpoint, fit, rows_of

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no GPU")
CONFIG = dataclasses.replace(SMALL, device="cuda")
ROOM = 1 << 30
ALIKE = {"fp32": (1e-4, 5e-3), "bf16-mixed": (3e-3, 0.1)}
"""How far losses and tensors may differ, relative: sums are in another order, and in bf16 rounded otherwise."""
BEFORE = WARM + WARM
"""Steps before the graphs of whole batches and of short ones, where hooks need the same at each."""


def on_gpu(graphs: CudaGraphs | None, room: int = ROOM) -> FastEngine:
    return FastEngine(lambda config, runs: DevicePart(config, runs, graphs, room))


VARIANTS: list[dict[str, Any]] = [
    *({"precision": name} for name in PRECISIONS), {"mask_across_stories": True}, {"tied": False},
    {"optimizer": "sgd"}, {"max_grad_norm": 0.0},
]  # fmt: skip


@pytest.mark.parametrize("room", [0, ROOM])
@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_replays_are_the_steps_without_a_graph(settings: dict[str, Any], room: int) -> None:
    config = dataclasses.replace(CONFIG, **settings)
    rows, graphs = rows_of(positions=config.mask_across_stories), CudaGraphs()
    (replayed,), (computed,) = fit(on_gpu(graphs, room), [config], rows), fit(on_gpu(None), [config], rows)
    assert graphs.replays == config.steps - BEFORE
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
    (whole,) = fit(on_gpu(CudaGraphs()), [CONFIG], rows_of(), every=50, save=22)
    (of_cpu,) = fit(load_engine("fast"), [SMALL], rows_of(), every=50, save=22)
    for number, state in enumerate((whole.saved, of_cpu.saved)):
        assert state is not None
        (folder := tmp_path / str(number)).mkdir()
        graphs = CudaGraphs()
        (rest,) = fit(on_gpu(graphs), [CONFIG], rows_of(), every=50, start=checkpoint(state, folder, 22))
        assert graphs.replays == 23 - BEFORE
        rest.lines = whole.lines[: -len(rest.lines)] + rest.lines
        assert_alike(rest, whole, loss=1e-4, tensor=5e-3)


def test_many_at_once_are_each_alone_and_one_that_diverges_ends_alone() -> None:
    changes: list[dict[str, Any]] = [{}, {"learning_rate": 1e30}, {"seed": 1, "learning_rate": 1e-4}, {"data_seed": 8}]
    configs, graphs = [dataclasses.replace(CONFIG, **change) for change in changes], CudaGraphs()
    together = fit(on_gpu(graphs), configs, rows_of(), every=50)
    assert "at step" in str(together[1].ended)
    assert graphs.replays > 30
    for number in (0, 2, 3):
        (alone,) = fit(on_gpu(None), [configs[number]], rows_of(), every=50)
        assert_alike(together[number], alone, loss=1e-4, tensor=5e-3)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_the_check_at_the_start_passes_at_the_default_size(precision: str) -> None:
    engine = load_engine("fast")
    config = engine.checked(TrainConfig(engine="fast", device="cuda", precision=precision, n_positions=32))
    engine.prove(config, rows_of(80))


def test_at_the_default_size_most_steps_are_replays() -> None:
    """In bf16-mixed, whose attention is another kernel; the losses fall."""
    config = TrainConfig(steps=60, device="cuda", n_positions=32, logging_steps=20, learning_rate=1e-3)
    graphs = CudaGraphs()
    (kept,) = fit(on_gpu(graphs), [config], rows_of(80), every=100)
    assert graphs.replays == 60 - WARM
    assert kept.lines[-1].loss < kept.lines[0].loss - 1
