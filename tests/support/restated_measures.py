"""The columns of `duckling-train measure`, restated slowly: row by row in plain floats, on the lattice in integers."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np

from duckling_train.dynamics import columns
from duckling_train.dynamics.measure import Training
from tests.support.array_record import ArrayRecord
from tests.support.hard_rows import bits_of, coordinate


def length(vector: Any) -> float:
    return math.sqrt(math.fsum(x * x for x in np.asarray(vector, float).tolist()))


def cos(a: Any, b: Any) -> float:
    below = length(a) * length(b)
    return math.fsum(x * y for x, y in zip(a.tolist(), b.tolist(), strict=True)) / below if below else math.nan


def average(values: Any) -> float:
    known = [float(value) for value in values if not math.isnan(value)]
    return math.fsum(known) / len(known) if known else math.nan


def restated(of: ArrayRecord, training: Training, *, whole: bool) -> list[dict[str, float]]:
    """Each column of each step that follows from few steps, row by row."""
    w, dead = of.W.values.astype(float), np.flatnonzero(of.dead)
    live = np.flatnonzero(~of.dead)
    table = []
    for t, step in enumerate(of.steps.tolist()):
        rows: list[dict[str, float]] = [{}]
        now = rows[0]
        now["step"], now["learning_rate"] = step, training.learning_rates[step - 1] if step else math.nan
        if len(dead):
            centre, start = w[t, dead].mean(0), w[0, dead].mean(0)
            away = [length(w[t, i] - centre) for i in dead]
            now |= {"centroid_norm": length(centre), "centroid_displacement": length(centre - start)}
            now |= {"radius_mean": average(away), "radius_max": max(away)}
            now["memory_dead_centroid"] = average(cos(w[t, i] - centre, w[0, i] - start) for i in dead)
            spread = sum(np.outer(w[t, i] - centre, w[t, i] - centre) for i in dead) / len(dead)
            values = np.linalg.eigvalsh(spread)
            now["participation_ratio"] = values.sum() ** 2 / (values**2).sum() if len(dead) > 1 else math.nan
            if len(w) > 1:
                r = of["h_mean"].values[-1].astype(float)
                along = [math.fsum(w[t, i] * r) / length(r) for i in dead]
                now |= {"tracer_mean": average(along), "tracer_spread": float(np.std(along))}
            now |= groups(of.W.values[t, dead].tolist())
            if len(live):
                other = w[t, live].mean(0)
                now |= {"live_centroid_norm": length(other), "live_dead_distance": length(other - centre)}
                now["live_dead_angle"] = math.degrees(math.acos(cos(other, centre)))
        if whole:
            mu, first = w[t].mean(0), w[0].mean(0)
            now["mean_shift"] = length(mu)
            now["mean_shift_relative"] = length(mu) / average(length(row - mu) for row in w[t])
            kept = [cos(row - mu, old - first) for row, old in zip(w[t], w[0], strict=True)]
            now["memory_dead"] = average(kept[i] for i in dead)
            parts = np.array_split(live, columns.BANDS)
            now |= {f"memory_band_{n}": average(kept[i] for i in part) for n, part in enumerate(parts, 1)}
            now["isotropy"] = isotropy(w[t])
            now["isotropy_centred"] = isotropy(w[t] - mu)
        if t:
            now |= restated_move(of, training, t, dead.tolist(), live.tolist(), whole=whole)
        table.append(now)
    return table


def groups(rows: list[list[float]]) -> dict[str, float]:
    """Rows with equal bits, and rows joined where no lattice coordinate differs by more than 1: each pair compared."""
    plain = [np.array(row, np.float32).tobytes() for row in rows]
    narrow = [[bits_of(value) for value in row] for row in rows]
    places = [[coordinate(value) for value in row] for row in rows]
    part = list(range(len(rows)))
    firsts = [i for i in part if narrow.count(narrow[i]) > 1 and narrow.index(narrow[i]) == i]
    for i, j in itertools.combinations(part.copy(), 2):
        if max(abs(a - b) for a, b in zip(places[i], places[j], strict=True)) <= 1:
            part = [part[i] if each == part[j] else each for each in part]
    return {
        "identical_fraction": sum(plain.count(row) > 1 for row in plain) / len(rows),
        "identical_fraction_bf16": sum(narrow.count(row) > 1 for row in narrow) / len(rows),
        "adjacent_black_holes": sum(
            max(abs(a - b) for a, b in zip(places[i], places[j], strict=True)) == 1
            for i, j in itertools.combinations(firsts, 2)
        ),
        "lattice_components": len({*part}), "lattice_largest_component": max(map(part.count, part)),
    }  # fmt: skip


def isotropy(rows: Any) -> float:
    directions = np.linalg.eigh(sum(np.outer(row, row) for row in rows))[1].T
    z = [math.fsum(math.exp(sign * float(row @ c)) for row in rows) for c in directions for sign in (1, -1)]
    return min(z) / max(z)


def restated_move(
    of: ArrayRecord, training: Training, t: int, dead: list[int], live: list[int], *, whole: bool
) -> dict[str, float]:
    w, bare = of.W.values.astype(float), of.W.values
    move, root = w[t] - w[t - 1], math.sqrt(w.shape[2])
    hops = [[coordinate(b) - coordinate(a) for a, b in zip(old, new, strict=True)]
            for old, new in zip(bare[t - 1].tolist(), bare[t].tolist(), strict=True)]  # fmt: skip
    rates = math.fsum(training.learning_rates[of.steps[t - 1] : of.steps[t]])
    now = {"live_displacement_mean": average(length(move[i]) for i in live)}
    if whole:
        now["zero_sum_ratio"] = length(move.sum(0)) / math.fsum(length(row) for row in move)
    shares = [
        length(o) / (length(i) + length(o))
        for i, o in zip(of["grad_in"].values[t], of["grad_out"].values[t], strict=True)
    ]
    now["output_share_dead"] = average(shares[i] for i in dead)
    parts = np.array_split(live, columns.BANDS)
    now |= {f"output_share_band_{n}": average(shares[int(i)] for i in part) for n, part in enumerate(parts, 1)}
    for name, rows in (("dead", dead), ("live", live)):
        now |= {
            f"{side}_norm_{name}": average(length(of[side].values[t, i]) for i in rows)
            for side in ("grad_in", "grad_out")
        }
        v = of["exp_avg_sq"].values[t].astype(float) / (1 - training.beta2 ** int(of.steps[t]))
        now[f"root_second_moment_{name}"] = average(average(np.sqrt(v[i])) for i in rows)
    h = of["h_mean"].values[t].astype(float)
    now["h_mean_norm"] = length(h)
    if not dead:
        return now
    of_centre = w[t, dead].mean(0) - w[t - 1, dead].mean(0)
    l1, l2 = [sum(map(abs, row)) for row in hops], [length(row) for row in hops]
    linf = [max(map(abs, row)) for row in hops]
    kinds = ["early" if l2[i] > root else "midlife" if linf[i] > 1 else "late" if l1[i] else "frozen" for i in dead]
    now |= {f"{kind}_fraction": kinds.count(kind) / len(dead) for kind in ("frozen", "late", "midlife", "early")}
    now["unmoved_fraction"] = sum((bare[t, i] == bare[t - 1, i]).all() for i in dead) / len(dead)
    now |= {"lattice_l1_mean": average(l1[i] for i in dead), "lattice_l2_mean": average(l2[i] for i in dead)}
    now["lattice_linf_max"] = max(linf[i] for i in dead)
    now |= {"displacement_mean": average(length(move[i]) for i in dead), "velocity": length(of_centre)}
    now |= {"displacement_per_lr": now["displacement_mean"] / rates, "velocity_per_lr": now["velocity"] / rates}
    now["coherence"] = average(cos(move[i], move[j]) for i, j in itertools.permutations(dead, 2))
    now["drift_against_h"] = cos(of_centre, -h)
    now["dead_mass"] = math.fsum(of["p_dead"].values[t, dead].tolist())
    if t > 1:
        before = w[t - 1] - w[t - 2]
        means = move[dead].mean(0), before[dead].mean(0)
        now["inertia"] = average(cos(move[i] - means[0], before[i] - means[1]) for i in dead)
    if of.steps[t] - of.steps[t - 1] == 1:
        decay = [-training.learning_rates[of.steps[t] - 1] * training.weight_decay * w[t - 1, i] for i in dead]
        now["decay_part_mean"] = average(map(length, decay))
        now["adam_part_mean"] = average(length(move[i] - part) for i, part in zip(dead, decay, strict=True))
    if t + 1 < len(w):
        now["curvature"] = cos(of_centre, w[t + 1, dead].mean(0) - w[t, dead].mean(0))
    return now
