"""The two tables of a record: its totals as columns, those that need more than a step at once among them."""

from __future__ import annotations

import itertools
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics import bulk, shape, survival
from duckling_train.dynamics.arrays import Floats, Integers, norm, ratio
from duckling_train.dynamics.black_holes import black_holes
from duckling_train.dynamics.columns import ROW_COLUMNS, STEP_COLUMNS
from duckling_train.dynamics.components import lattice_components
from duckling_train.dynamics.initialisation import memory
from duckling_train.dynamics.lattice import bf16_bits
from duckling_train.dynamics.neighbours import near_pairs
from duckling_train.dynamics.snapshot import Setting
from duckling_train.dynamics.totals import Fates, Totals

Table = dict[str, Any]
"""Columns by name, in order: arrays of one length; eigenvalues are a list of arrays and None."""


def step_table(setting: Setting, totals: Totals, fates: Fates) -> Table:
    """Return a value a recorded step for each of STEP_COLUMNS."""
    steps = setting.steps
    columns: Table = {
        column.name: values for column, values in zip(STEP_COLUMNS, np.concatenate(totals.values).T, strict=True)
    }
    columns |= {"step": steps, "learning_rate": setting.rates[steps], "eigenvalues": totals.eigenvalues}
    if not setting.dead.any():
        return columns
    found = [np.nan if each is None else shape.participation_ratio(each) for each in totals.eigenvalues]
    columns["participation_ratio"] = np.array(found)
    centroids = np.stack(totals.centroids)
    columns["velocity"] = bulk.velocities(centroids)
    columns["path_length"] = bulk.path_lengths(centroids)
    columns["path_efficiency"] = bulk.path_efficiencies(centroids)
    columns["curvature"] = bulk.curvatures(centroids)
    columns["centroid_displacement"] = norm(centroids - centroids[:1])
    since = np.array([np.nan, *(setting.rates[a + 1 : b + 1].sum() for a, b in itertools.pairwise(steps))])
    columns["displacement_per_lr"] = ratio(columns["displacement_mean"], since)
    columns["velocity_per_lr"] = ratio(columns["velocity"], since)
    if len(steps) > 1:
        columns["surviving"] = _curve(setting, fates).at(steps)
        columns["surviving_poisson"] = survival.poisson_null(fates.rate[setting.dead_rows], int(steps[-1]), steps)
    return columns


def row_table(setting: Setting, totals: Totals, fates: Fates, ids: Integers, last: Floats) -> Table:
    """Return a value a recorded row for each of ROW_COLUMNS; `last` is W at the last recorded step."""
    start, dead = setting.start, setting.dead
    inertia = np.full(len(dead), np.nan)
    inertia[dead] = totals.inertia()
    early, midlife, late = totals.last_steps
    columns = {
        "id": ids, "dead": dead, "band": np.where(dead, np.nan, setting.band + 1.0), "onset": fates.onset,
        "censored": fates.censored, "silent_window": fates.silent, "hops": totals.hops, "hop_rate": fates.rate,
        "silence_probability": survival.silence_probabilities(fates.silent, fates.rate), "last_early": early,
        "last_midlife": midlife, "last_late": late, "displacement": norm(last - start.rows),
        "path_length": totals.path_lengths, "norm_first": norm(start.rows), "norm_last": norm(last),
        "memory": _memory(setting, last), "inertia": inertia, **_groups(last.astype(np.float32)),
    }  # fmt: skip
    return {column.name: columns[column.name] for column in ROW_COLUMNS}


def summary(setting: Setting, steps: Table, rows: Table, fates: Fates) -> dict[str, Any]:
    """Return the main figures: of the last recorded step, and of the dead rows' freezing. None where not defined."""
    dead, last = setting.dead_rows, ("centroid_norm", "radius_mean", "radius_max", "velocity", "velocity_per_lr",
        "coherence", "frozen_fraction", "late_fraction", "midlife_fraction", "early_fraction", "displacement_per_lr",
        "path_efficiency", "inertia", "mean_shift", "isotropy")  # fmt: skip
    found: dict[str, Any] = {
        "steps": int(setting.steps[-1]), "recorded_steps": len(setting.steps), "rows": len(setting.dead),
        "dead_rows": int(np.count_nonzero(setting.dead)), "last": {name: number(steps[name][-1]) for name in last},
        "liftoff": bulk.liftoff(setting.steps, steps["centroid_norm"], steps["radius_max"]), "freeze": None,
    }  # fmt: skip
    if found["dead_rows"] and len(setting.steps) > 1:
        found["freeze"] = {
            "censored": int(np.count_nonzero(fates.censored[dead])), "median_onset": _curve(setting, fates).median,
            "surviving": number(steps["surviving"][-1]),
            "silent_window_median": float(np.median(fates.silent[dead])),
            "hop_rate_median": float(np.median(fates.rate[dead])),
            "displacement_mean": float(rows["displacement"][dead].mean()),
        }  # fmt: skip
    return found


def number(value: float) -> float | None:
    """Return a number for JSON: None for NaN."""
    return None if np.isnan(value) else float(value)


def _curve(setting: Setting, fates: Fates) -> survival.Survival:
    dead = setting.dead_rows
    return survival.kaplan_meier(fates.onset[dead], fates.censored[dead], int(setting.steps[-1]))


def _groups(last: npt.NDArray[np.float32]) -> Table:
    """Return how many rows each row is equal to, in float32 and in bf16, adjacent to, and joined with."""
    groups = {"identical_rows": black_holes(last), "identical_rows_bf16": black_holes(last, bf16_bits)}
    found: Table = {}
    for name, members in groups.items():
        found[name] = np.ones(len(last), np.int64)
        for group in members:
            found[name][group] = len(group)
    joined = lattice_components(last, groups["identical_rows_bf16"])
    beside = np.zeros(len(last), np.int64)
    for first, second, apart in near_pairs(last, np.arange(len(last))):
        beside += np.bincount(np.concatenate([first[apart == 1], second[apart == 1]]), minlength=len(last))
    return found | {"adjacent_rows": beside, "component_rows": joined.sizes[joined.labels]}


def _memory(setting: Setting, last: Floats) -> Floats:
    """Return the cosine of each row's offset with its first: from C for dead rows, from μ for live ones."""
    start, found = setting.start, np.full(len(last), np.nan)
    dead, live = setting.dead_rows, setting.live_rows
    found[dead] = memory(last[dead], bulk.centroid(last[dead]), start.dead, start.centroid)
    if setting.whole:
        found[live] = memory(last[live], bulk.centroid(last), start.live, start.mean)
    return found
