"""The curves of a report: which columns over the steps, what they are called, and how they are defined."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from duckling_train.dynamics.detectability import REFERENCES
from duckling_train.report.gather import Shown

POINTS = 2000
"""Points of a curve, at most."""
LARGEST = 8
"""How many eigenvalues have a curve."""
Points = tuple[npt.NDArray[np.int64], npt.NDArray[np.float64]]


@dataclass(frozen=True)
class Curves:
    """A plot of columns over the steps."""

    name: str
    section: str
    """The heading that it is under."""
    title: str
    unit: str
    """Of the vertical axis."""
    columns: dict[str, str]
    """The columns' labels by their names; only those that a run has are drawn."""
    caption: str
    logarithmic: bool = False
    stacked: bool = False


def _bands(name: str) -> dict[str, str]:
    return {f"{name}_band_{band}": f"live, band {band} of 4" for band in range(1, 5)}


INDICATORS = {"cosine": "1 − cos", "cosine_without_mean": "without the mean",
              "cosine_without_first_pc": "without the first component", "distance": "distance"}  # fmt: skip
NORMS = {"auroc_norm", "precision_norm"}
"""They follow from no reference ids, and are drawn beside the others."""


def _detected(kind: str, name: str, meaning: str) -> tuple[Curves, ...]:
    """Return the plots of how well the indicators find the dead rows, given 1 reference id or more."""
    return tuple(
        Curves(f"{kind}-{count}", "Detectability", f"{name}, given {count} dead id{'s' if count > 1 else ''}", name, {
            **{f"{kind}_{each}_{count}": label for each, label in INDICATORS.items()}, f"{kind}_norm": "norm"},
            meaning)
        for count in REFERENCES
    )  # fmt: skip


def _sides(*names: str) -> dict[str, str]:
    return {f"{name}_{side}": f"{INDICATORS[name]}, {side}" for name in names for side in ("dead", "live")}


CURVES = (
    Curves("loss", "Loss", "Loss", "nats per token", {"loss": "training", "validation": "validation"},
           "The logged training loss, each the mean since the log before, and, where it was evaluated, the loss on the "
           "validation rows."),
    Curves("centroid", "The dead rows as one body", "Centroid", "norm", {
        "centroid_norm": "‖C‖", "centroid_displacement": "‖C − C₀‖", "live_centroid_norm": "‖mean of the live rows‖",
        "live_dead_distance": "distance live to dead"},
        "C is the mean of the dead rows, C₀ its start. Dead rows move together when ‖C − C₀‖ grows and the radius "
        "below does not."),
    Curves("radius", "The dead rows as one body", "Radius", "‖W_i − C‖", {
        "radius_mean": "mean", "radius_max": "largest"},
        "The distances of the dead rows from their centroid. Where ‖C‖ exceeds the largest, the origin is outside the "
        "ball around C that holds them all (liftoff)."),
    Curves("velocity", "The dead rows as one body", "Velocity", "‖ΔC‖", {
        "velocity": "‖ΔC‖", "velocity_per_lr": "‖ΔC‖ / Σ learning rate"},
        "How far the centroid moves in a step; divided by the learning rate, a linear schedule's fall is taken out.",
        logarithmic=True),
    Curves("path", "The dead rows as one body", "Path", "ratio", {
        "path_efficiency": "path efficiency", "curvature": "cos(ΔC, next ΔC)"},
        "Path efficiency is ‖C − C₀‖ / Σ‖ΔC‖ so far: 1 for a straight line. The cosine between two displacements in "
        "a row is 1 where the centroid keeps its direction."),
    Curves("regimes", "Regimes of motion", "Share of the rows in each regime", "share of the dead rows", {
        "frozen_fraction": "frozen", "late_fraction": "late", "midlife_fraction": "midlife",
        "early_fraction": "early"},
        "The share of the dead rows in each regime, by their displacement in steps of the bf16 lattice: frozen L1 = 0; "
        "late L∞ ≤ 1; midlife L∞ > 1 and L2 ≤ √D; early L2 > √D. They sum to 1.", stacked=True),
    Curves("coherence", "Coherence", "Coherence and inertia", "cosine", {
        "coherence": "coherence", "inertia": "inertia"},
        "Coherence is the mean cosine between the displacements of two dead rows, over all pairs that moved: 1 is one "
        "direction for all. Inertia is the mean cosine of a row's deviation from the mean displacement with that of "
        "the step before."),
    Curves("survival", "Survival of motion", "Rows not yet frozen", "share of the dead rows", {
        "surviving": "observed (Kaplan–Meier)", "surviving_poisson": "null: Poisson hops at each row's rate"},
        "The share of dead rows whose last move is later. A silence that a row which hops at random at its rate has "
        "with probability above 0.01 is censored, not counted as a freeze. Where the observed curve does not fall "
        "below the null, rows are not seen to freeze."),
    Curves("spectrum", "Spectrum", "Eigenvalues", "variance", {
        f"eigenvalue_{number}": f"λ{number}" for number in range(1, LARGEST + 1)},
        f"The {LARGEST} largest eigenvalues of the dead rows' covariance around their centroid.", logarithmic=True),
    Curves("participation", "Spectrum", "Participation ratio", "directions", {
        "participation_ratio": "(Σλ)² / Σλ²"},
        "In how many directions the dead rows spread: 1 for a line, the width of W where all directions are alike."),
    Curves("start", "Distance from the start", "Mean distance from the start", "mean ‖W_i,t − W_i,0‖", {
        "displacement_dead": "dead", "displacement_live": "live"},
        "How far the dead and the live rows are from where they started, on average."),
    Curves("identical", "Black holes", "Identical rows", "share of the dead rows", {
        "identical_fraction": "equal in every bit", "identical_fraction_bf16": "equal in bf16"},
        "Dead rows that have the same weights as another: from then on their gradients are the same, too."),
    Curves("components", "Black holes", "Lattice components", "number", {
        "lattice_components": "components", "lattice_largest_component": "rows in the largest",
        "adjacent_black_holes": "adjacent black holes"},
        "Groups of dead rows joined where the largest lattice distance of their weights is at most 1; and pairs of "
        "groups of identical rows with a distance of 1."),
    Curves("parts", "Forces", "Adam's part and decay's part", "mean norm", {
        "adam_part_mean": "Adam", "decay_part_mean": "weight decay"},
        "A dead row's displacement is −η·λ·W, weight decay's part, and the rest, Adam's. Their mean norms.",
        logarithmic=True),
    Curves("moment", "Forces", "Root second moment", "mean √v̂", {
        "root_second_moment_dead": "dead", "root_second_moment_live": "live"},
        "Adam divides by √v̂: where it is small, a small gradient makes as large a step as a large one.",
        logarithmic=True),
    Curves("gradients", "Forces", "Gradients", "mean norm", {
        "grad_out_norm_dead": "softmax, dead", "grad_out_norm_live": "softmax, live",
        "grad_in_norm_live": "input, live"},
        "The gradient of a row through the softmax and through the input embedding; the latter is 0 for dead rows.",
        logarithmic=True),
    Curves("mass", "Forces", "Dead mass", "probability", {"dead_mass": "Σ p_i, dead"},
           "The mean probability that the model gives to all dead rows together. It falls as they are pushed away."),
    Curves("against", "Forces", "Direction", "cosine or ratio", {
        "drift_against_h": "cos(ΔC, −h̄)", "zero_sum_ratio": "‖ΣΔ_i‖ / Σ‖Δ_i‖"},
        "h̄ is the mean final hidden state: the gradient of a dead row points along it, so rows move against it. The "
        "output gradients of all rows sum to 0; the second ratio shows how far Adam's steps do not."),
    Curves("h", "Forces", "Mean hidden state", "‖h̄‖", {"h_mean_norm": "‖h̄‖"},
           "The norm of the mean final hidden state over the step's predicting positions."),
    Curves("isotropy", "Isotropy and mean shift", "Isotropy", "min Z / max Z", {
        "isotropy": "of W", "isotropy_centred": "of W − μ"},
        "Z(c) = Σ exp(c·W_i) over c = ± the eigenvectors of WᵀW: 1 where all directions are alike."),
    Curves("shift", "Isotropy and mean shift", "Mean shift", "norm or ratio", {
        "mean_shift": "‖μ‖", "mean_shift_relative": "‖μ‖ / mean ‖W_i − μ‖"},
        "μ is the mean of all rows of W, live and dead."),
    Curves("memory", "Memory of the initialisation", "Memory", "cosine", {
        "memory_dead_centroid": "dead, around C", "memory_dead": "dead", **_bands("memory")},
        "The mean cosine of W_i − μ with its first value: how much of its first direction a row keeps. Band 1 holds "
        "the most frequent quarter of the live rows."),
    Curves("share", "Memory of the initialisation", "Gradient share of the softmax", "‖g_out‖ / (‖g_in‖ + ‖g_out‖)", {
        "output_share_dead": "dead", **_bands("output_share")},
        "1 where a row is moved by the softmax alone, as dead rows are."),
    Curves("indicators", "Indicators of under-trained tokens", "Cosine distance", "1 − cos", _sides(
        "cosine", "cosine_without_mean", "cosine_without_first_pc"),
        "1 − cos(W_i, u), u the mean row of 8 known dead ids; the same without the mean of W, and without its first "
        "principal component (Land and Bartolo 2024). Means over the other dead rows and over the live ones."),
    Curves("distances", "Indicators of under-trained tokens", "Distance", "‖W_i − u‖", _sides("distance"),
           "The distance from u, likewise."),
    *_detected("auroc", "AUROC", "The probability that a dead row has a lower value of the indicator than a live one: "
               "0.5 tells nothing. Of the plain norm, below 0.5 means that dead rows are the long ones."),
    *_detected("precision", "Precision", "The share of dead rows among as many lowest values as there are dead rows."),
)  # fmt: skip
"""In the order of the report."""


def columns_of(shown: Shown) -> dict[str, Points]:
    """Return a run's columns over the steps, what is not defined left out: its measures, else `dynamics.jsonl`."""
    run, found = shown.run, {}
    light = {name: [line.get(name) for line in run.dynamics] for name in ({*run.dynamics[0]} if run.dynamics else ())}
    steps = np.array(light.pop("step", []), np.int64)
    for name, values in sorted(light.items()):
        renamed = "centroid_displacement" if name == "centroid_moved" else name
        found[renamed] = steps, np.array(values, np.float64)
    found["loss"] = np.array(run.steps, np.int64), np.array(run.losses, np.float64)
    found["validation"] = (
        np.array([line["step"] for line in run.evaluations], np.int64),
        np.array([line["loss"] for line in run.evaluations], np.float64),
    )
    if shown.steps is not None:
        measured = dict(shown.steps)
        every, largest = measured.pop("step"), measured.pop("eigenvalues")
        measured |= {f"eigenvalue_{n + 1}": largest[:, n] for n in range(min(LARGEST, largest.shape[1]))}
        defined = {name: values for name, values in measured.items() if not np.isnan(values).all()}
        found |= {name: (every, values) for name, values in defined.items()}
    kept = {name: (x[np.isfinite(y)], y[np.isfinite(y)]) for name, (x, y) in found.items()}
    return {name: thinned(*points) for name, points in kept.items() if len(points[0])}


def thinned(x: npt.NDArray[np.int64], y: npt.NDArray[np.float64]) -> Points:
    """Return at most POINTS of the points, equally spaced, the first and the last among them."""
    chosen = np.linspace(0, len(x) - 1, min(len(x), POINTS)).astype(np.int64)
    return x[chosen], y[chosen]


def curves_of(found: Iterable[dict[str, Points]]) -> list[Curves]:
    """Return the plots that these runs' columns allow, each with the columns that are there."""
    names = {name for columns in found for name in columns}
    chosen = [replace(plot, columns={name: label for name, label in plot.columns.items() if name in names})
              for plot in CURVES]  # fmt: skip
    return [plot for plot in chosen if plot.columns.keys() - NORMS]
