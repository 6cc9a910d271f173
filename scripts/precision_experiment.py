"""Trains the five precisions on the same rows in the same order, and puts their losses side by side.

Each run is a `duckling-train` of its own, in a directory named after its precision, with the same seed: the weights
start at the same values (rounded to bf16 where the precision says so), the batches are equal. A finished run is kept,
an unfinished one goes on from its last checkpoint. Then a figure is drawn, and a table printed and written beside the
runs. Runs side by side (--jobs) share the cores: then steps/s compare little.
"""

from __future__ import annotations

import argparse
import io
import math
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from duckling_data.base.errors import DucklingError
from duckling_data.base.files import write_bytes
from duckling_data.tokens.mapping import read_mapping
from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.data import MAPPING
from duckling_train.plot import running_mean
from duckling_train.runs.layout import CONFIG, MODEL
from duckling_train.runs.read import RunRecord, read_run

ROOT = Path(__file__).parent.parent
REFERENCE = "fp32"
TABLE = "precision.md"
SHOWN_STEPS = (100, 500, 1000)
SMALL = 0.01
"""A difference of losses, in nats a token, up to which its axis is linear."""
STYLES: dict[str, dict[str, Any]] = {  # colours of Okabe and Ito, told apart by their strokes too
    "fp32": {"color": "#000000", "linestyle": "-", "linewidth": 3.2, "alpha": 0.35},
    "bf16-mixed": {"color": "#0072B2", "linestyle": "-", "linewidth": 1.6},
    "bf16-stochastic": {"color": "#009E73", "linestyle": (0, (5, 2)), "linewidth": 1.8},
    "bf16-weights": {"color": "#E69F00", "linestyle": (0, (3, 1.5, 1, 1.5)), "linewidth": 1.8},
    "bf16-pure": {"color": "#D55E00", "linestyle": (0, (1, 1)), "linewidth": 2.2},
}
HELD = {
    "bf16-mixed": "float32, forward autocast to bf16",
    "fp32": "float32",
    "bf16-pure": "bf16, rounded to nearest after every operation",
    "bf16-weights": "weights and gradients bf16, moments float32, rounded to nearest once a step",
    "bf16-stochastic": "weights and gradients bf16, moments float32, rounded stochastically once a step",
}


@dataclass(frozen=True)
class Outcome:
    """A finished run and what its dead rows did."""

    record: RunRecord
    dead_move: float
    """Root mean square of how far the dead rows' weights ended from where they began."""

    @property
    def smoothed(self) -> np.ndarray:
        """The mean over the last tenth of the logs so far, one for each logged step."""
        return running_mean(self.record.losses)


def train(precision: str, options: argparse.Namespace, failed: threading.Event) -> None:
    """Run `duckling-train` for one precision, or finish what is there. Exits where it fails; then no other starts."""
    if failed.is_set():
        return
    run_dir = options.out / precision
    command = [sys.executable, "-m", "duckling_train", "--workspace", options.workspace, "--precision", precision]
    command += ["--steps", options.steps, "--seed", options.seed, "--learning-rate", options.learning_rate]
    if (run_dir / CONFIG).is_file():
        command += ["--resume", run_dir]
    else:
        command += ["--out", run_dir]
        if options.jobs > 1:
            command += ["--threads", max(1, (os.cpu_count() or 1) // options.jobs)]
    if options.jobs > 1:
        command += ["--quiet"]
    print(f"{precision}: {run_dir}", flush=True)
    done = subprocess.run([str(word) for word in command], cwd=ROOT, check=False)
    if done.returncode:
        failed.set()
        sys.exit(f"{precision} failed: mend what it says and start this again, the other runs are kept")


def outcome(precision: str, options: argparse.Namespace) -> Outcome:
    """Return a precision's finished run."""
    from safetensors.torch import load_file

    run_dir = options.out / precision
    end = load_file(run_dir / MODEL / "model.safetensors")["transformer.wte.weight"].double()
    live = read_mapping(options.workspace / MAPPING)["live_tokens"]
    move = (end - first_embedding(precision, options.seed))[live:]
    return Outcome(read_run(run_dir), float(move.square().mean().sqrt()))


def first_embedding(precision: str, seed: int) -> Any:
    """Return the embedding that a run starts from, float64[vocabulary, width]."""
    from transformers import set_seed

    from duckling_train.model import build_model

    set_seed(seed)
    model = build_model(TrainConfig(precision=precision))
    return model.transformer.wte.weight.detach().double()


def table(outcomes: dict[str, Outcome], jobs: int) -> str:
    """Return the Markdown table. Losses are smoothed as in the figure; those of validation are not."""
    last = min(outcome.record.steps[-1] for outcome in outcomes.values())
    steps = [step for step in SHOWN_STEPS if step < last] + [last]
    heads = [f"loss at {step:,}" for step in steps]
    heads = ["precision", *heads, "validation", "dead weights' move", "steps/s", "held in"]
    lines = [f"| {' | '.join(heads)} |", "|---" + "|---:" * (len(heads) - 2) + "|---|"]
    for precision, outcome in outcomes.items():
        cells = [f"`{precision}`"]
        cells += [f"{outcome.smoothed[outcome.record.steps.index(step)]:.3f}" for step in steps]
        evaluations = outcome.record.evaluations
        cells += [f"{evaluations[-1]['loss']:.3f}" if evaluations else "", f"{outcome.dead_move:.5f}"]
        cells += [f"{(outcome.record.summary or {})['steps_per_second']:.1f}", HELD[precision]]
        lines.append(f"| {' | '.join(cells)} |")
    notes = (
        "Losses in nats a token, the mean over the last tenth of the logs so far; the dead weights' move is the root "
    )
    notes += "mean square of end minus start."
    if jobs > 1:
        notes += f" {jobs} runs at a time shared the cores."
    return "\n".join([*lines, "", notes, ""])


def figure(outcomes: dict[str, Outcome]) -> bytes:
    """Return a PNG: the losses, and beneath them what each is above fp32's at the same step."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure
    from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

    drawing = Figure(figsize=(9, 7.5), dpi=140, layout="constrained")
    FigureCanvasAgg(drawing)
    above, below = drawing.subplots(2, 1, sharex=True, height_ratios=(3, 2))
    reference = outcomes[REFERENCE]
    ends: dict[Any, dict[str, float]] = {above: {}, below: {}}
    for precision, style in STYLES.items():
        steps, smoothed = outcomes[precision].record.steps, outcomes[precision].smoothed
        for axes, values in ((above, smoothed), (below, smoothed - reference.smoothed)):
            axes.plot(steps, values, **style)
            ends[axes][precision] = float(values[-1])
    last = reference.record.steps[-1]
    above.set_xscale("log")
    above.set_xlim(1, last)
    below.set_yscale("symlog", linthresh=SMALL)
    for axes, gap in ((above, 0.06), (below, 0.09)):
        axes.grid(alpha=0.25)
        axes.spines[["top", "right"]].set_visible(False)
        axes.set_ylim(axes.get_ylim())  # fixed from here on: the labels' places are reckoned from it
        label_ends(axes, ends[axes], last, gap)
    uniform = math.log(TrainConfig.vocab_size)
    above.axhline(uniform, color="0.45", linestyle="--", linewidth=1)
    above.annotate(f"ln {TrainConfig.vocab_size:,}", (1, uniform), xytext=(4, 4), textcoords="offset points",
                   color="0.35", fontsize=9)  # fmt: skip
    above.set_ylabel("training loss (nats per token),\nmean over the last tenth of the logs")
    below.set_ylabel(f"loss above fp32's (nats per token),\nlogarithmic beyond ±{SMALL:g}")
    below.set_xlabel("optimizer step (logarithmic)")
    below.yaxis.set_major_formatter(StrMethodFormatter("{x:g}"))
    below.xaxis.set_major_locator(LogLocator(subs=(1.0, 2.0, 5.0)))
    below.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    below.xaxis.set_minor_formatter(NullFormatter())
    settings = reference.record.settings
    above.set_title(
        f"Duckling II in five precisions: {settings['steps']:,} steps, learning rate {settings['learning_rate']:g}, "
        f"seed {settings['seed']}, the same batches",
        fontsize=11,
    )
    buffer = io.BytesIO()
    drawing.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()


def label_ends(axes: Any, ends: dict[str, float], last: int, gap: float) -> None:
    """Write each line's name and last value beside its end, with a thin line to it, `gap` of the axes' height apart."""
    names = sorted(ends, key=lambda name: ends[name])
    heights = np.array(
        [(axes.transData + axes.transAxes.inverted()).transform((last, ends[name]))[1] for name in names]
    )
    for _ in range(200):  # each pair that is too close is pushed apart, until none is
        push = np.maximum(gap - np.diff(heights), 0) / 2
        heights[:-1] -= push
        heights[1:] += push
    for name, height in zip(names, heights, strict=True):
        color = STYLES[name]["color"]
        shown = round(ends[name], 3) + 0.0  # without the sign of a negative zero
        axes.annotate(
            f"{name}  {shown:.3f}", (last, ends[name]), xytext=(1.03, height), textcoords="axes fraction",
            va="center", fontsize=9, color=color, annotation_clip=False,
            arrowprops={"arrowstyle": "-", "color": color, "linewidth": 0.7, "relpos": (0, 0.5), "shrinkB": 0},
        )  # fmt: skip


def main() -> None:
    """Train, draw, print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--workspace", "-w", type=Path, default=Path("artifacts/demo"), help="dataset and mapping")
    parser.add_argument("--steps", type=int, default=2000, help="steps of each run")
    parser.add_argument("--out", type=Path, default=Path("artifacts/demo/precision"), help="where the runs go")
    parser.add_argument("--figure", type=Path, default=Path("docs/precision.png"), help="where the figure goes")
    parser.add_argument("--seed", type=int, default=TrainConfig.seed, help="seed of weights, batches, and rounding")
    parser.add_argument("--learning-rate", type=float, default=TrainConfig.learning_rate, help="peak learning rate")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time, each with its share of the cores")
    options = parser.parse_args()
    options.workspace, options.out = options.workspace.resolve(), options.out.resolve()
    failed = threading.Event()
    with ThreadPoolExecutor(options.jobs) as pool:
        list(pool.map(lambda precision: train(precision, options, failed), PRECISIONS))
    try:
        outcomes = {precision: outcome(precision, options) for precision in PRECISIONS}
        text = table(outcomes, options.jobs)
        write_bytes(options.figure, figure(outcomes))
        write_bytes(options.out / TABLE, text.encode())
    except DucklingError as error:
        sys.exit(str(error))
    print(f"\n{text}\n{options.figure} and {options.out / TABLE} written")


if __name__ == "__main__":
    main()
