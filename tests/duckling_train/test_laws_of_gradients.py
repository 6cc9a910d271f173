"""The laws of the gradients of dead rows, on both engines: what each computes as it trains obeys them.

N is the number of a batch's positions, B · T: the loss is the sum over the B · (T − 1) predictions, divided by N, as in
the Trainer. h are the final hidden states of the positions that predict, h̄ is their mean, p the softmax.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn.functional import cosine_similarity, cross_entropy

from duckling_train.config import TrainConfig
from duckling_train.engines import FAST, REFERENCE, load_engine
from duckling_train.engines.fast.arithmetic import EMULATED, NATIVE
from duckling_train.gpt2 import Gpt2
from tests.support.seen import LIVE, ON_BOTH, SMALL, WIDTH, Seen, numbers, tie, trained

DEFAULT_LIVE = 6144


@pytest.fixture(scope="module", params=[FAST, REFERENCE])
def duckling(request: pytest.FixtureRequest) -> Seen:
    """One step of Duckling II at its own size, unclipped."""
    config = TrainConfig(
        engine=request.param, steps=1, batch_size=1, precision="fp32", learning_rate=1e-3, max_grad_norm=0.0,
        device="cpu",
    )  # fmt: skip
    return trained(config, np.random.default_rng(4).integers(0, DEFAULT_LIVE, (1, 512)).astype(np.uint16))


NO_MOMENTUM: dict[str, Any] = {"betas": (0.0, 0.999), "max_grad_norm": 0.0}
"""With β1 = 0 the first moment is the gradient itself."""


@ON_BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16-pure"])
def test_law_1_the_embedding_as_input_gives_dead_rows_no_gradient(engine: str, precision: str) -> None:
    """Exactly 0: an untied embedding's dead rows have none, and a tied one's have the bits of the softmax's alone."""
    settings: dict[str, Any] = {"engine": engine, "precision": precision, "steps": 1, **NO_MOMENTUM}
    untied = trained(tied=False, change=tie, **settings)
    tied = trained(**settings)
    assert untied.gradients[0][:LIVE].any()
    assert not untied.gradients[0][LIVE:].any()
    ours, softmax = tied.gradients[0], untied.moment("lm_head")
    assert torch.equal(ours[LIVE:], softmax[LIVE:])
    assert not torch.equal(ours[:LIVE], softmax[:LIVE])


def test_law_1_on_the_model_at_its_own_size(duckling: Seen) -> None:
    (as_input, as_softmax), gradient = duckling.parts[0], duckling.gradients[0]
    assert as_input[:DEFAULT_LIVE].any()
    assert not as_input[DEFAULT_LIVE:].any()
    assert torch.equal(gradient[DEFAULT_LIVE:], as_softmax[DEFAULT_LIVE:])


def test_law_2_on_the_model_at_its_own_size(duckling: Seen) -> None:
    as_softmax = duckling.parts[0][1].double()
    assert as_softmax.sum(0).norm() <= 1e-7 * as_softmax.norm(dim=1).sum()


@pytest.mark.parametrize(
    ("settings", "largest"),
    [
        *(({"engine": name}, 1e-7) for name in (FAST, REFERENCE)),
        *(({"precision": "bf16-mixed", "arithmetic": name}, 5e-4) for name in (NATIVE, EMULATED)),
        ({"precision": "bf16-mixed", "engine": REFERENCE}, 5e-4),
    ],
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


@ON_BOTH
def test_law_13_one_vector_added_to_all_softmax_rows_changes_no_probability(engine: str) -> None:
    """Nor any loss or gradient later, as long as there is no decay."""

    def shift(model: Any) -> None:
        tie(model)
        model.lm_head.weight.add_(torch.linspace(-0.1, 0.1, WIDTH))

    plain, shifted = (trained(engine=engine, tied=False, weight_decay=0.0, change=change) for change in (tie, shift))
    np.testing.assert_allclose(shifted.losses, plain.losses, rtol=1e-6)
    difference = shifted.gradients[-1] - plain.gradients[-1]
    assert difference.norm() <= 1e-4 * plain.gradients[-1].norm()


def test_law_14_the_difference_of_a_dead_rows_gradients_is_that_of_the_row_along_the_hidden_states() -> None:
    """δg_i = Σ p_i (1 − p_i) h hᵀ δW_i / N, to first order: the plain model in float64, one row moved both ways."""
    model = load_engine(FAST).build(SMALL).double()
    assert isinstance(model, Gpt2)
    ids, w, row = torch.from_numpy(numbers(2).astype(np.int64)), model.transformer.wte.weight, LIVE + 3
    move = 1e-4 * torch.randn(WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1))

    def gradient_at(shift: torch.Tensor) -> torch.Tensor:
        with torch.no_grad():
            w[row] += shift
        logits = model(ids).logits[:, :-1].flatten(0, 1)
        loss = cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum") / ids.numel()
        (gradient,) = torch.autograd.grad(loss, w)
        with torch.no_grad():
            w[row] -= shift
        return gradient[row]

    with torch.no_grad():
        h = model.transformer(ids, None)[:, :-1].flatten(0, 1)
        p = torch.softmax(h @ w.T, 1)[:, row]
    expected = (p * (1 - p) * (h @ move)) @ h / ids.numel()
    found = (gradient_at(move) - gradient_at(-move)) / 2
    assert (found - expected).norm() <= 1e-6 * expected.norm()
    assert found @ move > 0


@ON_BOTH
def test_law_14_gradients_alone_bring_dead_rows_together(engine: str) -> None:
    """Without decay or moments, where a step is the gradient: their mean distance from their centroid only falls."""
    seen = trained(engine=engine, optimizer="sgd", weight_decay=0.0, learning_rate=0.5, max_grad_norm=0.0, steps=20)
    dead = torch.stack(seen.matrices)[:, LIVE:].double()
    radius = (dead - dead.mean(1, keepdim=True)).norm(dim=2).mean(1)
    assert (radius.diff() < 0).all()
    assert radius[-1] < 0.99 * radius[0]


@ON_BOTH
def test_law_16_the_dead_rows_drift_against_the_mean_hidden_state_from_the_first_step_on(engine: str) -> None:
    seen = trained(engine=engine, steps=30)
    for step, move in enumerate(seen.moves, 1):
        mean, drift = seen.predicting(step).double().mean(0), move[LIVE:].mean(0)
        assert cosine_similarity(drift, -mean, dim=0) > 0, f"step {step}"
