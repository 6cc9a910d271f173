"""Times recording and reading: what a record costs a training, how small it is, and how fast it reads.

    python scripts/bench_record.py cost --workspace DIR [--engine fast] [--record dead]
    python scripts/bench_record.py read RUN/record.zarr

`cost` trains once; windows of steps with the recorder and without it take turns, each with one ends when all that it
recorded is on disk, and a ratio is the median over the pairs of windows. `read` reads steps and rows at random.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import tempfile
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from duckling_train.config import PRECISIONS, TrainConfig  # noqa: E402
from duckling_train.data import open_workspace  # noqa: E402
from duckling_train.engines import load_engine  # noqa: E402
from duckling_train.engines.base import Hook, Job, StepView  # noqa: E402
from duckling_train.recording.record import Record  # noqa: E402
from duckling_train.recording.recorder import Recording  # noqa: E402
from duckling_train.runs.recorded import dead_ids  # noqa: E402


class Alternating(Hook):
    """Passes windows of steps on to a recorder, every other one, and times them all."""

    def __init__(self, recording: Recording, window: int) -> None:
        self.recording, self.window = recording, window
        self.seconds: dict[bool, list[float]] = {False: [], True: []}
        self.cpu: dict[bool, list[float]] = {False: [], True: []}
        self.needs = recording.needs

    def on(self, step: int) -> bool:
        """Whether the step is in a window that is recorded."""
        return bool((step - 1) // self.window % 2)

    def needs_at(self, step: int) -> frozenset[str]:
        """Return what the recorder needs."""
        return self.needs if self.on(step) else frozenset()

    def begin(self, view: StepView) -> None:
        """Begin the record."""
        self.recording.begin(view)
        self.recording.save()
        self._mark()

    def _mark(self) -> None:
        self._since, self._cpu_since = time.perf_counter(), time.process_time()

    def step(self, view: StepView) -> None:
        """Record the step where it is the recorder's turn."""
        on = self.on(view.step)
        if on:
            self.recording.step(view)
        if view.step % self.window == 0:
            if on:
                self.recording.save()
            self.seconds[on].append((time.perf_counter() - self._since) / self.window)
            self.cpu[on].append((time.process_time() - self._cpu_since) / self.window)
            self._mark()

    def end(self, view: StepView) -> None:
        """End the record."""
        self.recording.end(view)


def cost(given: argparse.Namespace) -> None:
    """Print what recording costs."""
    engine = load_engine(given.engine)
    steps = given.window * 2 * (given.pairs + 1)
    config = engine.checked(
        TrainConfig(engine=given.engine, steps=steps, precision=given.precision, device="cpu", eval_rows=0)
    )
    data = open_workspace(given.workspace, config)
    with tempfile.TemporaryDirectory() as folder:
        recording = Recording(
            Path(folder) / "record.zarr", dead_ids(data.mapping), given.record, tensors=given.tensors.split(",")
        )
        hook = Alternating(recording, given.window)
        engine.fit([Job(config, engine.build(config), data.rows, Path(folder))], [[hook]])
    seconds = {on: times[1:] for on, times in hook.seconds.items()}  # the first pair warms up
    cpu = {on: times[1:] for on, times in hook.cpu.items()}
    ratios = [on / off for on, off in zip(seconds[True], seconds[False], strict=True)]
    low, high = np.quantile(ratios, [0.25, 0.75])
    off, on = (statistics.median(seconds[each]) * 1e3 for each in (False, True))
    print(
        f"{given.engine}, {given.precision}, {given.record} ({given.tensors}): {off:.1f} ms a step, recorded {on:.1f}: "
        f"{statistics.median(ratios) - 1:+.1%} (quartiles {low - 1:+.1%} to {high - 1:+.1%} of {len(ratios)} pairs); "
        f"CPU {(statistics.median(cpu[True]) - statistics.median(cpu[False])) * 1e3:+.1f} ms a step"
    )


def read(given: argparse.Namespace) -> None:
    """Print how fast a record reads."""
    began = time.perf_counter()
    record = Record.open(given.path)
    print(f"open: {(time.perf_counter() - began) * 1e3:.1f} ms, {len(record.steps):,} steps, {len(record.rows):,} rows")
    size = sum(path.stat().st_size for path in Path(given.path).rglob("*") if path.is_file())
    raw = record.layout.step_bytes() * len(record.steps)
    print(f"{raw / 1e9:.2f} GB of numbers in {size / 1e9:.2f} GB: {raw / size:.2f} times smaller")
    rng = np.random.default_rng(0)

    def timed(what: str, one: object, numbers: np.ndarray) -> None:
        taken = []
        for number in numbers:
            began = time.perf_counter()
            one(int(number))  # type: ignore[operator]
            taken.append((time.perf_counter() - began) * 1e3)
        print(f"{what}: median {statistics.median(taken):.1f} ms, at most {max(taken):.1f} ms of {len(taken)}")

    timed("a step", lambda number: record.W[number], rng.integers(0, len(record.steps), 50))
    timed("a row, all steps", lambda number: record.W.row(number), rng.choice(record.rows, 20))
    began, cpu, count = time.perf_counter(), time.process_time(), 0
    for _, block in record.W.blocks(0, 2000):
        count += len(block)
    wall, used = time.perf_counter() - began, time.process_time() - cpu
    print(f"all steps in order: {wall / count * 1e3:.2f} ms a step ({used / count * 1e3:.2f} ms of CPU)")


def main() -> None:
    """Measure."""
    parser = argparse.ArgumentParser(
        description=__doc__.splitlines()[0], formatter_class=argparse.ArgumentDefaultsHelpFormatter
    )
    commands = parser.add_subparsers(required=True)
    costs = commands.add_parser("cost", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    costs.add_argument("--workspace", type=Path, default=Path("artifacts/demo"), help="where the rows are")
    costs.add_argument("--engine", choices=("fast", "reference"), default="fast", help="what trains")
    costs.add_argument("--precision", choices=PRECISIONS, default="bf16-mixed", help="of the training")
    costs.add_argument("--record", default="dead", help="rows")
    costs.add_argument("--tensors", default="W", help="what is recorded")
    costs.add_argument("--window", type=int, default=64, help="steps of a window")
    costs.add_argument("--pairs", type=int, default=5, help="pairs of windows, after one that warms up")
    costs.set_defaults(run=cost)
    reads = commands.add_parser("read", formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    reads.add_argument("path", type=Path, help="a record.zarr")
    reads.set_defaults(run=read)
    given = parser.parse_args()
    given.run(given)


if __name__ == "__main__":
    os.environ.setdefault("HF_HUB_OFFLINE", "1")
    main()
