"""Times measuring a record: dead rows that drift as in training; what a step costs, in all and by part.

`--steps 1000 --rows 2048 --width 128 --threads 2`. `--on-disk` records the rows first and measures the record, so that
decoding it is included; the default leaves that out.
"""

from __future__ import annotations

import argparse
import resource
import time
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from duckling_data.base.memory import keep_freed_memory
from duckling_train.dynamics import shape, values
from duckling_train.dynamics.arrays import dot
from duckling_train.dynamics.displacement import DEFAULT_CUTS
from duckling_train.dynamics.measure import COSTLY, Training, measure
from duckling_train.dynamics.snapshot import Move, Setting, Snapshot
from duckling_train.recording.record import Record
from duckling_train.recording.recorder import layout_of
from duckling_train.recording.writer import Writer
from tests.support.array_record import ArrayRecord, Drifting

TIMES = 10


def milliseconds(call: Callable[[], object]) -> float:
    """Return the CPU time of a call in ms, the least of three means."""
    call()
    best = float("inf")
    for _ in range(3):
        start = time.process_time()
        for _ in range(TIMES):
            call()
        best = min(best, (time.process_time() - start) / TIMES)
    return 1e3 * best


def parts(record: ArrayRecord, training: Training) -> dict[str, float]:
    """Return what the parts of a step cost, in ms of one core."""
    dead = np.asarray(record.dead)
    rates = np.array([np.nan, *(training.learning_rates or ())])
    setting = Setting(
        steps=record.steps, dead=dead, whole=False, first=record.W[0], rates=rates, weight_decay=0.01, beta2=0.999,
        costly=np.ones(len(record.steps), np.bool_), axes=None, cuts=DEFAULT_CUTS,
    )  # fmt: skip
    one, two, three = (Snapshot(setting, record.W[step]) for step in (1, 2, 3))
    last, move = Move(setting, one, two), Move(setting, two, three)
    _ = setting.start
    covariances = np.stack([shape.covariance(three.dead)] * 100)
    dead_rows = record.W[3]
    return {
        "float64, lattice, centroid": milliseconds(lambda: Snapshot(setting, record.W.start)),
        "displacement, norms, regimes": milliseconds(lambda: Move(setting, two, three)),
        "radius, memory": milliseconds(lambda: values.of_rows(setting, three)),
        "coherence, inertia, forces": milliseconds(lambda: values.of_move(setting, move, last, 3)),
        "inertia of each row": milliseconds(lambda: [dot(a.deviation, a.deviation) for a in (last, move, move)]),
        f"covariance, at up to {COSTLY} steps": milliseconds(lambda: shape.covariance(three.dead)),
        "black holes, components, likewise": milliseconds(lambda: values.of_groups(dead_rows)),
        "eigenvalues, 100 at once": milliseconds(lambda: shape.eigenvalues(covariances)) / 100,
    }


def recorded(record: ArrayRecord, width: int, folder: Path) -> Record:
    """Return the same rows as a record on disk."""
    layout = layout_of(len(record.rows), width, ["W"], bf16_weights=False, as_bf16=False, every=1, run="")
    writer = Writer(folder, layout)
    writer.create(record.rows, record.dead)
    for first, block in record.W.blocks():
        for number, rows in enumerate(block, first):
            writer.add(number, {"W": rows})
    writer.close()
    return Record.open(folder)


def main() -> None:
    """Print s per 1,000 steps, ms a step by part, and the peak of the memory."""
    parser = argparse.ArgumentParser(description=__doc__)
    for name, default in (("steps", 1000), ("rows", 2048), ("width", 128), ("threads", 2), ("block", 8)):
        parser.add_argument(f"--{name}", type=int, default=default)
    parser.add_argument("--on-disk", action="store_true")
    given = parser.parse_args()
    keep_freed_memory()  # as the command does
    steps, rows = np.arange(given.steps), np.arange(given.rows)
    record = ArrayRecord(
        steps, rows, np.ones(given.rows, np.bool_), Drifting(given.steps, given.rows, given.width, given.block)
    )
    training = Training(learning_rates=[1e-3] * given.steps, weight_decay=0.01)
    for part, cost in parts(record, training).items():
        print(f"{part:34} {cost:6.2f} ms")
    with TemporaryDirectory() as folder:
        of = recorded(record, given.width, Path(folder) / "record.zarr") if given.on_disk else record
        start, used = time.perf_counter(), time.process_time()
        measure(of, training, threads=given.threads)
        seconds, cpu = time.perf_counter() - start, time.process_time() - used
    print(f"{seconds * 1000 / given.steps:.2f} s per 1,000 steps on {given.threads} threads")
    print(f"{1e3 * cpu / given.steps:.2f} ms of one core a step")
    print(f"{resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MB at the peak")


if __name__ == "__main__":
    main()
