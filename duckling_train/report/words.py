"""What a report says in words: the run in a line, its main figures, what it lacks, and what differs between runs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from duckling_train.compare.table import NOTHING, cells, columns_of_runs
from duckling_train.plot import DATA_DIFFER
from duckling_train.report.curves import Points
from duckling_train.report.figures import text
from duckling_train.report.gather import Shown
from duckling_train.runs.read import same_data

ADDS = {"grad": "gradients", "exp_avg_sq": "second moments", "h_mean": "the tracer view",
        "p_dead": "dead mass at every step"}  # fmt: skip
"""What each tensor that may be recorded besides W adds to a report."""
MORE = ",".join(ADDS)


def in_a_line(shown: Shown) -> str:
    """Return what was run."""
    given, run = shown.run.settings, shown.run
    dead = int(shown.dead.sum())
    done = run.steps[-1] if run.steps else 0
    steps = f"{given['steps']:,} steps" if run.finished else f"{done:,} of {given['steps']:,} steps (not finished)"
    rows = f"{len(shown.dead) - dead:,} live and {dead:,} dead rows" if dead else f"{len(shown.dead):,} rows"
    return (
        f"{given['n_layer']} layers, width {given['n_embd']}, {rows}; {steps} of {given['batch_size']} × "
        f"{given['n_positions']} tokens, {given['optimizer']}, learning rate {given['learning_rate']:g} "
        f"({given['schedule']}), weight decay {given['weight_decay']:g}, {given['precision']}, seed {given['seed']}."
    )


def figures_of(shown: Shown, found: dict[str, Points]) -> list[tuple[str, str]]:
    """Return the five figures that matter, those that there are: name and value."""
    wanted = {
        "last logged loss (nats per token)": "loss", "‖C − C₀‖, how far the dead rows' mean came":
        "centroid_displacement", "mean distance of the dead rows from it": "radius_mean",
        "coherence of their last displacements": "coherence", "share of them not seen to freeze": "surviving",
        "probability of all dead rows together": "dead_mass",
    }  # fmt: skip
    there = [(label, text(float(found[name][1][-1]))) for label, name in wanted.items() if name in found]
    return there[:5]


def lacks(shown: Shown) -> list[str]:
    """Return a sentence for each thing that the run could show and does not, with how it would."""
    run = shown.run
    name, held = run.name, str(run.settings.get("record_tensors", "W")).split(",")
    if run.settings.get("record", "none") == "none":
        return [f"{name} was trained without --record. With --record dead, and duckling-train measure, a report also "
                "shows the cloud of dead rows at every step, their regimes, the stratigraphy, survival of motion, the "
                f"spectrum and black holes; with --record all --record-tensors W,{MORE} also live rows, the tracer "
                "view, forces and isotropy at every step."]  # fmt: skip
    found = []
    if shown.steps is None:
        found.append(f"{name} is not measured: duckling-train measure adds the curves of its record.")
    whole = shown.cloud is not None and len(shown.cloud.ids) + len(shown.cloud.live_ids) == len(shown.dead)
    missing = [each for each in MORE.split(",") if each not in held]
    if not whole:
        found.append(f"{name} recorded a part of W: --record all adds live rows, isotropy and mean shift at every "
                     "step, and the memory of the initialisation.")  # fmt: skip
    if missing:
        added = ", ".join(f"{ADDS[each]} ({each})" for each in missing)
        found.append(f"{name} recorded W without {', '.join(missing)}: --record-tensors W,{MORE} adds {added}.")
    return found


def black_holes_in_words(shown: Shown) -> list[str]:
    """Return how many dead rows are equal to another at the end."""
    if shown.rows is None or not (dead := shown.rows["dead"].astype(bool)).any():
        return []
    parts = []
    for view, name in (("float32", "identical_rows"), ("bf16", "identical_rows_bf16")):
        sizes = shown.rows[name][dead]
        equal = int((sizes > 1).sum())
        largest = f", the largest group of {int(sizes.max()):,}" if equal else ""
        parts.append(f"{equal:,} in {view}{largest}")
    joined = shown.rows["component_rows"][dead]
    return [
        f"Of {int(dead.sum()):,} dead rows, those equal to another at the last recorded step: {'; '.join(parts)}. "
        f"The largest lattice component then has {int(joined.max()):,} rows."
    ]


def survival_in_words(shown: Shown) -> list[str]:
    """Return how many dead rows were seen to freeze."""
    if shown.rows is None or not (dead := shown.rows["dead"].astype(bool)).any():
        return []
    censored, onset = shown.rows["censored"][dead].astype(bool), shown.rows["onset"][dead]
    schedule = str(shown.run.settings.get("schedule"))
    falls = (" The learning rate falls to 0, which freezes every row by construction: see ‖ΔC‖ / learning rate, too."
             if schedule != "constant" else "")  # fmt: skip
    return [f"{int((~censored).sum()):,} of {len(onset):,} dead rows were seen to freeze; the others are censored. The "
            f"median of the last steps with a move is {np.median(onset):,.0f}.{falls}"]  # fmt: skip


def compared(runs: Sequence[Shown]) -> dict[str, Any]:
    """Return the table of what differs between runs."""
    records = [each.run for each in runs]
    head, *rows = cells(columns_of_runs(records), records, NOTHING)
    caption = "" if same_data(records) else f"Attention: {DATA_DIFFER}: these losses are no comparison of the runs."
    return {"head": head, "rows": rows, "caption": caption}
