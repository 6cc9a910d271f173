"""The columns of the two tables of measurements: a row a recorded step, and a row a recorded token.

Δ is the displacement since the recorded step before, which is the optimizer step before where every step is recorded.
C is the centroid of the recorded dead rows, and L1, L2 and L∞ are norms of lattice displacements. Where a column's
value is not defined, or what it needs was not recorded, it is null. docs/dynamics.md has the same tables.
"""

from __future__ import annotations

from typing import NamedTuple

from duckling_train.dynamics.detectability import OF_MEANS, REFERENCES
from duckling_train.dynamics.frequency import BANDS
from duckling_train.dynamics.indicators import NAMES

BAND_NUMBERS = range(1, BANDS + 1)


class Column(NamedTuple):
    """A column of a table."""

    name: str
    unit: str
    """Empty for a number without one."""
    meaning: str


def _detected() -> list[Column]:
    """Return the columns of how well each indicator finds the dead rows, and of the indicators themselves."""
    of_norm = "the plain norm, long rows last; at up to 30 equally spaced steps"
    found = [Column("auroc_norm", "", f"AUROC of dead rows against live ones by {of_norm}"),
             Column("precision_norm", "", f"share of dead rows among as many lowest values of {of_norm}")]  # fmt: skip
    for references in REFERENCES:
        given = f"given {references} dead ids; at the same steps" if references > 1 else "given 1 dead id; likewise"
        for name in NAMES:
            found.append(Column(f"auroc_{name}_{references}", "", f"AUROC by the indicator {name}, {given}"))
            found.append(Column(f"precision_{name}_{references}", "", f"precision by {name}, {given}"))
    given = f"given {OF_MEANS} dead ids; likewise"
    for name in NAMES:
        found += [Column(f"{name}_{kind}", "", f"mean {name} of the {kind} rows, {given}") for kind in ("dead", "live")]
    return found


def _bands(name: str, meaning: str) -> list[Column]:
    return [Column(f"{name}_band_{band}", "", f"{meaning}, band {band} of {BANDS}") for band in BAND_NUMBERS]


STEP_COLUMNS = (
    Column("step", "steps", "optimizer steps done"),
    Column("learning_rate", "", "the learning rate of that step"),
    # Displacement and regimes
    Column("frozen_fraction", "", "share of the dead rows with L1 = 0"),
    Column("late_fraction", "", "share of them with L∞ ≤ 1 and L1 > 0"),
    Column("midlife_fraction", "", "share of them with L∞ > 1 and L2 ≤ √D"),
    Column("early_fraction", "", "share of them with L2 > √D"),
    Column("unmoved_fraction", "", "share of them whose recorded weights are all the same as before"),
    Column("lattice_l1_mean", "lattice steps", "mean L1 of the dead rows"),
    Column("lattice_l2_mean", "lattice steps", "mean L2 of them"),
    Column("lattice_linf_max", "lattice steps", "largest L∞ of them"),
    Column("displacement_mean", "", "mean ‖Δ‖ of the dead rows"),
    Column("displacement_per_lr", "", "that, divided by the sum of the learning rates since the recorded step before"),
    Column("live_displacement_mean", "", "mean ‖Δ‖ of the live rows"),
    Column("surviving", "", "share of the dead rows not frozen after the step (Kaplan–Meier)"),
    Column("surviving_poisson", "", "share whose last hop is later, if they hop at random at their rates to the end"),
    # Bulk
    Column("centroid_norm", "", "‖C‖"),
    Column("centroid_displacement", "", "‖C − C₀‖"),
    Column("velocity", "", "‖ΔC‖"),
    Column("velocity_per_lr", "", "that, divided by the sum of the learning rates since the recorded step before"),
    Column("path_length", "", "Σ‖ΔC‖ so far"),
    Column("path_efficiency", "", "‖C − C₀‖ / Σ‖ΔC‖ so far"),
    Column("curvature", "", "cos(ΔC, the next ΔC)"),
    Column("radius_mean", "", "mean ‖W_i − C‖ of the dead rows"),
    Column("radius_max", "", "largest of them"),
    Column("live_centroid_norm", "", "‖mean of the live rows‖"),
    Column("live_dead_distance", "", "distance between the centroids of live and dead rows"),
    Column("live_dead_angle", "degrees", "angle between them, seen from the origin"),
    Column("coherence", "", "mean cosine between the Δ of two dead rows that moved"),
    Column("inertia", "", "mean cosine of a dead row's deviation from the mean Δ with its deviation a step before"),
    # Black holes and lattice components
    Column("identical_fraction", "", "share of the dead rows with the same bits as another; at equally spaced steps"),
    Column("identical_fraction_bf16", "", "share of them with the same bits as another in bf16; at the same steps"),
    Column("adjacent_black_holes", "", "pairs of groups of such rows in bf16 with L∞ = 1 between them; likewise"),
    Column("lattice_components", "", "number of groups of dead rows joined where L∞ between them is ≤ 1; likewise"),
    Column("lattice_largest_component", "rows", "dead rows in the largest of them; likewise"),
    # Shape
    Column("participation_ratio", "", "(Σλ)² / Σλ² of the dead rows' covariance; at equally spaced steps"),
    Column("eigenvalues", "", "λ of that covariance, largest first; at equally spaced steps"),
    Column("tracer_mean", "", "C along r, the direction of the last recorded mean hidden state"),
    Column("tracer_spread", "", "standard deviation of the dead rows along r"),
    Column("tracer_perpendicular_mean", "", "C along one fixed direction perpendicular to r"),
    Column("tracer_perpendicular_spread", "", "standard deviation of the dead rows along it"),
    # Forces
    Column("adam_part_mean", "", "mean norm of the dead rows' Δ without weight decay's part"),
    Column("decay_part_mean", "", "mean norm of weight decay's part of it"),
    Column("dead_mass", "", "Σ mean probability of the recorded dead rows"),
    Column("h_mean_norm", "", "‖h̄‖, h̄ the mean final hidden state of the step"),
    Column("drift_against_h", "", "cos(ΔC, −h̄)"),
    Column("grad_in_norm_dead", "", "mean norm of the dead rows' gradient through the input embedding"),
    Column("grad_in_norm_live", "", "that of the live rows"),
    Column("grad_out_norm_dead", "", "mean norm of the dead rows' gradient through the softmax"),
    Column("grad_out_norm_live", "", "that of the live rows"),
    Column("root_second_moment_dead", "", "mean √v̂ of the dead rows, v̂ AdamW's second moment, bias corrected"),
    Column("root_second_moment_live", "", "that of the live rows"),
    # All of W
    Column("mean_shift", "", "‖μ‖, μ the mean of all rows of W"),
    Column("mean_shift_relative", "", "‖μ‖ / mean ‖W_i − μ‖"),
    Column("isotropy", "", "min Z(c) / max Z(c) over ± the eigenvectors of WᵀW; at equally spaced steps"),
    Column("isotropy_centred", "", "that of W − μ; at equally spaced steps"),
    Column("zero_sum_ratio", "", "‖ΣΔ_i‖ / Σ‖Δ_i‖ over all rows of W"),
    Column("memory_dead_centroid", "", "mean cosine of a dead row's W − C with its first"),
    Column("memory_dead", "", "mean cosine of a dead row's W − μ with its first"),
    *_bands("memory", "mean cosine of a live row's W − μ with its first"),
    Column("output_share_dead", "", "mean ‖g_out‖ / (‖g_in‖ + ‖g_out‖) of the dead rows"),
    *_bands("output_share", "mean of it over live rows"),
    *_detected(),
)
"""A row a recorded step."""

ROW_COLUMNS = (
    Column("id", "", "compact id: the row of W"),
    Column("dead", "", "whether no text contains it"),
    Column(
        "band", "", f"frequency band among the recorded live rows, 1 the most frequent of {BANDS}; null for dead rows"
    ),
    Column("onset", "steps", "freeze onset: the last step in which the row moved on the lattice (L1 > 0)"),
    Column("censored", "", "whether the silence after it may well be one between two hops: no freeze was seen"),
    Column("silent_window", "steps", "steps from the onset to the last recorded one"),
    Column("hops", "", "recorded steps in which the row moved on the lattice"),
    Column("hop_rate", "hops a step", "how often it moved in the 1,000 steps up to the onset, or since the start"),
    Column("silence_probability", "", "exp(−hop rate × silent window): of such a silence without a freeze"),
    Column(
        "last_early", "steps", "last step in the regime early, the end of its early phase; the first recorded: never"
    ),
    Column("last_midlife", "steps", "the same for midlife"),
    Column("last_late", "steps", "the same for late"),
    Column("displacement", "", "‖W − W₀‖ at the last recorded step"),
    Column("path_length", "", "Σ‖Δ‖ over the recorded steps"),
    Column("norm_first", "", "‖W₀‖"),
    Column("norm_last", "", "‖W‖ at the last recorded step"),
    Column("memory", "", "cosine of W − C with its first; of W − μ for a live row"),
    Column("inertia", "", "lag-1 correlation of a dead row's deviation from the mean Δ"),
    Column("identical_rows", "rows", "recorded rows with its bits at the last recorded step, itself among them"),
    Column("identical_rows_bf16", "rows", "the same in bf16"),
    Column("adjacent_rows", "rows", "recorded rows at a lattice distance of L∞ = 1 then"),
    Column("component_rows", "rows", "recorded rows of its lattice component then, itself among them"),
)
"""A row a recorded token."""

TOKEN_COLUMNS = (
    Column("gpt2_id", "", "the GPT-2 token of a live id"),
    Column("token", "", "its text; bytes that are no UTF-8 are replaced"),
    Column("count", "", "how often it was counted in the corpus; null where the run's workspace is not at hand"),
    Column("largest_probability", "", "largest probability of a dead row over the positions of the validation rows"),
    Column("argmax_positions", "positions", "at how many of them it is the most probable row of all"),
)
"""What `duckling-train measure` adds to a row a token."""
