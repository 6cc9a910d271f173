"""The columns of one recorded step (`columns.py` says what each is), from W at that step and its displacement."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics import behaviour, bulk, displacement, forces, frequency, mean_shift, shape, zero_sum
from duckling_train.dynamics.arrays import Floats, double, mean, norm
from duckling_train.dynamics.black_holes import adjacent_groups, black_holes
from duckling_train.dynamics.coherence import coherence
from duckling_train.dynamics.components import lattice_components
from duckling_train.dynamics.detectability import NORM, OF_MEANS, detectability
from duckling_train.dynamics.indicators import NAMES, basis, indicators
from duckling_train.dynamics.initialisation import memory
from duckling_train.dynamics.lattice import bf16_bits
from duckling_train.dynamics.snapshot import Move, Setting, Snapshot

Values = dict[str, float]
"""The columns that are known, by name."""


def of_rows(setting: Setting, now: Snapshot) -> Values:
    """Return the columns that dead rows alone have, and those of live rows beside them; none without dead rows."""
    if not len(now.dead):
        return {}
    radii = bulk.radii(now.dead, now.centroid)
    found = {"centroid_norm": float(norm(now.centroid)), "radius_mean": mean(radii), "radius_max": float(radii.max())}
    start = setting.start
    found["memory_dead_centroid"] = mean(memory(now.dead, now.centroid, start.dead, start.centroid))
    if setting.axes is not None:
        along = shape.project(now.dead, setting.axes)
        found["tracer_mean"], found["tracer_perpendicular_mean"] = along.mean(axis=0).tolist()
        found["tracer_spread"], found["tracer_perpendicular_spread"] = along.std(axis=0).tolist()
    if len(now.live):
        found["live_centroid_norm"] = float(norm(now.live_centroid))
        found["live_dead_distance"] = float(norm(now.live_centroid - now.centroid))
        found["live_dead_angle"] = float(bulk.angles(now.live_centroid, now.centroid))
    return found


def of_groups(now: npt.NDArray[np.float32]) -> Values:
    """Return the columns of black holes and lattice components of these rows, float32[rows, width]."""
    if not len(now):
        return {}
    same = black_holes(now, bf16_bits)
    joined = lattice_components(now, same)
    return {
        "identical_fraction": sum(map(len, black_holes(now))) / len(now),
        "identical_fraction_bf16": sum(map(len, same)) / len(now),
        "adjacent_black_holes": float(len(adjacent_groups(now, same))),
        "lattice_components": float(joined.number), "lattice_largest_component": float(joined.largest),
    }  # fmt: skip


def of_indicators(setting: Setting, now: npt.NDArray[np.float32]) -> Values:
    """Return the columns of the indicators and how well they find the dead rows; none where not all are recorded."""
    ids = np.flatnonzero(setting.dead)
    if not setting.whole or not 0 < len(ids) < len(now):
        return {}
    given, found = basis(now), dict[str, float]()
    for each in detectability(now, ids, given):
        name = each.indicator if each.indicator == NORM else f"{each.indicator}_{each.references}"
        found |= {f"auroc_{name}": each.auroc, f"precision_{name}": each.precision}
    if len(ids) > OF_MEANS:
        values = indicators(now, ids[:OF_MEANS], given)
        judged = setting.dead.copy()
        judged[ids[:OF_MEANS]] = False
        for name in NAMES:
            of_all = getattr(values, name)
            found |= {f"{name}_dead": mean(of_all[judged]), f"{name}_live": mean(of_all[~setting.dead])}
    return found


def of_all(setting: Setting, now: Snapshot, *, costly: bool) -> Values:
    """Return the columns that need all rows of W; none where some are not recorded."""
    if not setting.whole:
        return {}
    shift = mean_shift.mean_shift(now.rows)
    found = {"mean_shift": shift, "mean_shift_relative": mean_shift.relative_mean_shift(now.rows)}
    kept = memory(now.rows, now.mean, setting.start.rows, setting.start.mean)
    found["memory_dead"] = mean(kept[setting.dead_rows])
    found |= _bands(setting, "memory", kept)
    if costly:
        found["isotropy"] = mean_shift.isotropy(now.rows)
        found["isotropy_centred"] = mean_shift.isotropy(now.rows, centred=True)
    return found


def of_move(setting: Setting, move: Move, last: Move | None, number: int) -> Values:
    """Return the columns of a displacement; `last` is the one before it, `number` the recorded step after it."""
    found = {"live_displacement_mean": mean(move.lengths[setting.live_rows])}
    if setting.whole:
        found["zero_sum_ratio"] = zero_sum.broken_zero_sum(move.rows)
    if not len(move.dead):
        return found
    shares = displacement.fractions(move.regimes[setting.dead_rows])
    found |= {f"{name}_fraction": float(share) for name, share in zip(displacement.REGIMES, shares, strict=True)}
    lattice, lengths = move.norms.of(setting.dead_rows), move.lengths[setting.dead_rows]
    found["unmoved_fraction"] = float(np.mean(lengths == 0))
    found["lattice_l1_mean"], found["lattice_l2_mean"] = float(lattice.l1.mean()), float(lattice.l2.mean())
    found["lattice_linf_max"] = float(lattice.linf.max())
    found["displacement_mean"], found["coherence"] = mean(lengths), coherence(move.dead)
    if last is not None:
        found["inertia"] = mean(behaviour.inertia(move.deviation, last.deviation))
    step, rate = int(setting.steps[number]), float(setting.rates[setting.steps[number]])
    if step - setting.steps[number - 1] == 1 and not np.isnan(rate):
        parts = forces.parts(move.before.dead, move.dead, rate, setting.weight_decay)
        found["adam_part_mean"], found["decay_part_mean"] = mean(norm(parts.adam)), mean(norm(parts.decay))
    return found


def of_others(setting: Setting, others: dict[str, npt.NDArray[Any]], move: Move, number: int) -> Values:
    """Return the columns of what was recorded besides W: gradients, second moments, hidden states, probabilities."""
    found: Values = {}
    given = {name: double(name, values) for name, values in others.items()}
    groups = (("dead", setting.dead_rows), ("live", setting.live_rows))
    if "h_mean" in given:
        found["h_mean_norm"] = float(norm(given["h_mean"]))
        if len(move.dead):
            move_of_centroid = move.after.centroid - move.before.centroid
            found["drift_against_h"] = float(forces.drift_against_hidden(move_of_centroid, given["h_mean"]))
    if "p_dead" in given and setting.dead.any():
        found["dead_mass"] = forces.dead_mass(given["p_dead"], setting.dead)
    for side in ("grad_in", "grad_out"):
        if side in given:
            found |= {f"{side}_norm_{name}": mean(norm(given[side])[rows]) for name, rows in groups}
    if "grad_in" in given and "grad_out" in given:
        shares = frequency.output_shares(given["grad_in"], given["grad_out"])
        found["output_share_dead"] = mean(shares[setting.dead_rows])
        found |= _bands(setting, "output_share", shares)
    if "exp_avg_sq" in given:
        roots = zero_sum.root_second_moments(given["exp_avg_sq"], setting.beta2, int(setting.steps[number]))
        found |= {f"root_second_moment_{name}": mean(roots[rows]) for name, rows in groups}
    return found


def _bands(setting: Setting, name: str, values: Floats) -> Values:
    means = frequency.band_means(values, setting.band)
    return {f"{name}_band_{number}": float(each) for number, each in enumerate(means, 1)}
