"""The laws of the optimizer for bf16 weights: AdamW by hand, rounded once, to nearest or stochastically."""

from __future__ import annotations

import copy
import io
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import example, given, settings
from hypothesis import strategies as st

from duckling_train.optimizers import MOMENTS, OwnAdamW, optimizer_class
from duckling_train.precision import random_halves, round_stochastically

BF16, FP32 = torch.bfloat16, torch.float32
HALVES = torch.arange(1 << 16, dtype=torch.int32)
UINT32 = st.integers(0, 2**32 - 1)


def special_values(test: Any) -> Any:
    """Both zeros, the least and the largest numbers, infinities and every kind of NaN, as bits of a float32."""
    bit_patterns = (0, 1, 0x8000_0000, 0x8000_0001, 0x007F_FFFF, 0x3F80_8000, 0x3F81_8000, 0x7F7F_0001, 0x7F7F_FFFF)
    bit_patterns += (0x7F80_0000, 0xFF80_0000, 0x7F80_0001, 0x7FC0_0000, 0x7FFF_FFFF, 0xFFFF_FFFF)
    for bits in bit_patterns:
        test = example(bits)(test)
    return test


def float_of(bits: int) -> torch.Tensor:
    return torch.from_numpy(np.array([bits], dtype=np.uint32).view(np.float32))


def bits_of(values: torch.Tensor) -> np.ndarray:
    """The bf16 bit patterns as uint16."""
    assert values.dtype == BF16
    return values.contiguous().view(torch.int16).numpy().view(np.uint16)


@special_values
@given(UINT32)
def test_bf16_conversion_rounds_to_nearest_even(bits: int) -> None:
    value = float_of(bits)
    if value.isnan():
        assert value.to(BF16).isnan()
        return
    upper, low = bits >> 16, bits & 0xFFFF
    up = low > 0x8000 or (low == 0x8000 and upper % 2 == 1)
    assert bits_of(value.to(BF16))[0] == upper + up


@settings(max_examples=40, deadline=None)
@special_values
@given(UINT32)
def test_stochastic_rounding_takes_the_neighbour_away_from_zero_as_often_as_the_value_is_near_it(bits: int) -> None:
    """Over all 65,536 halves, as many round away from 0 as the low half says: exactly unbiased."""
    value = float_of(bits)
    rounded = round_stochastically(value.expand(HALVES.shape).contiguous(), HALVES)
    if value.isnan():
        assert rounded.isnan().all()
        return
    upper, low = bits >> 16, bits & 0xFFFF
    counts = dict(zip(*np.unique(bits_of(rounded), return_counts=True), strict=True))
    expected = {upper: (1 << 16) - low, upper + 1: low}
    assert counts == {pattern: count for pattern, count in expected.items() if count}


def test_stochastic_rounding_leaves_every_bf16_value_as_it_is() -> None:
    """All 65,536 bit patterns, both zeros, infinities and NaN among them, with the smallest and the largest half."""
    patterns = torch.arange(1 << 16, dtype=torch.int32).to(torch.int16).view(BF16)
    for half in (0, 1, 0xFFFF):
        rounded = round_stochastically(patterns.float(), torch.full(patterns.shape, half, dtype=torch.int32))
        number = ~patterns.isnan()
        assert np.array_equal(bits_of(rounded[number]), bits_of(patterns[number]))
        assert rounded[~number].isnan().all()
    assert int((~number).sum()) == 2 * 127


def test_the_mean_of_many_draws_is_the_value() -> None:
    draws = 200_000
    for number, value in enumerate((0.0201, -3.3e-3, 1.0001, 1.9999, -123.4, 1e-20)):
        exact = torch.full((draws,), value, dtype=FP32)
        rounded = round_stochastically(exact, random_halves(exact.shape, 1, 2, number)).double()
        error = float(rounded.mean() - exact[0].double())
        assert abs(error) <= 4 * float(rounded.std()) / draws**0.5, value
        assert len(rounded.unique()) == 2


def test_random_halves_are_uniform_and_set_by_seed_step_and_place() -> None:
    shape = torch.Size((50, 41))
    draw = random_halves(shape, 42, 7, 3)
    assert draw.shape == shape
    assert draw.dtype == torch.int32
    assert torch.equal(draw, random_halves(shape, 42, 7, 3))
    others = [random_halves(shape, *key) for key in ((43, 7, 3), (42, 8, 3), (42, 7, 4), (7, 42, 3), (2**32 - 1, 7, 3))]
    for other in others:
        assert float((draw == other).float().mean()) < 0.01
    many = random_halves(torch.Size((1 << 20,)), 0, 1, 0)
    assert (int(many.min()), int(many.max())) == (0, 0xFFFF)
    for bit in range(16):  # each bit is set half of the time: within 4 standard errors
        assert abs(float((many >> bit & 1).double().mean()) - 0.5) < 4 * 0.5 / 2**10


def test_random_halves_never_move() -> None:
    """The stream is part of what a seed means: these values hold for every version and machine."""
    assert random_halves(torch.Size((5,)), 42, 1, 0).tolist() == [23686, 57019, 26098, 29081, 64160]


def parameters(dtype: torch.dtype = BF16) -> list[torch.nn.Parameter]:
    generator = torch.Generator().manual_seed(3)
    shapes = ((300, 7), (11,), ())
    return [torch.nn.Parameter((torch.randn(shape, generator=generator) * 0.02).to(dtype)) for shape in shapes]


def optimizer_of(weights: list[torch.nn.Parameter], cls: type[torch.optim.Optimizer], **keywords: Any) -> Any:
    """Two groups, as the Trainer makes them: with weight decay and without."""
    groups = [{"params": weights[:1], "weight_decay": 0.1}, {"params": weights[1:], "weight_decay": 0.0}]
    return cls(groups, lr=1e-3, betas=(0.9, 0.999), eps=1e-8, **keywords)


def step(optimizer: Any, weights: list[torch.nn.Parameter], number: int) -> None:
    """One step on gradients that `number` alone sets, from 1e-6 to 1 in size."""
    generator = torch.Generator().manual_seed(100 + number)
    for weight in weights:
        size = 10 ** (-6 * torch.rand(weight.shape, generator=generator))
        weight.grad = (torch.randn(weight.shape, generator=generator) * size).to(weight.dtype)
    optimizer.step()


@pytest.mark.parametrize("seed", [None, 5])
def test_on_float32_weights_it_is_torchs_adamw_bitwise(seed: int | None) -> None:
    ours, theirs = parameters(FP32), parameters(FP32)
    our_optimizer = optimizer_of(ours, OwnAdamW, rounding_seed=seed)
    their_optimizer = optimizer_of(theirs, torch.optim.AdamW)
    for number in range(20):
        step(our_optimizer, ours, number)
        step(their_optimizer, theirs, number)
        assert all(torch.equal(our, their) for our, their in zip(ours, theirs, strict=True))
    for our, their in zip(ours, theirs, strict=True):
        for name in ("step", *MOMENTS):
            assert torch.equal(our_optimizer.state[our][name], their_optimizer.state[their][name])


def expected_update(before: dict[str, np.ndarray], number: int, decay: float) -> dict[str, np.ndarray]:
    """AdamW by hand (Loshchilov and Hutter, 2019, algorithm 2) in float64, from the weights and moments before it."""
    lr, beta1, beta2, eps = 1e-3, 0.9, 0.999, 1e-8
    first = beta1 * before["exp_avg"] + (1 - beta1) * before["grad"]
    second = beta2 * before["exp_avg_sq"] + (1 - beta2) * before["grad"] ** 2
    unbiased = first / (1 - beta1**number), second / (1 - beta2**number)
    weight = before["weight"] - lr * (decay * before["weight"] + unbiased[0] / (np.sqrt(unbiased[1]) + eps))
    return {"exp_avg": first, "exp_avg_sq": second, "weight": weight}


def double(tensor: torch.Tensor) -> np.ndarray:
    return tensor.detach().double().numpy().copy()


@pytest.mark.parametrize("precision", ["bf16-weights", "bf16-stochastic"])
def test_an_update_is_adamw_by_hand_rounded_once(precision: str) -> None:
    """From the bf16 weights alone: were there a master copy, the second step would start elsewhere."""
    weights = parameters()
    cls, keywords = optimizer_class(precision, 5) or (torch.optim.AdamW, {})
    optimizer = optimizer_of(weights, cls, **keywords)
    moved = near_ties = checked = 0
    for number in range(1, 9):
        before = [
            {"weight": double(weight)}
            | {name: double(optimizer.state[weight].get(name, weight * 0)) for name in MOMENTS}
            for weight in weights
        ]
        step(optimizer, weights, number)
        for place, weight in enumerate(weights):
            expected = expected_update(before[place] | {"grad": double(weight.grad)}, number, 0.0 if place else 0.1)
            for name in MOMENTS:
                np.testing.assert_allclose(double(optimizer.state[weight][name]), expected[name], rtol=1e-4, atol=1e-20)
            exact = torch.from_numpy(np.asarray(expected["weight"]))
            wanted, near = rounded_by_hand(exact, precision, number, place)
            assert torch.equal(weight[~near], wanted[~near])
            near_ties += int(near.sum())
            checked += near.numel()
            moved += int((double(weight) != before[place]["weight"]).sum())
    assert moved > checked / 20
    assert near_ties < checked / 100


def rounded_by_hand(exact: torch.Tensor, precision: str, number: int, place: int) -> tuple[torch.Tensor, torch.Tensor]:
    """The float64 weights in bf16, and where float32's error could have decided the rounding."""
    exponent = torch.frexp(exact).exponent
    ulp = torch.ldexp(torch.ones_like(exact), exponent - 8)
    toward_zero, rest = torch.trunc(exact / ulp), torch.frac(exact / ulp).abs()
    if precision == "bf16-weights":
        threshold = torch.full_like(rest, 0.5)
    else:
        threshold = 1 - random_halves(exact.shape, 5, number, place) / 2**16
    away = torch.where(rest >= threshold, torch.sign(exact), 0.0)
    return ((toward_zero + away) * ulp).to(BF16), (rest - threshold).abs() < 1e-3


@pytest.mark.parametrize("precision", ["bf16-weights", "bf16-stochastic"])
def test_a_loaded_state_goes_on_bitwise_and_stays_float32(precision: str) -> None:
    weights = parameters()
    cls, keywords = optimizer_class(precision, 5) or (torch.optim.AdamW, {})
    optimizer = optimizer_of(weights, cls, **keywords)
    for number in range(4):
        step(optimizer, weights, number)
    file = io.BytesIO()
    torch.save(optimizer.state_dict(), file)
    file.seek(0)
    saved = torch.load(file)
    untouched = copy.deepcopy(saved)
    others = [torch.nn.Parameter(weight.detach().clone()) for weight in weights]
    other_optimizer = optimizer_of(others, cls, **keywords)
    other_optimizer.load_state_dict(saved)
    for number in range(4, 8):
        step(optimizer, weights, number)
        step(other_optimizer, others, number)
        for weight, other in zip(weights, others, strict=True):
            assert torch.equal(weight, other)
            for name in ("step", *MOMENTS):
                state = other_optimizer.state[other][name]
                assert state.dtype == FP32
                assert torch.equal(state, optimizer.state[weight][name])
    for number, state in untouched["state"].items():
        assert all(torch.equal(state[name], saved["state"][number][name]) for name in state), "the caller's is a copy"


def test_a_parameter_without_a_gradient_stays_and_moves_no_other() -> None:
    """A frozen weight keeps its place: the others round as if it took part."""
    runs = []
    for frozen in (False, True):
        weights = parameters()
        before = weights[0].detach().clone()
        weights[0].requires_grad_(not frozen)
        optimizer = optimizer_of(weights, OwnAdamW, rounding_seed=5)
        (sum((weight.float() ** 2).sum() for weight in weights)).backward()
        optimizer.step()
        assert torch.equal(weights[0], before) == frozen
        runs.append(weights[1:])
    assert all(torch.equal(one, other) for one, other in zip(*runs, strict=True))


def test_a_step_leaves_the_global_random_streams_alone() -> None:
    weights = parameters()
    optimizer = optimizer_of(weights, OwnAdamW, rounding_seed=5)
    weights[0].grad = torch.ones_like(weights[0])
    states = torch.get_rng_state(), np.random.get_state()[1].copy()
    optimizer.step()
    assert torch.equal(torch.get_rng_state(), states[0])
    assert np.array_equal(np.random.get_state()[1], states[1])


def test_equal_seeds_train_equal_weights_and_others_do_not() -> None:
    trained = []
    for seed in (5, 5, 6):
        weights = parameters()
        optimizer = optimizer_of(weights, OwnAdamW, rounding_seed=seed)
        for number in range(3):
            step(optimizer, weights, number)
        trained.append(weights[0])
    assert torch.equal(trained[0], trained[1])
    assert not torch.equal(trained[0], trained[2])
