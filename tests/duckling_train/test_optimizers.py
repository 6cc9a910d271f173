"""The laws of the optimizers besides AdamW: the formula by hand in float64, in any precision. And dropout's draws."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from transformers import GPT2LMHeadModel, TrainerState, set_seed

from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.engines.reference.callbacks import DropoutSeeds
from duckling_train.experiment import duckling_ii
from duckling_train.model import build_model
from duckling_train.optimizers import MOMENTS, CoupledAdam, OwnSGD, optimizer_class
from duckling_train.precision import RECIPES
from duckling_train.runs.read import read_run
from duckling_train.runs.train import train

ADAM = {"lr": 1e-2, "betas": (0.9, 0.99), "eps": 1e-6}
SIZES = {"n_layer": 1, "n_embd": 16, "n_head": 2, "n_positions": 8, "vocab_size": 24}
DECAY = 0.1


def small_model(precision: str = "fp32", *, tied: bool = True) -> GPT2LMHeadModel:
    set_seed(1)
    return build_model(TrainConfig(**SIZES, precision=precision, tied=tied))


def made(name: str, model: GPT2LMHeadModel, precision: str = "fp32", **given: Any) -> torch.optim.Optimizer:
    chosen = optimizer_class(precision, 7, name, model, **ADAM)
    assert chosen is not None
    return chosen[0](model.parameters(), **chosen[1], weight_decay=DECAY, **given)


def set_gradients(model: GPT2LMHeadModel, number: int) -> None:
    generator = torch.Generator().manual_seed(number)
    for weight in model.parameters():
        weight.grad = torch.randn(weight.shape, generator=generator).to(weight.dtype)


def by_hand(weight: Any, gradient: Any, first: Any, second: Any, step: int, *, coupled: bool) -> Any:
    """A step of the docstring's formula in float64. Returns the weight and the two moments after it."""
    rate, (beta1, beta2), epsilon = ADAM["lr"], ADAM["betas"], ADAM["eps"]  # type: ignore[misc]
    first = beta1 * first + (1 - beta1) * gradient
    second = beta2 * second + (1 - beta2) * gradient**2
    unbiased = second / (1 - beta2**step)
    if coupled:
        unbiased = np.broadcast_to(unbiased.mean(axis=0), unbiased.shape)
    weight = (1 - rate * DECAY) * weight - rate * (first / (1 - beta1**step)) / (np.sqrt(unbiased) + epsilon)
    return weight, first, second


@pytest.mark.parametrize("tied", [True, False])
def test_coupled_adam_is_the_formula_and_couples_the_vocabulary_alone(tied: bool) -> None:
    model = small_model(tied=tied)
    optimizer = made("coupled-adam", model)
    names = dict(model.named_parameters())
    kept = {name: (p.detach().double().numpy(), 0.0, 0.0) for name, p in names.items()}
    for step in (1, 2, 3):
        set_gradients(model, step)
        for name, (weight, first, second) in kept.items():
            gradient = names[name].grad.double().numpy()  # type: ignore[union-attr]
            coupled = name in ("transformer.wte.weight", "lm_head.weight")
            kept[name] = by_hand(weight, gradient, first, second, step, coupled=coupled)
        optimizer.step()
        for name, parameter in names.items():
            found = [parameter.detach(), *(optimizer.state[parameter][moment] for moment in MOMENTS)]
            for ours, expected in zip(found, kept[name], strict=True):
                np.testing.assert_allclose(ours.numpy(), expected, rtol=2e-5, atol=2e-7, err_msg=name)
    assert ("lm_head.weight" in names) != tied


def test_rows_of_equal_gradients_move_equally_under_coupled_adam_whatever_their_past() -> None:
    moved = {}
    for name, kind in {"coupled-adam": CoupledAdam, "adamw": torch.optim.AdamW}.items():
        model = small_model()
        chosen = optimizer_class("fp32", 7, name, model, **ADAM) or (torch.optim.AdamW, ADAM)
        optimizer = chosen[0](model.parameters(), **chosen[1], weight_decay=0.0)  # type: ignore[arg-type]
        assert isinstance(optimizer, kind)
        rows = model.transformer.wte.weight
        set_gradients(model, 1)
        optimizer.step()
        optimizer.state[rows]["exp_avg"].zero_()  # equal in all rows; the second moments are not
        before = rows.detach().clone()
        assert rows.grad is not None
        rows.grad[:] = torch.linspace(-1, 1, rows.shape[1])
        rows.grad[0] *= -(len(rows) - 1)  # the gradient sums to 0 over the rows
        optimizer.step()
        moved[name] = rows.detach() - before
    alike = moved["coupled-adam"][1:]
    torch.testing.assert_close(alike, alike[:1].expand_as(alike), rtol=1e-4, atol=1e-8)
    assert alike.abs().max() > 1e-4
    assert moved["coupled-adam"].sum(dim=0).abs().max() < 1e-4 * moved["coupled-adam"].abs().max()
    assert moved["adamw"].sum(dim=0).abs().max() > 0.1 * moved["adamw"].abs().max()


def test_sgd_is_torchs_bitwise_and_by_hand() -> None:
    ours, theirs = small_model(), small_model()
    our_optimizer = made("sgd", ours)
    their_optimizer = torch.optim.SGD(theirs.parameters(), lr=1e-2, weight_decay=DECAY)
    assert isinstance(our_optimizer, OwnSGD)
    for step in range(3):
        set_gradients(ours, step)
        set_gradients(theirs, step)
        before, gradient = ours.transformer.wte.weight.detach().double(), ours.transformer.wte.weight.grad
        our_optimizer.step()
        their_optimizer.step()
        assert all(torch.equal(one, other) for one, other in zip(ours.parameters(), theirs.parameters(), strict=True))
        assert gradient is not None
        expected = before - 1e-2 * (gradient.double() + DECAY * before)
        torch.testing.assert_close(ours.transformer.wte.weight.detach().double(), expected, rtol=1e-6, atol=1e-8)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("name", ["coupled-adam", "sgd"])
def test_every_optimizer_holds_what_the_precision_says_and_goes_on_from_a_saved_state(
    name: str, precision: str
) -> None:
    model, other = small_model(precision), small_model(precision)
    optimizer, loaded = made(name, model, precision), made(name, other, precision)
    for step in (1, 2, 3):
        set_gradients(model, step)
        optimizer.step()
        if step == 2:
            other.load_state_dict(model.state_dict())
            loaded.load_state_dict(optimizer.state_dict())
    set_gradients(other, 3)
    loaded.step()
    for ours, theirs in zip(model.parameters(), other.parameters(), strict=True):
        assert ours.dtype == RECIPES[precision].weights
        assert torch.equal(ours, theirs)
        kept = {key: value for key, value in loaded.state[theirs].items() if key != "step"}
        assert {value.dtype for value in kept.values()} <= {RECIPES[precision].state}
        assert set(kept) == (set(MOMENTS) if name == "coupled-adam" else set())


OPEN = {"n_embd": 16, "precision": "fp32", "device": "cpu", "threads": 1, "logging_steps": 1}


@pytest.fixture(scope="module")
def unchanged(tiny_workspace: Path) -> list[float]:
    return duckling_ii(tiny_workspace, **OPEN).train(4).losses


@pytest.mark.parametrize(
    "changed",
    [{"optimizer": "sgd"}, {"optimizer": "coupled-adam"}, {"dropout": 0.1}, {"adam_epsilon": 1e-3}, {"init_std": 0.1}],
    ids=str,
)
def test_a_setting_changes_the_losses_alike_in_a_run_and_in_a_notebook(
    tiny_workspace: Path, tmp_path: Path, unchanged: list[float], changed: dict[str, Any]
) -> None:
    lab = duckling_ii(tiny_workspace, **OPEN, **changed)
    found = lab.train(4).losses
    assert found != unchanged
    config = dataclasses.replace(lab.config, steps=4, checkpoint_steps=0, eval_rows=0)
    train(config, tiny_workspace, tmp_path / "run", quiet=True)
    assert read_run(tmp_path / "run").losses == found


def test_dropout_draws_another_mask_at_each_step_and_for_each_seed() -> None:
    drawn = []
    for seed, step in ((42, 0), (42, 1), (43, 0), (42, 0)):
        DropoutSeeds(seed).on_step_begin(None, TrainerState(global_step=step), None)
        drawn.append(torch.rand(8))
    assert torch.equal(drawn[0], drawn[3])
    assert not torch.equal(drawn[0], drawn[1])
    assert not torch.equal(drawn[0], drawn[2])
