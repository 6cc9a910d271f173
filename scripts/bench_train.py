"""Times `duckling-train` beside the seed's bare notebook cells: the trainer's own overhead, and the data path alone.

The two train the same model on the same workspace, in turn, each in a fresh process with its default settings, the one
that goes first changing from round to round. Of both, the training loop is clocked by the same callback, from the start
of the Trainer's loop to the end of its last step: imports, set-up, and what duckling-train writes and evaluates
afterwards are not in it. The whole process is timed, too, and there they are. Figures are medians over the rounds; the
ratio is the median of the rounds' ratios, so that a machine that slows down does not count for one side. On a machine
that others use as well, the loop's CPU time with --threads 1 is the figure to look at.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parent.parent
SEED, OURS, DATA = "seed", "ours", "data"
LABELS = {SEED: "the seed's cells", OURS: "duckling-train"}
FILES = ("token_mapping.json", "tokenized_dataset")
BATCH = 2
REPEATS = 5


def run_child(kind: str, workspace: Path, steps: int, threads: int | None) -> dict[str, float]:
    """Run one side in a process of its own. Returns what it printed, and `process_seconds`, imports included."""
    with tempfile.TemporaryDirectory() as scratch:
        command = [sys.executable, __file__, "--child", kind, "--workspace", str(workspace), "--steps", str(steps)]
        environment = {**os.environ, **({"OMP_NUM_THREADS": str(threads)} if threads else {})}
        began = time.perf_counter()
        done = subprocess.run(
            [*command, "--scratch", scratch], capture_output=True, text=True, check=False, env=environment
        )
        seconds = time.perf_counter() - began
    if done.returncode:
        sys.exit(f"{kind} failed:\n{done.stderr}")
    return {**json.loads(done.stdout.splitlines()[-1]), "process_seconds": seconds}


def clock_every_trainer() -> dict[str, float]:
    """Give each Trainer made from now on a clock. Returns the dict that gets `loop_seconds` and `cpu_seconds`."""
    import torch
    from transformers import Trainer, TrainerCallback

    times: dict[str, float] = {}
    made = Trainer.__init__

    class Clock(TrainerCallback):
        def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            self.began, self.cpu_began = time.perf_counter(), time.process_time()

        def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
            if state.global_step == state.max_steps:
                if torch.cuda.is_available():
                    torch.cuda.synchronize()
                times["loop_seconds"] = time.perf_counter() - self.began
                times["cpu_seconds"] = time.process_time() - self.cpu_began

    def init(self: Any, *args: Any, **kwargs: Any) -> None:
        made(self, *args, **kwargs)
        self.callback_handler.callbacks.insert(0, Clock())  # first: the last step's evaluation comes after it

    Trainer.__init__ = init
    return times


def seed_folder(workspace: Path, scratch: Path) -> Path:
    """Return a folder in which the seed's cells find the workspace's two files and may write."""
    for name in FILES:
        (scratch / name).symlink_to((workspace / name).resolve())
    return scratch


def seed_child(workspace: Path, steps: int, scratch: Path) -> dict[str, float]:
    """Train by the seed's cells, here. Returns loop seconds and the last logged loss."""
    from tests.support import seed_cells

    times = clock_every_trainer()
    folder = seed_folder(workspace, scratch)
    losses, _, _ = seed_cells.train(seed_cells.run_all_cells(folder), folder, steps)
    return {**times, "last_loss": losses[-1]}


def our_child(workspace: Path, steps: int, scratch: Path) -> dict[str, float]:
    """Train by duckling-train, here. Returns loop seconds and the last logged loss."""
    times = clock_every_trainer()
    from duckling_train.config import TrainConfig
    from duckling_train.runs.train import train

    summary = train(TrainConfig(steps=steps), workspace, scratch / "run", quiet=True)
    return {**times, "last_loss": summary["last_loss"]}


def data_child(workspace: Path, batches: int, scratch: Path) -> dict[str, float]:
    """Time the data path here. Returns µs a batch: rows and collator alone, and as steps of a shuffling DataLoader."""
    import numpy as np
    from torch.utils.data import DataLoader

    from duckling_train.config import TrainConfig
    from duckling_train.data import open_workspace
    from duckling_train.engines.reference.engine import CausalLMCollator
    from tests.support import seed_cells

    cells = seed_cells.run_data_cells(seed_folder(workspace, scratch))
    rows = open_workspace(workspace, TrainConfig()).rows
    pairs = np.random.default_rng(0).integers(len(rows), size=(batches, BATCH)).tolist()
    figures = {}
    for kind, dataset, collate in ((SEED, cells["dataset"], cells["collator"]), (OURS, rows, CausalLMCollator())):
        loader = DataLoader(dataset, batch_size=BATCH, shuffle=True, collate_fn=collate)

        def collated(dataset: Any = dataset, collate: Callable[[Any], Any] = collate) -> int:
            for pair in pairs:
                collate([dataset[index] for index in pair])
            return len(pairs)

        def loaded(loader: Any = loader) -> int:
            return sum(1 for _, _batch in zip(range(batches), loader, strict=False))

        figures[f"{kind}_rows"] = microseconds(collated)
        figures[f"{kind}_loader"] = microseconds(loaded)
    return figures


def microseconds(work: Callable[[], int]) -> float:
    """Return the median µs for each of the things that `work` says it did, after a first run that warms up."""
    work()
    figures = []
    for _ in range(REPEATS):
        began = time.perf_counter()
        count = work()
        figures.append((time.perf_counter() - began) / count * 1e6)
    return statistics.median(figures)


def progress(line: str) -> None:
    """Say on standard error how far it is."""
    print(line, file=sys.stderr, flush=True)


def main() -> None:
    """Run the benchmark and print its tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    parser.add_argument("--workspace", type=Path, default=Path("artifacts/demo"), help="where the two files are")
    parser.add_argument("--rounds", type=int, default=5, help="runs of each side")
    parser.add_argument("--steps", type=int, default=60, help="optimizer steps a run")
    parser.add_argument("--threads", type=int, metavar="N", help="CPU threads of both; None is torch's own number")
    parser.add_argument("--batches", type=int, default=1000, help=f"batches of {BATCH} rows for the data path")
    parser.add_argument("--child", choices=(SEED, OURS, DATA), help=argparse.SUPPRESS)
    parser.add_argument("--scratch", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.child:
        sys.path.insert(0, str(ROOT))
        child = {SEED: seed_child, OURS: our_child, DATA: data_child}[options.child]
        print("\n" + json.dumps(child(options.workspace, options.steps, options.scratch)))
        return
    if missing := [name for name in FILES if not (options.workspace / name).exists()]:
        sys.exit(f"no {' and no '.join(missing)} in {options.workspace}: make demo makes artifacts/demo")
    rounds = []
    for number in range(options.rounds):
        order = (SEED, OURS) if number % 2 == 0 else (OURS, SEED)
        measured = {kind: run_child(kind, options.workspace, options.steps, options.threads) for kind in order}
        rounds.append(measured)
        speeds = ", ".join(f"{LABELS[kind]} {steps_per_second(measured[kind], options.steps):.2f}" for kind in LABELS)
        progress(f"round {number + 1} of {options.rounds}, steps/s: {speeds}")
    progress("the data path ...")
    data = run_child(DATA, options.workspace, options.batches, options.threads)
    print(training_table(rounds, options.steps))
    print(data_table(data))


def steps_per_second(measured: dict[str, float], steps: int) -> float:
    """Return the speed of the training loop."""
    return steps / measured["loop_seconds"]


def training_table(rounds: list[dict[str, dict[str, float]]], steps: int) -> str:
    """Return the comparison of the two sides as Markdown, one line of JSON after it."""

    def medians(figure: Callable[[dict[str, float]], float]) -> tuple[float, float, float]:
        """Medians of both sides, and of the rounds' ratios of ours to the seed's."""
        pairs = [(figure(measured[SEED]), figure(measured[OURS])) for measured in rounds]
        ratio = statistics.median(ours / seed for seed, ours in pairs)
        return statistics.median(seed for seed, _ in pairs), statistics.median(ours for _, ours in pairs), ratio

    speed = medians(lambda measured: steps_per_second(measured, steps))
    cpu = medians(lambda measured: measured["cpu_seconds"] / steps * 1e3)
    process = medians(lambda measured: measured["process_seconds"])
    losses = {kind: {measured[kind]["last_loss"] for measured in rounds} for kind in LABELS}
    same = "the same" if losses[SEED] == losses[OURS] and len(losses[SEED]) == 1 else "NOT THE SAME"
    figures = {
        "cores": os.cpu_count(),
        "rounds": len(rounds),
        "steps": steps,
        "steps_per_second": [round(value, 3) for value in speed],
        "cpu_ms_per_step": [round(value, 2) for value in cpu],
        "process_seconds": [round(value, 2) for value in process],
        "round_ratios": [round(steps_per_second(r[OURS], steps) / steps_per_second(r[SEED], steps), 3) for r in rounds],
        "last_loss": {kind: sorted(values) for kind, values in losses.items()},
    }
    lines = [
        f"Medians of {len(rounds)} rounds of {steps} steps; last logged loss: {same} on both sides.",
        "",
        f"| | {LABELS[SEED]} | {LABELS[OURS]} | ratio |",
        "|---|---|---|---|",
        f"| training loop, steps/s | {speed[0]:.2f} | {speed[1]:.2f} | {speed[2]:.3f} |",
        f"| training loop, CPU ms a step | {cpu[0]:.1f} | {cpu[1]:.1f} | {cpu[2]:.3f} |",
        f"| whole process, s | {process[0]:.1f} | {process[1]:.1f} | {process[2]:.3f} |",
        "",
        json.dumps(figures),
        "",
    ]
    return "\n".join(lines)


def data_table(data: dict[str, float]) -> str:
    """Return the figures of the data path as Markdown."""
    lines = [
        f"| a batch of {BATCH} rows, µs | datasets.Dataset of lists, the seed's collator | PackedRows, ours | ratio |",
        "|---|---|---|---|",
    ]
    for name, label in (("rows", "rows and collator"), ("loader", "a step of a shuffling DataLoader")):
        seed, ours = data[f"{SEED}_{name}"], data[f"{OURS}_{name}"]
        lines.append(f"| {label} | {seed:.1f} | {ours:.1f} | {ours / seed:.3f} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
