"""The laws of dead rows beside one another, and of runs beside one another, on both engines."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from duckling_train.engines import FAST, REFERENCE
from tests.support.seen import LIVE, ON_BOTH, SMALL, VOCABULARY, trained, trained_at_once

EQUAL = [LIVE, LIVE + 1, LIVE + 17, VOCABULARY - 1]


def make_equal(model: Any) -> None:
    model.transformer.wte.weight[EQUAL] = model.transformer.wte.weight[LIVE].clone()


@ON_BOTH
@pytest.mark.parametrize("precision", ["fp32", "bf16-mixed", "bf16-pure", "bf16-weights"])
def test_law_11_equal_dead_rows_stay_equal(engine: str, precision: str) -> None:
    """To the last bit, wherever they are in the matrix."""
    for w in trained(engine=engine, precision=precision, change=make_equal).matrices:
        assert all(torch.equal(w[row], w[LIVE]) for row in EQUAL)
        assert not torch.equal(w[LIVE + 2], w[LIVE])


@ON_BOTH
def test_law_11_stochastic_rounding_parts_equal_dead_rows(engine: str) -> None:
    """It draws for each weight by itself: the one precision that law 11 is not of."""
    w = trained(engine=engine, precision="bf16-stochastic", change=make_equal, steps=3).matrices[-1]
    assert not any(torch.equal(w[row], w[LIVE]) for row in EQUAL[1:])


@ON_BOTH
def test_law_12_dead_rows_in_another_order_go_the_same_ways(engine: str) -> None:
    order = torch.cat([torch.arange(LIVE), LIVE + torch.randperm(VOCABULARY - LIVE)])

    def permute(model: Any) -> None:
        model.transformer.wte.weight.copy_(model.transformer.wte.weight[order].clone())

    plain, permuted = trained(engine=engine), trained(engine=engine, change=permute)
    np.testing.assert_allclose(permuted.losses, plain.losses, rtol=1e-6)
    assert (permuted.matrices[-1] - plain.matrices[-1]).abs().max() > 1e-2
    torch.testing.assert_close(permuted.matrices[-1], plain.matrices[-1][order], rtol=0, atol=1e-5)


@pytest.mark.parametrize(
    ("engine", "precision", "of_a_loss", "of_a_weight"),
    [(REFERENCE, "fp32", 0.0, 0.0), (FAST, "fp32", 1e-6, 1e-5), (FAST, "bf16-mixed", 1e-3, 1e-3)],
)
def test_law_19_seeds_trained_by_one_call_are_the_runs_that_each_is_alone(
    engine: str, precision: str, of_a_loss: float, of_a_weight: float
) -> None:
    """At once within what another order of sums makes; one after the other, as the reference trains them, bitwise."""
    configs = [dataclasses.replace(SMALL, engine=engine, precision=precision, seed=seed, steps=6) for seed in (1, 2)]
    alone, together = [trained(config) for config in configs], trained_at_once(configs)
    assert not torch.equal(alone[0].matrices[0], alone[1].matrices[0])
    for one, other in zip(together, alone, strict=True):
        assert torch.equal(one.matrices[0], other.matrices[0])
        np.testing.assert_allclose(one.losses, other.losses, rtol=of_a_loss)
        torch.testing.assert_close(one.matrices[-1], other.matrices[-1], rtol=0, atol=of_a_weight)
