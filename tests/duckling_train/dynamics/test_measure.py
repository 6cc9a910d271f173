"""A whole record measured: each column against its restatement step by step; no number depends on threads or blocks."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_train.dynamics import columns
from duckling_train.dynamics.detectability import detectability
from duckling_train.dynamics.indicators import indicators
from duckling_train.dynamics.measure import Measures, Training, measure
from tests.support.array_record import ArrayRecord, ArrayTensor
from tests.support.hard_rows import coordinate, moving
from tests.support.restated_measures import length, restated

STEPS, ROWS, WIDTH, LIVE = 11, 9, 6, 5
RATES = [1e-3 * (1 - step / 40) for step in range(40)]
TRAINING = Training(RATES, weight_decay=0.1, beta2=0.99, vocabulary=ROWS)
ISOTROPY = ("isotropy", "isotropy_centred")


def record(steps: int = STEPS, *, every: int = 1, rows: Any = None, block: int = 4, seed: int = 0) -> ArrayRecord:
    """A record of all tensors; the row after the first dead one never moves."""
    rng = np.random.default_rng(seed)
    ids = np.arange(ROWS) if rows is None else np.array(rows)
    w = np.roll(moving(steps, ROWS, WIDTH, seed), LIVE, axis=1)[:, ids]
    shape = (steps, len(ids), WIDTH)
    others = {
        name: rng.normal(0, 1, shape) ** (2 if name == "exp_avg_sq" else 1)
        for name in ("grad_in", "grad_out", "exp_avg_sq")
    }
    others["grad_in"][:, ids >= LIVE] = 0
    others |= {"h_mean": rng.normal(0, 1, (steps, WIDTH)), "p_dead": rng.random((steps, len(ids)))}
    kept = {name: ArrayTensor(each.astype(np.float32)) for name, each in others.items()}
    return ArrayRecord(every * np.arange(steps), ids, ids >= LIVE, ArrayTensor(w, block), kept)


def bits(found: Measures) -> dict[str, bytes]:
    steps = found.steps | {
        "eigenvalues": np.stack([np.full(WIDTH, -1.0) if e is None else e for e in found.steps["eigenvalues"]])
    }
    return {
        name: np.asarray(each).tobytes()
        for name, each in [*steps.items(), *((f"row {n}", e) for n, e in found.rows.items())]
    }


def identical(of: ArrayRecord) -> ArrayRecord:
    """The same record, two dead rows equal, a third a lattice step from them, a fourth equal in bf16 alone."""
    w = of.W.values
    w[:, 6] = w[:, 5]
    w[:, 7] = w[:, 5] * np.float32(1 + 2**-8)
    w[:, 8] = w[:, 5] * np.float32(1 + 2**-22)
    return of


INDICATORS = {
    column.name for column in columns.STEP_COLUMNS
    if column.name.startswith(("auroc_", "precision_", "cosine_", "distance_"))
}  # fmt: skip
CASES = {
    "all rows": record(),
    "every third step": record(every=3),
    "steps left out": replace(record(), steps=np.array([0, 1, 2, 5, 6, 9, 10, 11, 12, 20, 21])),
    "one dead row": record(rows=[0, 1, 5]),
    "dead rows": record(rows=[5, 6, 7, 8]),
    "live rows": record(rows=[0, 1, 2, 3, 4]),
    "equal rows": identical(record()),
    "scattered rows": record(rows=[0, 2, 5, 8]),
    "one step": record(1),
    "two steps": record(2),
}


@pytest.mark.parametrize("case", CASES)
def test_every_column_of_a_step_is_its_restatement(case: str) -> None:
    of, whole = CASES[case], len(CASES[case].rows) == ROWS
    found = measure(of, TRAINING, threads=1)
    assert [*found.steps] == [column.name for column in columns.STEP_COLUMNS]
    assert [*found.rows] == [column.name for column in columns.ROW_COLUMNS]
    expected = restated(of, TRAINING, whole=whole)
    known = {name for values in expected for name in values}
    paths = {"path_length", "path_efficiency", "surviving", "surviving_poisson", "eigenvalues"}
    axes = {"tracer_perpendicular_mean", "tracer_perpendicular_spread"}
    for name in {*found.steps} - paths - axes - INDICATORS:
        values = [values.get(name, math.nan) for values in expected]
        assert np.allclose(found.steps[name], values, rtol=1e-6, atol=1e-12, equal_nan=True), name
    if case == "all rows":
        assert {*found.steps} - known == paths | axes | INDICATORS


def test_indicators_and_their_detectability_are_columns_at_equally_spaced_steps() -> None:
    """Those of the functions, which have tests of their own; null where the reference ids are all the dead rows."""
    rng = np.random.default_rng(8)
    w = rng.normal(0, 0.1, (45, 40, 6)).astype(np.float32)
    dead = np.arange(40) >= 28
    of = ArrayRecord(np.arange(45), np.arange(40), dead, ArrayTensor(w), {})
    found = measure(of, Training(vocabulary=40), threads=2).steps
    chosen = np.flatnonzero(~np.isnan(found["auroc_norm"]))
    assert (len(chosen), chosen[0], chosen[-1]) == (30, 0, 44)
    for t in chosen:
        for each in detectability(w[t], np.flatnonzero(dead)):
            name = "norm" if each.indicator == "norm" else f"{each.indicator}_{each.references}"
            assert (found[f"auroc_{name}"][t], found[f"precision_{name}"][t]) == (each.auroc, each.precision)
        cosine = indicators(w[t], np.arange(28, 36)).cosine
        assert found["cosine_dead"][t] == pytest.approx(cosine[36:].mean(), rel=1e-12)
        assert found["cosine_live"][t] == pytest.approx(cosine[:28].mean(), rel=1e-12)
    assert np.isnan(found["auroc_cosine_64"]).all()
    part = measure(of, Training(vocabulary=41)).steps
    assert all(np.isnan(part[name]).all() for name in INDICATORS)


@pytest.mark.parametrize("case", CASES)
def test_no_number_depends_on_threads_or_blocks(case: str) -> None:
    of = CASES[case]
    results = []
    for threads, block in ((1, 4), (2, 4), (2, 1), (3, 2), (1, 100)):
        again = ArrayRecord(of.steps, of.rows, of.dead, ArrayTensor(of.W.values, block), of.others)
        results.append(bits(measure(again, TRAINING, threads=threads)))
    assert all(each == results[0] for each in results)


def test_what_a_row_did_is_counted_step_by_step() -> None:
    of = record(30, every=2, rows=[0, 1, 5, 6, 8])
    found = measure(of, Training(), threads=2).rows
    w = of.W.values.astype(float)
    for row in range(5):
        hops = [
            t
            for t in range(1, 30)
            if any(
                coordinate(a) != coordinate(b) for a, b in zip(*of.W.values[t - 1 : t + 1, row].tolist(), strict=True)
            )
        ]
        onset = 2 * hops[-1] if hops else 0
        assert (found["onset"][row], found["silent_window"][row], found["hops"][row]) == (onset, 58 - onset, len(hops))
        rate = len(hops) / onset if hops else 0
        assert math.isclose(found["hop_rate"][row], rate)
        assert math.isclose(found["silence_probability"][row], math.exp(-rate * (58 - onset)))
        assert found["censored"][row] == (math.exp(-rate * (58 - onset)) > 0.01)
        assert max(found[name][row] for name in ("last_early", "last_midlife", "last_late")) == onset
        assert math.isclose(found["displacement"][row], length(w[-1, row] - w[0, row]), abs_tol=1e-15)
        assert math.isclose(
            found["path_length"][row], math.fsum(length(m) for m in np.diff(w[:, row], axis=0)), abs_tol=1e-15
        )
        assert math.isclose(found["norm_first"][row], length(w[0, row]))
        assert math.isclose(found["norm_last"][row], length(w[-1, row]))
    assert found["id"].tolist() == [0, 1, 5, 6, 8]
    assert found["dead"].tolist() == [False, False, True, True, True]
    assert found["onset"].tolist()[2:4] == [30, 0]  # one stops halfway, one never moves
    assert np.isnan(found["band"][2:]).all()


def test_rows_know_how_many_are_as_they_are() -> None:
    found = measure(CASES["equal rows"], TRAINING).rows
    assert found["identical_rows"].tolist()[LIVE:] == [2, 2, 1, 1]
    assert found["identical_rows_bf16"].tolist()[LIVE + 2 :] == [1, 3]
    assert found["adjacent_rows"].tolist()[LIVE:] == [1, 1, 3, 1]
    assert found["component_rows"].tolist()[LIVE:] == [4, 4, 4, 4]
    assert found["component_rows"].tolist()[:LIVE] == [1] * LIVE


def test_eigenvalues_are_at_equally_spaced_steps_first_and_last_among_them() -> None:
    found = measure(record(), TRAINING, costly=3).steps
    chosen = [step for step, values in enumerate(found["eigenvalues"]) if values is not None]
    assert chosen == [0, 5, 10]
    for name in ("participation_ratio", *ISOTROPY):
        assert np.flatnonzero(~np.isnan(found[name])).tolist() == chosen
    w = record().W.values[5, LIVE:].astype(float)
    assert math.isclose(found["eigenvalues"][5].sum(), np.mean(np.sum((w - w.mean(0)) ** 2, axis=1)), rel_tol=1e-12)


def test_the_survival_curve_is_in_the_table_and_ends_as_the_summary_says() -> None:
    found = measure(record(40), Training())
    curve = found.steps["surviving"]
    assert curve[0] == 1 or found.rows["onset"][LIVE:].min() == 0
    assert (np.diff(curve) <= 0).all()
    assert (np.diff(found.steps["surviving_poisson"]) <= 0).all()
    freeze = found.summary["freeze"]
    assert freeze["surviving"] == curve[-1]
    assert freeze["censored"] == found.rows["censored"][LIVE:].sum()
    assert found.summary["last"]["centroid_norm"] == found.steps["centroid_norm"][-1]


def test_what_is_not_known_is_null() -> None:
    of = CASES["dead rows"]
    found = measure(ArrayRecord(of.steps, of.rows, of.dead, of.W)).steps
    for name in (
        *("learning_rate", "displacement_per_lr", "adam_part_mean", "isotropy", "mean_shift", "memory_dead"),
        *("dead_mass", "drift_against_h", "tracer_mean", "live_dead_angle", "grad_out_norm_dead", "zero_sum_ratio"),
    ):
        assert np.isnan(found[name]).all(), name
    for name in ("centroid_norm", "velocity", "coherence", "frozen_fraction", "memory_dead_centroid"):
        assert not np.isnan(found[name][1:]).any(), name


@pytest.mark.parametrize("value", [np.inf, np.nan])
@pytest.mark.parametrize("name", ["W", "grad_in", "grad_out", "exp_avg_sq", "h_mean", "p_dead"])
def test_a_record_with_what_is_not_finite_is_refused(name: str, value: float) -> None:
    of = record()
    of[name].values[6].flat[3] = value
    with pytest.raises(InputError, match=f"^{name} at steps 4 to 7: a number that is not finite"):
        measure(of, TRAINING)


def test_a_record_of_nothing_and_missing_learning_rates_are_refused() -> None:
    of = record()
    empty = ArrayRecord(of.steps, of.rows[:0], of.dead[:0], ArrayTensor(of.W.values[:, :0]))
    with pytest.raises(InputError, match="of 0 rows; expected at least one"):
        measure(empty)
    with pytest.raises(InputError, match="learning rates of 9 steps; expected those of all 10"):
        measure(of, Training(RATES[:9]))
    with pytest.raises(InputError, match="eigenvalues at 0 steps"):
        measure(of, costly=0)
