"""What a hook sees of a gradient in its two parts, and of the probabilities: on both engines, against float64."""

from __future__ import annotations

import dataclasses
import functools
from pathlib import Path
from typing import Any

import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import Trainer

from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines import load_engine
from duckling_train.engines.base import GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES, Hook, Job, StepView
from duckling_train.engines.fast.order import Batches
from duckling_train.engines.reference.callbacks import TrainerHook
from duckling_train.engines.reference.engine import CausalLMCollator, arguments_of
from duckling_train.gpt2 import Gpt2
from tests.support.seen import LIVE, SMALL, numbers

CONFIG = dataclasses.replace(SMALL, steps=3, max_grad_norm=0.4)
ROWS = PackedRows(Rows([numbers()]))
EVERYTHING = frozenset({GRADIENT, GRADIENT_PARTS, HIDDEN, PROBABILITIES})
PRECISIONS = ("fp32", "bf16-mixed", "bf16-pure")
State = dict[str, torch.Tensor]


def weights_of(model: Any) -> State:
    return {name: tensor.detach().clone() for name, tensor in model.named_parameters()}


class Watcher(Hook):
    """Keeps of each step the loss and what it needs, and the weights before the first and after each step."""

    def __init__(self, needs: frozenset[str] = EVERYTHING, at: frozenset[int] = frozenset({1, 2, 3})) -> None:
        super().__init__()
        self.needs, self.at = needs, at
        self.losses: list[float | None] = []
        self.weights: list[State] = []
        self.seen: list[dict[str, Any]] = []

    def needs_at(self, step: int) -> frozenset[str]:
        return self.needs if step in self.at else frozenset()

    def begin(self, view: StepView) -> None:
        self.weights.append(weights_of(view.model))

    def step(self, view: StepView) -> None:
        self.losses.append(view.loss)
        self.weights.append(weights_of(view.model))
        shown = {GRADIENT: view.gradient, HIDDEN: view.hidden, PROBABILITIES: view.probabilities}
        self.seen.append({name: None if kept is None else kept.clone() for name, kept in shown.items()})
        parts = view.gradient_parts
        self.seen[-1][GRADIENT_PARTS] = None if parts is None else [part.clone() for part in parts]


class CallbackWatcher(Watcher, TrainerHook):
    """The same as a callback."""


def watched(engine: str, *hooks: Watcher, **settings: Any) -> tuple[Watcher, ...]:
    """Train a run for each hook, of seeds that count from 0, together. Returns the hooks."""
    torch.set_num_threads(1)
    made = load_engine(engine)
    configs = [
        made.checked(dataclasses.replace(CONFIG, engine=engine, seed=seed, **settings)) for seed in range(len(hooks))
    ]
    jobs = [Job(config, made.build(config), ROWS, Path("unused")) for config in configs]
    assert made.fit(jobs, [[hook] for hook in hooks]) == [None] * len(jobs)
    return hooks


@functools.cache
def seen(engine: str, precision: str = "fp32", *, tied: bool = True) -> Watcher:
    """A run of which a hook needs everything, trained once."""
    return watched(engine, Watcher(), precision=precision, tied=tied)[0]


@pytest.fixture(params=["fast", "reference"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


def apart(found: torch.Tensor, expected: torch.Tensor) -> float:
    """The difference's norm, relative."""
    return float((found.double() - expected.double()).norm() / expected.double().norm())


def by_autograd(config: TrainConfig, weights: State, ids: torch.Tensor) -> dict[str, torch.Tensor]:
    """The parts after clipping, and the mean probabilities, by autograd and in float64."""
    model = Gpt2(dataclasses.replace(config, precision="fp32", tied=False)).double()
    model.load_state_dict({"lm_head.weight": weights["transformer.wte.weight"], **weights})
    logits = model(ids).logits[:, :-1].flatten(0, 1)
    (cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum") / ids.numel()).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters() if parameter.grad is not None}
    of_input, of_softmax = gradients["transformer.wte.weight"], gradients["lm_head.weight"]
    norms = {name: gradient.norm() for name, gradient in gradients.items()}
    if config.tied:
        norms |= {"lm_head.weight": torch.zeros(()), "transformer.wte.weight": (of_input + of_softmax).norm()}
    factor = min(1.0, config.max_grad_norm / float(torch.stack([norm.double() for norm in norms.values()]).norm()))
    assert factor < 0.9
    probabilities = torch.softmax(logits.detach(), 1).mean(0)
    return {"input": of_input * factor, "softmax": of_softmax * factor, PROBABILITIES: probabilities}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("tied", [True, False])
def test_the_parts_and_the_probabilities_are_those_of_autograd_in_float64(
    engine: str, tied: bool, precision: str
) -> None:
    hook = seen(engine, precision, tied=tied)
    config = dataclasses.replace(CONFIG, seed=0, tied=tied)
    for step, (weights, shown) in enumerate(zip(hook.weights, hook.seen, strict=False), 1):
        expected = by_autograd(config, weights, Batches(config, ROWS)(step)[0])
        within = 1e-5 if precision == "fp32" else 0.03
        for found, name in zip(shown[GRADIENT_PARTS], ("input", "softmax"), strict=True):
            assert apart(found, expected[name]) < within, (step, name)
        assert shown[PROBABILITIES].dtype == torch.float32
        assert apart(shown[PROBABILITIES], expected[PROBABILITIES]) < (1e-6 if precision == "fp32" else 1e-3)


@pytest.mark.parametrize("precision", ["unclipped", *PRECISIONS])
def test_law_1_a_dead_row_has_no_part_as_input_and_its_gradient_is_the_softmaxs(engine: str, precision: str) -> None:
    """Bitwise; a live row's two parts add up, but for a rounding of each."""
    hook = watched(engine, Watcher(), max_grad_norm=0.0)[0] if precision == "unclipped" else seen(engine, precision)
    for shown in hook.seen:
        gradient, (of_input, of_softmax) = shown[GRADIENT], shown[GRADIENT_PARTS]
        assert {gradient.dtype, of_input.dtype, of_softmax.dtype} == {hook.weights[0]["transformer.wte.weight"].dtype}
        assert not of_input[LIVE:].any()
        assert torch.equal(of_softmax[LIVE:], gradient[LIVE:])
        assert apart(of_input.double() + of_softmax.double(), gradient) < 2 * torch.finfo(gradient.dtype).eps


@pytest.mark.parametrize(("precision", "tied"), [("fp32", True), ("fp32", False), ("bf16-mixed", True)])
def test_what_hooks_need_changes_no_bit_of_a_run(engine: str, tied: bool, precision: str) -> None:
    (plain,) = watched(engine, Watcher(frozenset()), tied=tied, precision=precision)
    seeing = seen(engine, precision, tied=tied)
    assert seeing.losses == plain.losses
    for ours, theirs in zip(seeing.weights, plain.weights, strict=True):
        assert all(torch.equal(ours[name], theirs[name]) for name in theirs)


def test_nothing_is_kept_of_a_step_of_which_no_hook_needs_it(engine: str) -> None:
    (hook,) = watched(engine, Watcher(at=frozenset({2})))
    for name in (GRADIENT_PARTS, PROBABILITIES):
        assert [shown[name] is not None for shown in hook.seen] == [False, True, False]


def test_of_runs_that_train_together_each_shows_its_own() -> None:
    """And only to those that need it."""
    blind, *hooks = watched("fast", Watcher(frozenset()), Watcher(), Watcher(frozenset({PROBABILITIES})))
    alone = watched("reference", Watcher(), Watcher(), Watcher())
    assert all(shown[GRADIENT_PARTS] is shown[PROBABILITIES] is None for shown in blind.seen)
    assert all(shown[GRADIENT_PARTS] is None for shown in hooks[1].seen)
    for ours, theirs in zip(hooks, alone[1:], strict=True):
        for found, expected in zip(ours.seen, theirs.seen, strict=True):
            assert apart(found[PROBABILITIES], expected[PROBABILITIES]) < 1e-6
            for part, other in zip(found[GRADIENT_PARTS] or (), expected[GRADIENT_PARTS], strict=False):
                assert apart(part, other) < 1e-4
    assert apart(hooks[0].seen[0][PROBABILITIES], hooks[1].seen[0][PROBABILITIES]) > 1e-3


def test_any_trainers_callback_sees_them_summed_over_the_batches_of_a_step(tmp_path: Path) -> None:
    """A batch of 2 rows, and 2 batches of one: the mean over all positions, and parts that add up to the gradient."""
    config, hooks = load_engine("reference").checked(CONFIG), []
    for size in (2, 1):
        model, hook = load_engine("reference").build(config), CallbackWatcher()
        args = arguments_of(config, tmp_path, per_device_train_batch_size=size, gradient_accumulation_steps=2 // size)
        trainer = Trainer(
            model=model, args=args, train_dataset=ROWS, data_collator=CausalLMCollator(), callbacks=[hook]
        )  # fmt: skip
        trainer.train()
        hooks.append(hook)
    whole, halves = (hook.seen[0] for hook in hooks)
    assert apart(halves[PROBABILITIES], whole[PROBABILITIES]) < 1e-6
    for hook in hooks:
        for shown in hook.seen:
            assert apart(sum(shown[GRADIENT_PARTS]), shown[GRADIENT]) < 1e-6
    for half, of_whole in zip(halves[GRADIENT_PARTS], whole[GRADIENT_PARTS], strict=True):
        assert apart(half / half.norm(), of_whole / of_whole.norm()) < 1e-5


class OneOfTwo(Watcher):
    """Looks as the first of two processes does."""

    def step(self, view: StepView) -> None:
        with pytest.MonkeyPatch.context() as patch:
            patch.setenv("WORLD_SIZE", "2")
            super().step(view)


def test_of_several_processes_the_parts_of_a_tied_gradient_are_not_shown() -> None:
    """A process has those of its own rows alone."""
    for tied in (True, False):
        (hook,) = watched("reference", OneOfTwo(), tied=tied, steps=1)
        assert (hook.seen[0][GRADIENT_PARTS] is None) == tied
        assert hook.seen[0][GRADIENT] is not None
