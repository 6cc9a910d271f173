"""The laws that gradients, AdamW and its rounding set for dead rows, on the fast engine: what it trains obeys them.

N is the number of a batch's positions, B · T: the loss is the sum over the B · (T − 1) predictions, divided by N, as in
the Trainer. h are the final hidden states of the positions that predict, h̄ is their mean, p the softmax.
"""

from __future__ import annotations

import dataclasses
import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines import load_engine
from duckling_train.engines.fast.arithmetic import EMULATED, NATIVE
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters, decays
from duckling_train.engines.fast.update import FlatAdamW, make_update
from duckling_train.gpt2 import Gpt2
from tests.support.seen import LIVE, SMALL, VOCABULARY, WIDTH, Seen, numbers, tie, trained

DEFAULT_LIVE = 6144


@pytest.fixture(scope="module")
def duckling() -> Seen:
    """One step of Duckling II at its own size, unclipped."""
    config = TrainConfig(
        engine="fast", steps=1, batch_size=1, precision="fp32", learning_rate=1e-3, max_grad_norm=0.0, device="cpu"
    )
    return trained(config, np.random.default_rng(4).integers(0, DEFAULT_LIVE, (1, 512)).astype(np.uint16))


NO_MOMENTUM = {"betas": (0.0, 0.999), "max_grad_norm": 0.0}
"""With β1 = 0 the first moment is the gradient itself."""


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16-pure"])
def test_law_1_the_embedding_as_input_gives_dead_rows_no_gradient(precision: str) -> None:
    """Exactly 0: an untied embedding's dead rows have none, and a tied one's have the bits of the softmax's alone."""
    untied = trained(precision=precision, tied=False, change=tie, steps=1, **NO_MOMENTUM)
    tied = trained(precision=precision, steps=1, **NO_MOMENTUM)
    assert untied.gradients[0][:LIVE].any()
    assert not untied.gradients[0][LIVE:].any()
    ours, softmax = tied.gradients[0], untied.moment("lm_head")
    assert torch.equal(ours[LIVE:], softmax[LIVE:])
    assert not torch.equal(ours[:LIVE], softmax[:LIVE])


@pytest.mark.parametrize(
    ("settings", "largest"),
    [({}, 1e-7), *(({"precision": "bf16-mixed", "arithmetic": name}, 5e-4) for name in (NATIVE, EMULATED))],
    ids=str,
)
def test_law_2_the_softmaxs_gradients_sum_to_0_over_the_vocabulary(settings: dict[str, Any], largest: float) -> None:
    seen = trained(tied=False, steps=3, **NO_MOMENTUM, **settings)
    for step in (1, 2, 3):
        gradient = seen.moment("lm_head", step).double()
        assert gradient.sum(0).norm() <= largest * gradient.norm(dim=1).sum()


def test_law_3_a_dead_rows_gradient_is_its_probability_times_the_hidden_states(duckling: Seen) -> None:
    """g_i = Σ p_i h / N, by the formula and by autograd; at first all dead rows have the direction of h̄."""
    h, w, gradient = duckling.predicting(), duckling.matrices[0].clone().requires_grad_(), duckling.gradients[0]
    logits, count = h @ w.T, len(h) + 1
    targets = torch.zeros(len(h), dtype=torch.int64)  # any live ids: no dead row's gradient depends on them
    (by_autograd,) = torch.autograd.grad(cross_entropy(logits, targets, reduction="sum") / count, w)
    by_formula = torch.softmax(logits.detach().double(), 1)[:, DEFAULT_LIVE:].T @ h.double() / count
    dead = gradient[DEFAULT_LIVE:].double()
    for expected in (by_formula, by_autograd[DEFAULT_LIVE:].double()):
        assert (dead - expected).norm() <= 1e-6 * expected.norm()
    mean = h.double().mean(0)
    assert cosine_similarity(dead.mean(0), mean, dim=0) >= 0.99999
    assert dead.norm(dim=1).mean() * 8192 / mean.norm() == pytest.approx(1, abs=0.02)


def test_law_4_the_first_loss_and_the_dead_mass_are_those_of_the_initial_spread(duckling: Seen) -> None:
    """ln V + 0.02² · D / 2 a prediction, and the dead rows' share of the vocabulary."""
    assert duckling.losses[0] * 512 / 511 == pytest.approx(math.log(8192) + 0.02**2 * 128 / 2, abs=0.03)
    p = torch.softmax(duckling.predicting() @ duckling.matrices[0].T, 1)
    assert p[:, DEFAULT_LIVE:].sum(1).mean() == pytest.approx(0.25, abs=1e-3)


def test_law_5_the_first_step_moves_every_dead_row_by_the_rate_times_root_d(duckling: Seen) -> None:
    """0.0113 at a learning rate of 1e-3: AdamW's first step has the size of the rate in each coordinate."""
    lengths = duckling.moves[0][DEFAULT_LIVE:].norm(dim=1)
    assert lengths.numpy() == pytest.approx(1e-3 * math.sqrt(128), rel=0.02)


def test_law_5_clipping_does_not_change_the_first_step() -> None:
    free, clipped = (trained(steps=1, max_grad_norm=norm) for norm in (0.0, 0.05))
    assert clipped.gradients[0].norm() < 0.5 * free.gradients[0].norm()
    for seen in (free, clipped):
        lengths = seen.moves[0][LIVE:].norm(dim=1)
        assert lengths.numpy() == pytest.approx(1e-3 * math.sqrt(WIDTH), rel=0.02)


def by_adam(seen: Seen) -> torch.Tensor:
    """How far Adam at least moved each coordinate in each step, in learning rates of 1e-3, where λ is 0.1."""
    return torch.stack(
        [move.abs() / 1e-3 - 0.1 * w.double().abs() for w, move in zip(seen.matrices, seen.moves, strict=False)]
    )


def test_law_6_no_coordinate_of_a_dead_row_moves_further_than_a_single_gradient_moves_it() -> None:
    """lr (1 − β1) / √(1 − β2), and the decay."""
    moved = by_adam(trained(steps=30, schedule="constant", weight_decay=0.1))[:, LIVE:]
    assert 0.9 < moved.max() < 0.1 / math.sqrt(0.001)


def test_law_6_the_bound_is_that_of_the_arithmetic() -> None:
    """A token that first occurs in the last of 40 steps nearly gets there: a single gradient after none.

    Gradients that grow move a row further, up to 1 / √(1 − β1² / β2) times as far, by Cauchy and Schwarz.
    """
    config = dataclasses.replace(SMALL, steps=40, batch_size=1, betas=(0.5, 0.9), schedule="constant", weight_decay=0.1)
    rows, late, single = numbers(40), LIVE - 1, 0.5 / math.sqrt(0.1)
    rows[rows == late] = 0
    rows[Batches(config, PackedRows(Rows([rows]))).indices(40)[0], 5] = late
    seen = trained(config, rows, tied=False)
    moved = by_adam(seen)
    assert not seen.gradients[38][late].any()
    assert moved[39, late].max() > 0.95 * single
    assert moved.max() < single / math.sqrt(1 - 0.5**2 / 0.9)


def test_law_7_decay_alone_shrinks_the_weights_by_the_product_of_its_factors() -> None:
    """W_T = W_0 · Π (1 − lr_t · λ) where every gradient is 0; biases and LayerNorm have no decay."""
    config = dataclasses.replace(SMALL, weight_decay=0.1, learning_rate=0.05, warmup_steps=3)
    parameters = Parameters([load_engine("fast").build(config)], torch.device("cpu"))
    update = make_update(parameters, 0, config)
    assert isinstance(update, FlatAdamW)
    before, factor = {name: view.clone() for name, view in parameters.of(parameters.weights, 0).items()}, 1.0
    for step in range(1, config.steps + 1):
        update.step(learning_rate(config, step))
        factor *= 1 - learning_rate(config, step) * 0.1
    assert factor < 0.98
    for name, after in parameters.of(parameters.weights, 0).items():
        expected = before[name].double() * (factor if decays(name) else 1)
        torch.testing.assert_close(after.double(), expected, rtol=1e-6 if decays(name) else 0, atol=0)


def test_law_8_in_pure_bf16_decay_does_nothing_below_half_a_rounding() -> None:
    """lr · λ below 2⁻⁹: bitwise the run without decay. Above it, some weights move."""
    rate = 2.0**-10
    without, below, above = (
        trained(precision="bf16-pure", learning_rate=rate, schedule="constant", weight_decay=decay, steps=4)
        for decay in (0.0, 0.99 * 2.0**-9 / rate, 1.01 * 2.0**-9 / rate)
    )
    assert torch.equal(below.matrices[-1], without.matrices[-1])
    assert not torch.equal(above.matrices[-1], without.matrices[-1])


def test_law_9_in_pure_bf16_a_weight_moves_only_by_an_update_of_half_its_spacing() -> None:
    """2^(e − 8) for 2^e ≤ |w| < 2^(e + 1); half of it from 2^e towards 0, where the neighbour is nearer."""
    config = dataclasses.replace(SMALL, precision="bf16-pure", learning_rate=1e-4, weight_decay=0.0, steps=6)
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


def test_law_10_adamw_replays_bitwise_from_the_first_weights_and_the_gradients_after_clipping() -> None:
    """And what decay and Adam each did adds up to the whole way, but for a rounding a step."""
    config = dataclasses.replace(SMALL, weight_decay=0.1, max_grad_norm=0.2)
    seen = trained(config)
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


@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16-pure", "bf16-weights"])
def test_law_11_equal_dead_rows_stay_equal(precision: str) -> None:
    """To the last bit, wherever they are in the matrix."""
    equal = [LIVE, LIVE + 1, LIVE + 17, VOCABULARY - 1]

    def make_equal(model: Gpt2) -> None:
        model.transformer.wte.weight[equal] = model.transformer.wte.weight[LIVE].clone()

    for w in trained(precision=precision, change=make_equal).matrices:
        assert all(torch.equal(w[row], w[LIVE]) for row in equal)
        assert not torch.equal(w[LIVE + 2], w[LIVE])


def test_law_12_dead_rows_in_another_order_go_the_same_ways() -> None:
    order = torch.cat([torch.arange(LIVE), LIVE + torch.randperm(VOCABULARY - LIVE)])

    def permute(model: Gpt2) -> None:
        model.transformer.wte.weight.copy_(model.transformer.wte.weight[order].clone())

    plain, permuted = trained(), trained(change=permute)
    np.testing.assert_allclose(permuted.losses, plain.losses, rtol=1e-6)
    assert (permuted.matrices[-1] - plain.matrices[-1]).abs().max() > 1e-2
    torch.testing.assert_close(permuted.matrices[-1], plain.matrices[-1][order], rtol=0, atol=1e-5)


def test_law_13_one_vector_added_to_all_softmax_rows_changes_no_probability() -> None:
    """Nor any loss or gradient later, as long as there is no decay."""

    def shift(model: Gpt2) -> None:
        tie(model)
        model.lm_head.weight.add_(torch.linspace(-0.1, 0.1, WIDTH))

    plain, shifted = (trained(tied=False, weight_decay=0.0, change=change) for change in (tie, shift))
    np.testing.assert_allclose(shifted.losses, plain.losses, rtol=1e-6)
    difference = shifted.gradients[-1] - plain.gradients[-1]
    assert difference.norm() <= 1e-4 * plain.gradients[-1].norm()


def test_law_16_the_dead_rows_drift_against_the_mean_hidden_state_from_the_first_step_on() -> None:
    seen = trained(steps=30)
    for step, move in enumerate(seen.moves, 1):
        mean, drift = seen.predicting(step).double().mean(0), move[LIVE:].mean(0)
        assert cosine_similarity(drift, -mean, dim=0) > 0, f"step {step}"
