"""Coupled Adam against AdamW in Duckling's setting: what averaging v over the vocabulary does to the embedding.

Adam moves the embedding's rows in a common direction, because its steps, unlike the gradients, do not sum to 0 over the
vocabulary; with the second moment averaged over the vocabulary they do again (Stollenwerk and Stollenwerk, arXiv
2502.08441). Each seed is trained once with either optimizer, from the same weights on the same rows, all seeds at once,
at a constant learning rate in float32. The table has the mean of each optimizer and the mean of the seeds' differences
(Coupled Adam − AdamW) with its 95 % confidence interval by Student's t.

μ is the mean of W's rows, C that of its dead rows. The isotropy is min Z(c) / max Z(c) with Z(c) = Σ exp(c · W_i) over
c = ± the eigenvectors of WᵀW (Mu and Viswanath 2018). The training loss is the mean over the last --last steps, a sum
over a row's predictions divided by its tokens, the held-out loss the mean over predictions; both in nats.
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import sys
from collections import deque
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from scipy import stats

from duckling_data.base.errors import DucklingError
from duckling_data.base.progress import Reporter
from duckling_train.config import TrainConfig
from duckling_train.data import PackedRows, TrainingData, fitting, open_validation, open_workspace
from duckling_train.dynamics import bulk, mean_shift
from duckling_train.engines import load_engine
from duckling_train.engines.base import Hook, Job, StepView
from duckling_train.runs.hooks import evaluate

OPTIMIZERS = ("adamw", "coupled-adam")
MEASURES = {
    "mean_shift": "‖μ‖", "isotropy": "isotropy", "centroid_norm": "dead ‖C‖", "loss": "training loss",
    "held_out": "held-out loss",
}  # fmt: skip
Measured = dict[str, float]


def embedding_measures(w: npt.NDArray[np.float64], live: int) -> Measured:
    """Return mean shift, isotropy and the norm of the dead rows' centroid of W, float64[vocabulary, width]."""
    centroid = bulk.centroid(w[live:])
    return {
        "mean_shift": mean_shift.mean_shift(w),
        "isotropy": mean_shift.isotropy(w),
        "centroid_norm": float(np.linalg.norm(centroid)),
    }


class Measure(Hook):
    """Takes the measures of one run at the steps `at`."""

    def __init__(
        self, at: tuple[int, ...], last: int, held_out: PackedRows | None, data: TrainingData, bar: Any
    ) -> None:
        self.at, self.held_out, self.data, self.bar = at, held_out, data, bar
        self.losses: deque[float] = deque(maxlen=last)
        self.found: dict[int, Measured] = {}

    def step(self, view: StepView) -> None:
        """Keep the loss, and measure where it is due."""
        assert view.loss is not None
        self.losses.append(view.loss)
        self.bar.update()
        if view.step in self.at:
            live = self.data.mapping["live_tokens"]
            found = embedding_measures(view.W.double().numpy(), live) | {"loss": float(np.mean(self.losses))}
            if self.held_out is not None:
                unk = self.data.mapping["unk_id"]
                found["held_out"] = evaluate(view.model, self.held_out, None, unk, autocast=False)["loss"]
            self.found[view.step] = found


def train(options: argparse.Namespace, reporter: Reporter) -> dict[str, list[dict[int, Measured]]]:
    """Train every seed with both optimizers. Returns the measures by optimizer, seed and step."""
    engine, at = load_engine("fast"), tuple(options.at)
    shared = TrainConfig(
        engine="fast", precision="fp32", schedule="constant", device="cpu", steps=max(at),
        batch_size=options.batch_size, learning_rate=options.learning_rate, weight_decay=options.weight_decay,
        **fitting(options.workspace),
    )  # fmt: skip
    data = open_workspace(options.workspace, shared)
    held_out = open_validation(options.workspace, shared, data.mapping)
    hooks: dict[str, list[Measure]] = {}
    with reporter.bar("train", len(OPTIMIZERS) * options.seeds * max(at), "steps") as bar:
        for name in OPTIMIZERS:
            reporter.say(f"{name}: {options.seeds} seeds at once, {max(at):,} steps on {len(data.rows):,} rows")
            configs = [
                engine.checked(dataclasses.replace(shared, optimizer=name, seed=n)) for n in range(options.seeds)
            ]
            jobs = [Job(config, engine.build(config), data.rows, Path("unused")) for config in configs]
            hooks[name] = [Measure(at, options.last, held_out, data, bar) for _ in jobs]
            for ended in engine.fit(jobs, [[hook] for hook in hooks[name]]):
                if ended is not None:
                    raise ended
    return {name: [hook.found for hook in of_one] for name, of_one in hooks.items()}


def interval(mean: float, low: float, high: float, digits: int) -> str:
    """Return a mean with its interval."""
    return f"{mean:.{digits}f} [{low:.{digits}f}, {high:.{digits}f}]"


def table(found: dict[str, list[dict[int, Measured]]]) -> str:
    """Return the Markdown table: a line for each step and measure."""
    lines = [
        "| step | measure | AdamW | Coupled Adam | difference, 95 % interval | seeds where it is lower |",
        "|---:|---|---:|---:|---:|---:|",
    ]
    first, second = (found[name] for name in OPTIMIZERS)
    for step in first[0]:
        for measure in first[0][step]:
            a, b = (np.array([seed[step][measure] for seed in of_one]) for of_one in (first, second))
            difference = stats.ttest_rel(b, a)
            low, high = difference.confidence_interval(0.95)
            cells = [
                f"{step:,}", MEASURES[measure], f"{a.mean():.4f}", f"{b.mean():.4f}",
                interval(float((b - a).mean()), float(low), float(high), 4), f"{int((b < a).sum())} of {len(a)}",
            ]  # fmt: skip
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


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
    add("--seeds", type=int, default=8, metavar="K", help="seeds 0 to K − 1, at least 2 (default: %(default)s)")
    add("--at", type=int, nargs="+", default=[120, 500, 1000], metavar="STEP",
        help="steps to measure at; training ends with the last (default: 120 500 1000)")  # fmt: skip
    add("--batch-size", type=int, default=1, help="rows a step (default: %(default)s)")
    add("--learning-rate", type=float, default=1e-3, help="constant (default: %(default)s)")
    add("--weight-decay", type=float, default=0.01, help="default: %(default)s")
    add("--last", type=int, default=20, help="steps that the training loss is the mean of (default: %(default)s)")
    add("--out", type=Path, metavar="FILE", help="write the measures of every seed as JSON, too")
    options = parser.parse_args(arguments)
    if options.seeds < 2 or min(*options.at, options.last) < 1:
        parser.error("--seeds is at least 2, --at and --last at least 1")
    return options


def main(arguments: list[str] | None = None) -> None:
    """Train, print the table."""
    options = parsed(arguments)
    try:
        found = train(options, Reporter())
    except DucklingError as error:
        sys.exit(str(error))
    if options.out:
        options.out.write_text(json.dumps(found, indent=1) + "\n")
    print(table(found))


if __name__ == "__main__":
    main()
