"""A GPU's way of training, on the CPU with a model of a CUDA graph: it is the plain way, and nothing is baked in."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch
from torch.utils._python_dispatch import TorchDispatchMode

from duckling_data.base.errors import InputError
from duckling_train.engines.base import Hook, Job
from duckling_train.engines.fast import graph
from duckling_train.engines.fast.arithmetic import ARITHMETICS, FLOAT32, NATIVE
from duckling_train.engines.fast.attention import CausalAttention
from duckling_train.engines.fast.body import torch_attention
from duckling_train.engines.fast.engine import FastEngine
from duckling_train.engines.fast.feed import Feed
from duckling_train.engines.fast.graph import WARM, DevicePart
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.proof import prove
from duckling_train.engines.fast.run import Run
from duckling_train.engines.fast.step import Step
from duckling_train.engines.fast.update import FlatAdamW, FusedAdamW
from duckling_train.engines.state import OPTIMIZER
from duckling_train.gpt2 import Gpt2
from duckling_train.model import story_mask
from tests.support.fitted import CONTEXT, SMALL, Kept, assert_alike, checkpoint, fit, rows_of
from tests.support.recorded_graph import RecordedGraphs, Recorder, tensors

ROOM = 1 << 30
PLAIN = FastEngine()


def replaying(graphs: RecordedGraphs | None, room: int = ROOM) -> FastEngine:
    return FastEngine(functools.partial(DevicePart, graphs=graphs, room=room))


VARIANTS: list[dict[str, Any]] = [
    {}, {"tied": False, "weight_decay": 0.0, "max_grad_norm": 0.0}, {"mask_across_stories": True},
    {"betas": (0.8, 0.95), "adam_epsilon": 1e-6, "schedule": "cosine", "warmup_steps": 9}, {"optimizer": "sgd"},
    {"optimizer": "coupled-adam"}, {"precision": "bf16-stochastic"}, {"precision": "bf16-pure"},
]  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_replays_are_the_steps_of_the_plain_way(settings: dict[str, Any]) -> None:
    """Whole batches and short last ones, with what hooks need at every third step: three kinds come often enough."""
    config = dataclasses.replace(SMALL, steps=29, **settings)
    rows, graphs = rows_of(positions=config.mask_across_stories), RecordedGraphs()
    (ours,) = fit(replaying(graphs), [config], rows, every=3)
    (theirs,) = fit(PLAIN, [config], rows, every=3)
    assert_alike(ours, theirs)
    assert len(ours.lines) == 8
    short, shown = set(range(7, 30, 7)), set(range(3, 30, 3))
    kinds = [len(short & shown), len(short - shown), len(shown - short), 29 - len(short | shown)]
    assert (graphs.captures, graphs.replays) == (
        sum(count > WARM for count in kinds),
        sum(max(count - WARM, 0) for count in kinds),
    )


def test_in_mixed_precision_they_differ_by_no_more_than_a_rounding_of_bf16() -> None:
    config = dataclasses.replace(SMALL, precision="bf16-mixed")
    (ours,), (theirs,) = fit(replaying(RecordedGraphs()), [config], rows_of()), fit(PLAIN, [config], rows_of())
    assert_alike(ours, theirs, loss=1e-4, tensor=0.02)


CHANGES: list[dict[str, Any]] = [
    {}, {"seed": 1, "learning_rate": 1e-4}, {"data_seed": 8, "max_grad_norm": 0.0},
    {"weight_decay": 0.3, "betas": (0.5, 0.9), "adam_epsilon": 1e-4},
]  # fmt: skip


@pytest.mark.parametrize("room", [0, ROOM])
def test_many_at_once_are_those_of_the_plain_way(room: int) -> None:
    """In what may differ; with their rows on the device, and sent step by step."""
    configs = [dataclasses.replace(SMALL, steps=24, **change) for change in CHANGES]
    graphs = RecordedGraphs()
    together = fit(replaying(graphs, room), configs, rows_of(), every=5)
    for ours, theirs in zip(together, fit(PLAIN, configs, rows_of(), every=5), strict=True):
        assert_alike(ours, theirs)
    assert graphs.replays == 24 - 3 * WARM


def test_a_run_goes_on_from_a_checkpoint_of_either_way(tmp_path: Path) -> None:
    """Of the same tensors: names, dtypes, shapes."""
    graphs = RecordedGraphs()
    ours, theirs = replaying(graphs), PLAIN
    (whole,) = fit(theirs, [SMALL], rows_of(), every=50)
    saved = [fit(engine, [SMALL], rows_of(), every=50, save=22)[0].saved for engine in (ours, theirs)]
    layouts = []
    for number, state in enumerate(saved):
        assert state is not None
        layout = safetensors.torch.load(state.files[OPTIMIZER])
        layouts.append({name: (tensor.dtype, tensor.shape) for name, tensor in layout.items()})
        assert {float(layout[name]) for name in layout if name.startswith("step/")} == {22.0}
        (folder := tmp_path / str(number)).mkdir()
        for engine in (ours, theirs):
            (rest,) = fit(engine, [SMALL], rows_of(), every=50, start=checkpoint(state, folder, 22))
            rest.lines = whole.lines[: -len(rest.lines)] + rest.lines
            assert_alike(rest, whole)
    assert layouts[0] == layouts[1]
    steps = [SMALL.steps, *[SMALL.steps - 22] * 2]
    assert graphs.replays == sum(steps) - len(steps) * 2 * WARM


def test_one_that_diverges_ends_alone_and_the_others_go_on_by_graphs_of_their_own() -> None:
    """One at a log, by its loss, with words that name the step; one between two logs, by a hook."""
    rates = (1e-3, 1e30, 1e-4)
    configs = [dataclasses.replace(SMALL, steps=24, learning_rate=rate) for rate in rates]
    graphs = RecordedGraphs()
    together = fit(replaying(graphs), configs, rows_of(), every=50, end_first=14)
    plain = fit(PLAIN, configs, rows_of(), every=50, end_first=14)
    for ours, theirs in zip(together, plain, strict=True):
        assert_alike(ours, theirs)
    assert "asked" in str(together[0].ended)
    assert "at step 2" in str(together[1].ended)
    assert together[2].ended is None
    assert (graphs.captures, graphs.replays) == (3, 24 - 3 - 3 * WARM)


def test_a_loss_is_read_when_it_is_asked_for() -> None:
    """Before, there is none: nothing has waited."""
    read: list[tuple[int, int]] = []

    class Asks(Hook):
        def step(self, view: Any) -> None:
            before = len(view.run.losses)
            if view.step == 7:
                assert view.loss == view.run.losses[-1]
            read.append((before, len(view.run.losses)))

    config = dataclasses.replace(SMALL, steps=8, logging_steps=8)
    engine = replaying(RecordedGraphs())
    config = engine.checked(config)
    torch.set_num_threads(1)
    engine.fit([Job(config, engine.build(config), rows_of(), Path("unused"))], [[Asks()]])
    assert read == [(1, 1), *[(0, 0)] * 5, (0, 6), (7, 7)]


def test_with_as_many_graphs_as_there_may_be_further_kinds_are_computed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(graph, "MOST", 1)
    graphs = RecordedGraphs()
    (ours,), (theirs,) = (fit(engine, [SMALL], rows_of(), every=3) for engine in (replaying(graphs), PLAIN))
    assert_alike(ours, theirs)
    assert graphs.captures == 1


def baked_rate(self: FusedAdamW, rate: Any) -> None:
    """The update with the rate and the count of steps as Python numbers."""
    FlatAdamW.step(self, learning_rate(self.config, self.steps + 1))


def test_a_python_number_in_a_graph_would_be_found(monkeypatch: pytest.MonkeyPatch) -> None:
    (theirs,) = fit(PLAIN, [SMALL], rows_of(), every=50)
    monkeypatch.setattr(FusedAdamW, "step", baked_rate)
    (computed,) = fit(replaying(None), [SMALL], rows_of(), every=50)
    assert_alike(computed, theirs)
    (replayed,) = fit(replaying(RecordedGraphs()), [SMALL], rows_of(), every=50)
    with pytest.raises(AssertionError):
        assert_alike(replayed, theirs)


def test_the_check_at_the_start_is_of_a_replay(monkeypatch: pytest.MonkeyPatch) -> None:
    """Also of one that does nothing."""
    config = PLAIN.checked(dataclasses.replace(SMALL, engine="fast"))
    ids = Batches(config, rows_of())(1)[0]
    graphs = RecordedGraphs()
    prove(config, ids, None, graphs)
    assert graphs.replays == 1
    monkeypatch.setattr(Recorder, "replay", lambda self: None)
    with pytest.raises(InputError, match="does not compute this model here"):
        prove(config, ids, None, graphs)


class OneDevice(TorchDispatchMode):
    """Refuses an operation on tensors of another device, too: copies from the host have no place in a graph."""

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        """Do an operation; the fused kernel is none of this device's."""
        result = None if "fused_adamw" in str(func) else func(*args, **(kwargs or {}))
        assert {tensor.device.type for tensor in tensors((args, kwargs, result))} <= {"meta"}, func
        return result


@pytest.mark.parametrize(
    "change", [{}, {"precision": "bf16-mixed", "mask_across_stories": True}, {"tied": False}], ids=str
)
def test_a_step_takes_nothing_from_the_host(change: dict[str, Any]) -> None:
    """On torch's device without values, with the branches of a GPU."""
    config = dataclasses.replace(
        SMALL, engine="fast", arithmetic=NATIVE if "precision" in change else FLOAT32, **change
    )
    models = [Gpt2(config).to("meta") for _ in range(2)]
    object.__setattr__(config, "device", "meta")  # not among a user's choices
    runs = [Run(Job(config, model, rows_of(positions=True), Path("unused")), []) for model in models]
    part = DevicePart(config, runs, None, ROOM)
    with OneDevice():
        part._work(SMALL.batch_size, (Kept.needs, frozenset()))
    assert part.computation.hidden is not None
    assert part.computation.hidden.is_meta


@pytest.mark.parametrize(("kind", "live"), [(np.uint16, 1 << 16), (np.uint32, 1 << 20)])
@pytest.mark.parametrize("room", [0, ROOM])
def test_the_device_has_the_rows_of_each_step(kind: type, live: int, room: int) -> None:
    """Ids whose highest bit is set among them, over two epochs with their short last batches."""
    rows = rows_of(positions=True, kind=kind, live=live)
    configs = [dataclasses.replace(SMALL, seed=seed, mask_across_stories=True) for seed in (1, 2)]
    feed = Feed([Batches(config, rows) for config in configs], torch.device("cpu"), room)
    highest = 0
    for step in range(1, 15):
        expected = [Batches(config, rows)(step) for config in configs]
        ids, mask = feed(feed.fill(step))
        assert torch.equal(ids, torch.stack([ids for ids, _ in expected]))
        assert torch.equal(mask, torch.cat([mask for _, mask in expected]))
        highest = max(highest, int(ids.max()))
    assert highest > live // 2


def test_rows_of_different_runs_are_not_taken_for_each_other() -> None:
    several = [Batches(SMALL, rows_of(live=live)) for live in (50, 100)]
    feed = Feed(several, torch.device("cpu"), ROOM)
    ids, _ = feed(feed.fill(1))
    assert torch.equal(ids, torch.stack([batches(1)[0] for batches in several]))


@pytest.mark.parametrize("largest", [[0.0, 1e-3, 1e3], [0.5, 0.5, 0.5]])
def test_clipping_at_once_is_clipping_one_after_the_other(largest: list[float]) -> None:
    """One norm is not finite: nothing is scaled by it where nothing is to be scaled."""
    both = [Parameters([Gpt2(SMALL) for _ in largest], torch.device("cpu")) for _ in range(2)]
    gradients = torch.randn(both[0].gradients.shape, generator=torch.Generator().manual_seed(1))
    gradients[0, 3] = float("inf")
    for parameters in both:
        parameters.gradients.copy_(gradients)
    one, other = (Step(parameters, SMALL, ARITHMETICS[FLOAT32]) for parameters in both)
    torch.testing.assert_close(one.clip_at_once(torch.tensor(largest)), other.clip(largest))
    torch.testing.assert_close(both[0].gradients, both[1].gradients, equal_nan=True)
    assert largest[0] == 0 or both[0].gradients[0].isnan().any()


@pytest.mark.parametrize("masked", [False, True])
def test_torchs_attention_is_ours_with_its_gradient(masked: bool) -> None:
    torch.set_num_threads(1)
    mask = story_mask(np.stack([row["position"] for row in rows_of(4, positions=True)])) if masked else None
    joined = torch.randn(4, CONTEXT, 3 * SMALL.n_embd, generator=torch.Generator().manual_seed(1))
    d_out = torch.randn(4, CONTEXT, SMALL.n_embd, generator=torch.Generator().manual_seed(2))
    found = []
    for attention in (
        lambda x: torch_attention(x, 2, mask),
        lambda x: CausalAttention.apply(x, 2, mask, ARITHMETICS[FLOAT32]),
    ):
        x = joined.clone().requires_grad_()
        out = attention(x)
        found.append((out.detach(), *torch.autograd.grad(out, [x], d_out)))
    for ours, theirs in zip(*found, strict=True):
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-6)
