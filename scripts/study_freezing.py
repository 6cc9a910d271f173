"""Do dead rows freeze, or only grow cold? Trains each precision under each schedule, watches every dead row, and draws.

A row's freeze onset is its last step with any change, right-censored by the end of the run. Its hop rate r is the share
of steps with a change in the --window steps up to that one. It counts as frozen where a Poisson process of that rate is
silent for the rest of the run with a probability exp(−r · silent steps) below --alpha; else its onset is censored
there: it is known only not to have frozen before. The survival curve is the Kaplan–Meier estimator's. Rows of one run
share their gradients' direction, so they are not independent: the curves have no confidence band. And the rule is
tested: how many of the rows that it calls frozen at half the steps change later?

A learning rate that ends at 0 stops every row, whatever its gradient. So ‖Δ‖ / lr is shown, too, beside what AdamW asks
for before the new weight is rounded: ‖m̂ / (√v̂ + ε) + λW‖, λ the weight decay.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from duckling_data.base.errors import DucklingError
from duckling_data.base.files import write_bytes
from duckling_data.base.plotting import COLOURS, default_settings, png
from duckling_data.base.progress import Reporter
from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.data import fitting, open_workspace
from duckling_train.engines import load_engine
from duckling_train.engines.base import Hook, Job, StepView
from duckling_train.engines.fast.order import learning_rate

SCHEDULES = ("constant", "linear")
NATIVE, VIEW = "native", "bf16"
Changes = npt.NDArray[np.bool_]


class Watch(Hook):
    """Keeps of each step which dead rows changed, and how far they moved on average, in learning rates."""

    def __init__(self, config: TrainConfig, live: int, bar: Any) -> None:
        self.config, self.live, self.bar = config, live, bar
        self.changed: dict[str, list[npt.NDArray[np.bool_]]] = {NATIVE: [], VIEW: []}
        self.taken: list[float] = []
        self.asked: list[float] = []

    def begin(self, view: StepView) -> None:
        """Keep the first weights."""
        self.before = view.W[self.live :].clone()

    def step(self, view: StepView) -> None:
        """Compare with the step before."""
        now, before, rate = view.W[self.live :], self.before, learning_rate(self.config, view.step)
        self.changed[NATIVE].append((now != before).any(dim=1).numpy())
        self.changed[VIEW].append((now.bfloat16() != before.bfloat16()).any(dim=1).numpy())
        assert view.moments is not None
        (beta1, beta2), (m, v) = self.config.betas, (moment[self.live :].float() for moment in view.moments)
        root = (v / (1 - beta2**view.step)).sqrt() + self.config.adam_epsilon
        asked = m / (1 - beta1**view.step) / root + self.config.weight_decay * before.float()
        self.asked.append(float(asked.norm(dim=1).mean()))
        self.taken.append(float((now.float() - before.float()).norm(dim=1).mean()) / rate)
        self.before = now.clone()
        self.bar.update()


@dataclass(frozen=True)
class Cell:
    """What was seen of the dead rows of all seeds under one precision and schedule."""

    precision: str
    schedule: str
    changed: dict[str, Changes]
    """By NATIVE and VIEW, [steps, rows]: whether any weight of the row changed in the step."""
    taken: npt.NDArray[np.float64]
    """[steps]: the mean ‖Δ‖ / lr."""
    asked: npt.NDArray[np.float64]
    """[steps]: the mean of what AdamW asked for, in learning rates."""


@dataclass(frozen=True)
class Onsets:
    """The freeze onsets of rows: arrays of one element a row."""

    last: npt.NDArray[np.int64]
    """The last step with a change; 0 for none."""
    rate: npt.NDArray[np.float64]
    """Changes a step, in the window up to the last one."""
    silent: npt.NDArray[np.int64]
    """Steps from the last change to the end."""

    @property
    def by_chance(self) -> npt.NDArray[np.float64]:
        """How probable so long a silence is for a Poisson process of the row's rate."""
        probabilities: npt.NDArray[np.float64] = np.exp(-self.rate * self.silent)
        return probabilities

    def survival(self, alpha: float) -> Any:
        """Return the Kaplan–Meier survival function of the onset."""
        return stats.ecdf(stats.CensoredData.right_censored(self.last, self.by_chance >= alpha)).sf

    def null(self, steps: npt.NDArray[np.int64]) -> npt.NDArray[np.float64]:
        """Return the share of rows whose last change would be after each step if none froze."""
        end = self.last + self.silent
        return np.array([-np.expm1(-self.rate * (end - step)).mean() for step in steps])


def onsets(changed: Changes, window: int) -> Onsets:
    """Return the onsets of the rows of `changed`, [steps, rows]."""
    total = np.concatenate([np.zeros((1, changed.shape[1]), dtype=np.int64), changed.cumsum(axis=0)])
    steps, rows = len(changed), np.arange(changed.shape[1])
    last = np.where(changed.any(axis=0), steps - changed[::-1].argmax(axis=0), 0)
    first = np.maximum(last - window, 0)
    rate = (total[last, rows] - total[first, rows]) / np.maximum(last - first, 1)
    return Onsets(last, rate, steps - last)


def recanted(changed: Changes, window: int, alpha: float) -> tuple[int, int]:
    """Return how many rows count as frozen at half the steps, and how many of them changed in the second half."""
    half = len(changed) // 2
    frozen = onsets(changed[:half], window).by_chance < alpha
    return int(frozen.sum()), int(changed[half:, frozen].any(axis=0).sum())


def train_cell(options: argparse.Namespace, precision: str, schedule: str, bar: Any) -> Cell:
    """Train all seeds under a precision and schedule."""
    engine = load_engine("fast")
    configs = [
        engine.checked(TrainConfig(
            engine="fast", precision=precision, schedule=schedule, seed=seed, device="cpu", steps=options.steps,
            batch_size=options.batch_size, learning_rate=options.learning_rate, **fitting(options.workspace),
        ))
        for seed in range(options.seeds)
    ]  # fmt: skip
    data = open_workspace(options.workspace, configs[0])
    hooks = [Watch(config, data.mapping["live_tokens"], bar) for config in configs]
    jobs = [Job(config, engine.build(config), data.rows, Path("unused")) for config in configs]
    for ended in engine.fit(jobs, [[hook] for hook in hooks]):
        if ended is not None:
            raise ended
    changed = {
        view: np.concatenate([np.stack(hook.changed[view]) for hook in hooks], axis=1) for view in (NATIVE, VIEW)
    }
    taken, asked = (np.mean([getattr(hook, name) for hook in hooks], axis=0) for name in ("taken", "asked"))
    return Cell(precision, schedule, changed, taken, asked)


def table(cells: Sequence[Cell], window: int, alpha: float) -> str:
    """Return the Markdown table, a line a cell and view; in bf16 precisions the two views are the same."""
    heads = [
        "precision", "schedule", "rows seen in", "row-steps with a change", "in the last tenth of the steps",
        "frozen at half the steps, and changed later", "frozen at the end", "not frozen, Kaplan–Meier",
        "‖Δ‖ / lr, last tenth", "asked for",
    ]  # fmt: skip
    lines = [f"| {' | '.join(heads)} |", "|---|---|---" + "|---:" * 7 + "|"]
    for cell in cells:
        tail = slice(-max(1, len(cell.taken) // 10), None)
        for view, changed in cell.changed.items():
            if view == NATIVE and np.array_equal(changed, cell.changed[VIEW]):
                continue
            found = onsets(changed, window)
            cells_of = [
                cell.precision, cell.schedule, view if view == VIEW else "float32",
                f"{changed.mean():.1%}", f"{changed[tail].mean():.1%}",
                "{:,}, {:,}".format(*recanted(changed, window, alpha)),
                f"{int((found.by_chance < alpha).sum()):,} of {changed.shape[1]:,}",
                f"{found.survival(alpha).probabilities[-1]:.1%}",
                f"{cell.taken[tail].mean():.3g}", f"{cell.asked[tail].mean():.3g}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells_of)} |")
    return "\n".join(lines)


@default_settings({"font.size": 9})
def draw(cells: Sequence[Cell], window: int, alpha: float) -> bytes:
    """Return a PNG: for each precision the survival curves on the bf16 view, and below them ‖Δ‖ / lr."""
    from matplotlib.figure import Figure

    names = list(dict.fromkeys(cell.precision for cell in cells))
    figure = Figure(figsize=(2.4 * len(names) + 0.6, 5.2), dpi=130, layout="constrained")
    grid = figure.subplots(2, len(names), sharex=True, sharey="row", squeeze=False)
    for cell in cells:
        above, below = grid[:, names.index(cell.precision)]
        colour, steps = COLOURS[SCHEDULES.index(cell.schedule)], np.arange(len(cell.taken) + 1)
        found = onsets(cell.changed[VIEW], window)
        above.step(steps, found.survival(alpha).evaluate(steps), where="post", color=colour, linewidth=2,
                   label=f"{cell.schedule}: not frozen yet")  # fmt: skip
        later = [(found.last > step).mean() for step in steps]
        above.plot(steps, later, color=colour, linewidth=0.9, label=f"{cell.schedule}: still to change")
        above.plot(steps, found.null(steps), color=colour, linestyle=":", linewidth=1.4,
                   label=f"{cell.schedule}: the same, if none froze")  # fmt: skip
        below.plot(steps[1:], smoothed(cell.taken), color=colour, linewidth=1.6, label=f"{cell.schedule}: taken")
        below.plot(steps[1:], smoothed(cell.asked), color=colour, linestyle="--", linewidth=1,
                   label=f"{cell.schedule}: asked for")  # fmt: skip
        above.set_title(cell.precision, fontsize=10)
        below.set_xlabel("step")
    grid[0, 0].set_ylabel("share of dead rows\n(bf16 view)")
    grid[1, 0].set_ylabel("mean ‖Δ‖ / lr of a dead row")
    grid[0, 0].set_ylim(-0.03, 1.05)
    grid[1, 0].set_yscale("log")
    for axes in grid.flat:
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
    for row, place, ncols in zip(grid, ("outside upper center", "outside lower center"), (3, 4), strict=True):
        lines, labels = row[0].get_legend_handles_labels()
        turn = [n for first in range(ncols) for n in range(first, len(lines), ncols)]  # a legend is filled by columns
        at: Any = place
        figure.legend(
            [lines[n] for n in turn], [labels[n] for n in turn], loc=at, ncols=ncols, frameon=False, fontsize=8
        )
    return png(figure)


def smoothed(values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    """Return the mean of up to 20 values up to each."""
    total = np.concatenate([[0.0], values.cumsum()])
    ends = np.arange(1, len(total))
    first = np.maximum(ends - 20, 0)
    means: npt.NDArray[np.float64] = (total[ends] - total[first]) / (ends - first)
    return means


def parsed(arguments: list[str] | None) -> argparse.Namespace:
    """Return the options."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add(
        "--workspace",
        "-w",
        type=Path,
        default=Path("artifacts/demo"),
        help="dataset and mapping (default: %(default)s)",
    )
    add("--steps", type=int, default=2000, help="of each run (default: %(default)s)")
    add("--seeds", type=int, default=1, metavar="K", help="seeds 0 to K − 1 of each (default: %(default)s)")
    add("--precision", nargs="+", choices=PRECISIONS, default=list(PRECISIONS), help="default: all five")
    add("--batch-size", type=int, default=1, help="rows a step (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-3, help="the first step's (default: %(default)s)")
    add(
        "--window", type=int, default=200, help="steps before the last change that give its rate (default: %(default)s)"
    )
    add("--alpha", type=float, default=1e-3, help="below it a silence is no chance (default: %(default)s)")
    add("--figure", type=Path, default=Path("docs/freezing.png"), help="default: %(default)s")
    options = parser.parse_args(arguments)
    if min(options.steps, options.seeds, options.window) < 1:
        parser.error("--steps, --seeds and --window are at least 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table, draw."""
    options, reporter, cells = parsed(arguments), Reporter(), []
    runs = [(precision, schedule) for precision in options.precision for schedule in SCHEDULES]
    try:
        with reporter.bar("train", len(runs) * options.seeds * options.steps, "steps") as bar:
            for number, (precision, schedule) in enumerate(runs, 1):
                reporter.say(f"{number} of {len(runs)}: {precision}, {schedule}, {options.steps:,} steps")
                cells.append(train_cell(options, precision, schedule, bar))
    except DucklingError as error:
        sys.exit(str(error))
    print(table(cells, options.window, options.alpha))
    write_bytes(options.figure, draw(cells, options.window, options.alpha))


if __name__ == "__main__":
    main()
