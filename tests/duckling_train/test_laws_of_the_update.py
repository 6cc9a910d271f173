"""The laws that AdamW and its rounding set for the weights, on both engines: what each trains obeys them."""

from __future__ import annotations

import dataclasses
import math

import numpy as np
import pytest
import torch

from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines import FAST, load_engine
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters, decays
from duckling_train.engines.fast.update import FlatAdamW, make_update
from tests.support.seen import LIVE, ON_BOTH, SMALL, WIDTH, Seen, numbers, trained


@ON_BOTH
def test_law_5_clipping_does_not_change_the_first_step(engine: str) -> None:
    free, clipped = (trained(engine=engine, steps=1, max_grad_norm=norm) for norm in (0.0, 0.05))
    assert clipped.gradients[0].norm() < 0.5 * free.gradients[0].norm()
    for seen in (free, clipped):
        lengths = seen.moves[0][LIVE:].norm(dim=1)
        assert lengths.numpy() == pytest.approx(1e-3 * math.sqrt(WIDTH), rel=0.02)


def by_adam(seen: Seen) -> torch.Tensor:
    """How far Adam at least moved each coordinate in each step, in learning rates of 1e-3, where λ is 0.1."""
    return torch.stack(
        [move.abs() / 1e-3 - 0.1 * w.double().abs() for w, move in zip(seen.matrices, seen.moves, strict=False)]
    )


@ON_BOTH
def test_law_6_no_coordinate_of_a_dead_row_moves_further_than_a_single_gradient_moves_it(engine: str) -> None:
    """lr (1 − β1) / √(1 − β2), and the decay."""
    moved = by_adam(trained(engine=engine, steps=30, schedule="constant", weight_decay=0.1))[:, LIVE:]
    assert 0.9 < moved.max() < 0.1 / math.sqrt(0.001)


@ON_BOTH
def test_law_6_the_bound_is_that_of_the_arithmetic(engine: str) -> None:
    """A token that first occurs in the last of 40 steps nearly gets there: a single gradient after none.

    Gradients that grow move a row further, up to 1 / √(1 − β1² / β2) times as far, by Cauchy and Schwarz.
    """
    config = dataclasses.replace(
        SMALL, engine=engine, steps=40, batch_size=1, betas=(0.5, 0.9), schedule="constant", weight_decay=0.1
    )
    rows, late, single = numbers(40), LIVE - 1, 0.5 / math.sqrt(0.1)
    rows[rows == late] = 0
    rows[Batches(config, PackedRows(Rows([rows]))).indices(40)[0], 5] = late
    seen = trained(config, rows, tied=False)
    moved = by_adam(seen)
    assert not seen.gradients[38][late].any()
    assert moved[39, late].max() > 0.95 * single
    assert moved.max() < single / math.sqrt(1 - 0.5**2 / 0.9)


@ON_BOTH
def test_law_7_decay_alone_shrinks_the_weights_by_the_product_of_its_factors(engine: str) -> None:
    """W_T = W_0 · Π (1 − lr_t · λ) where every gradient is 0: in the dead rows of an untied embedding."""
    config = dataclasses.replace(SMALL, engine=engine, tied=False, weight_decay=0.1, learning_rate=0.05, warmup_steps=3)
    seen, factor = trained(config), 1.0
    assert not any(gradient[LIVE:].any() for gradient in seen.gradients)
    for step, after in enumerate(seen.matrices[1:], 1):
        factor *= 1 - learning_rate(config, step) * 0.1
        expected = seen.matrices[0][LIVE:].double() * factor
        torch.testing.assert_close(after[LIVE:].double(), expected, rtol=1e-6, atol=0)
    assert factor < 0.98


def test_law_7_biases_and_layer_norms_have_no_decay() -> None:
    """All gradients are 0; the reference engine's are the Trainer's own groups."""
    config = dataclasses.replace(SMALL, weight_decay=0.1, learning_rate=0.05, schedule="constant")
    parameters = Parameters([load_engine(FAST).build(config)], torch.device("cpu"))
    update = make_update(parameters, 0, config)
    assert isinstance(update, FlatAdamW)
    before = {name: view.clone() for name, view in parameters.of(parameters.weights, 0).items()}
    update.step(0.05)
    for name, after in parameters.of(parameters.weights, 0).items():
        expected = before[name] * (1 - 0.05 * 0.1) if decays(name) else before[name]
        assert torch.equal(after, expected), name


@ON_BOTH
def test_law_8_in_pure_bf16_decay_does_nothing_below_half_a_rounding(engine: str) -> None:
    """lr · λ below 2⁻⁹: bitwise the run without decay. Above it, some weights move."""
    rate = 2.0**-10
    config = dataclasses.replace(SMALL, engine=engine, precision="bf16-pure", schedule="constant", steps=4)
    without, below, above = (
        trained(config, learning_rate=rate, weight_decay=decay)
        for decay in (0.0, 0.99 * 2.0**-9 / rate, 1.01 * 2.0**-9 / rate)
    )
    assert torch.equal(below.matrices[-1], without.matrices[-1])
    assert not torch.equal(above.matrices[-1], without.matrices[-1])


@ON_BOTH
def test_law_9_in_pure_bf16_a_weight_moves_only_by_an_update_of_half_its_spacing(engine: str) -> None:
    """2^(e − 8) for 2^e ≤ |w| < 2^(e + 1); half of it from 2^e towards 0, where the neighbour is nearer."""
    config = dataclasses.replace(
        SMALL, engine=engine, precision="bf16-pure", learning_rate=1e-4, weight_decay=0.0, steps=6
    )
    seen, moved, stayed = trained(config), 0, 0
    for done, (before, move, state) in enumerate(zip(seen.matrices, seen.moves, seen.states, strict=False)):
        m, v = (state[f"{kind}/transformer.wte.weight"] for kind in ("exp_avg", "exp_avg_sq"))
        root = torch.sqrt(v).div_(math.sqrt(1 - 0.999 ** (done + 1))).add_(1e-8).double()
        update = learning_rate(config, done + 1) / (1 - 0.9 ** (done + 1)) * m.double() / root
        mantissa, exponent = torch.frexp(before.double().abs())  # |w| = mantissa · 2^exponent, mantissa from 1/2
        half = torch.ldexp(torch.ones_like(mantissa), exponent - 9) / torch.where(mantissa == 0.5, 2, 1)
        assert (update.abs()[move != 0] >= half[move != 0] * (1 - 1e-6)).all()
        moved, stayed = moved + int((move != 0).sum()), stayed + int(((move == 0) & (update != 0)).sum())
    assert min(moved, stayed) > 100


DUCKLING = TrainConfig(steps=4, batch_size=1, precision="fp32", learning_rate=1e-3, weight_decay=0.1, device="cpu",
                       max_grad_norm=0.2, n_positions=64)  # fmt: skip
"""The model at its own size, on short rows."""


@pytest.mark.parametrize("size", ["small", "real"])
@ON_BOTH
def test_law_10_adamw_replays_bitwise_from_the_first_weights_and_the_gradients_after_clipping(
    engine: str, size: str
) -> None:
    """And what decay and Adam each did adds up to the whole way, but for a rounding a step."""
    small = size == "small"
    config = dataclasses.replace(SMALL, weight_decay=0.1, max_grad_norm=0.2) if small else DUCKLING
    rows = None if small else np.random.default_rng(4).integers(0, 6144, (4, 64)).astype(np.uint16)
    seen = trained(config, rows, engine=engine)
    assert all(gradient.norm() <= 0.2 for gradient in seen.gradients)
    w = seen.matrices[0].clone()
    m, v, decayed, moved = torch.zeros_like(w), torch.zeros_like(w), torch.zeros(()).double(), torch.zeros(()).double()
    for step, (gradient, expected) in enumerate(zip(seen.gradients, seen.matrices[1:], strict=True), 1):
        rate, corrected1, corrected2 = learning_rate(config, step), 1 - 0.9**step, 1 - 0.999**step
        decayed = decayed - rate * 0.1 * w.double()
        w = w * (1 - rate * 0.1)
        m = torch.lerp(m, gradient, 1 - 0.9)
        v = torch.addcmul(0.999 * v, gradient, gradient, value=1 - 0.999)
        root = v.sqrt() / math.sqrt(corrected2) + 1e-8
        moved = moved - rate / corrected1 * m.double() / root.double()
        w = torch.addcdiv(w, m, root, value=-rate / corrected1)
        assert torch.equal(w, expected), f"step {step}"
    rest = seen.matrices[-1].double() - seen.matrices[0].double() - decayed - moved
    assert decayed.abs().max() > 1e-5
    assert rest.square().mean().sqrt() < 1e-8
    assert rest.abs().max() < 5e-8
