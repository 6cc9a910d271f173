"""Gives every reader of outside bytes mutated files: each is to be read, or refused in one line.

    python scripts/fuzz_readers.py --executions 20000          # so many a reader; one table line each
    python scripts/fuzz_readers.py --only parquet --keep DIR   # what crashed a reader lies in DIR afterwards

The seeds are real files of each kind, small. A mutation flips bits, cuts, repeats, overwrites integers, or puts a
hostile JSON value in the place of a value; it depends on `--seed` and the execution's number alone. Readers run in a
child process whose address space may grow by 1 GiB and whose every execution may take 10 seconds; a child that dies,
by a segmentation fault say, counts as a crash, and another goes on behind it. Exit status 1 if anything but a read or a
refusal came.
"""

from __future__ import annotations

import argparse
import json
import os
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.fuzz.mutate import SECONDS, bound_memory, execute, put_seeds
from tests.support.fuzz.targets import TARGETS, Target


@dataclass
class Outcome:
    """What became of a reader's executions."""

    counts: Counter[str] = field(default_factory=Counter)
    """`read`, `refused`, `fault`, `crash`, `hang`."""
    faults: Counter[str] = field(default_factory=Counter)
    """The faults by what was raised, and where."""
    slowest: float = 0.0
    """Seconds of the slowest execution."""
    peak: int = 0
    """Bytes that the child's memory grew by, at most."""


def child(target: Target, folder: Path, seed: int, numbers: range, report: int) -> None:
    """Run executions and write a line about each to the file descriptor `report`; never returns."""
    put_seeds(target, folder)
    bound_memory()
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    for number in numbers:
        os.write(report, f"{number}\n".encode())
        signal.alarm(SECONDS)
        begin = time.perf_counter()
        kind, fault = execute(target, folder, seed, number)
        signal.alarm(0)
        grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
        line = json.dumps([kind, fault, time.perf_counter() - begin, grown << 10])
        os.write(report, f"{line}\n".encode())
    os._exit(0)


def fuzz(target: Target, executions: int, seed: int, keep: Path | None) -> Outcome:
    """Run so many executions of one reader, in as many children as it takes."""
    outcome = Outcome()
    begin = 0
    while begin < executions:
        folder = Path(tempfile.mkdtemp(prefix="fuzz-"))
        reading, writing = os.pipe()
        process = os.fork()
        if process == 0:
            try:
                child(target, folder, seed, range(begin, executions), writing)
            except BaseException:
                traceback.print_exc()
            os._exit(1)
        os.close(writing)
        number = _collect(reading, outcome)
        _, status = os.waitpid(process, 0)
        if status and number is None:
            sys.exit(f"{target.name}: the reader fails on its own seeds")
        if status and number is not None:
            sign = os.WTERMSIG(status) if os.WIFSIGNALED(status) else 0
            outcome.counts["hang" if sign == signal.SIGALRM else "crash"] += 1
            outcome.faults[f"execution {number}: ended by signal {sign}"] += 1
            if keep:
                shutil.copytree(folder, keep / f"{target.name}-{seed}-{number}", dirs_exist_ok=True)
        begin = executions if not status else int(number or 0) + 1
        shutil.rmtree(folder)
    return outcome


def _collect(reading: int, outcome: Outcome) -> int | None:
    """Read a child's report. Returns the number of the last execution that it began."""
    number = None
    with os.fdopen(reading) as lines:
        for line in lines:
            value = json.loads(line)
            if isinstance(value, int):
                number = value
                continue
            kind, fault, seconds, grown = value
            outcome.counts[kind] += 1
            if fault:
                outcome.faults[f"{fault} (first: {number})" if fault not in outcome.faults else fault] += 1
            outcome.slowest, outcome.peak = max(outcome.slowest, seconds), max(outcome.peak, grown)
    return number


def main() -> None:
    """Fuzz every reader, or those named, and print the table."""
    parser = argparse.ArgumentParser(description="Fuzz every reader of outside bytes.")
    parser.add_argument("--executions", type=int, default=2000, help="of each reader")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", action="append", choices=[target.name for target in TARGETS])
    parser.add_argument("--keep", type=Path, help="a folder for what crashed a reader")
    arguments = parser.parse_args()
    print(f"{'reader':<12} {'executions':>10} {'read':>8} {'refused':>8} {'faults':>6} {'slowest s':>9} {'grew MB':>8}")
    bad = 0
    for target in TARGETS:
        if arguments.only and target.name not in arguments.only:
            continue
        outcome = fuzz(target, arguments.executions, arguments.seed, arguments.keep)
        counts = outcome.counts
        faults = counts["fault"] + counts["crash"] + counts["hang"]
        numbers = f"{counts.total():>10,} {counts['read']:>8,} {counts['refused']:>8,} {faults:>6,}"
        print(f"{target.name:<12} {numbers} {outcome.slowest:>9.2f} {outcome.peak / 1e6:>8.0f}", flush=True)
        for fault, times in outcome.faults.most_common(20):
            print(f"    {times:>6,} x {fault}")
        bad += faults
    sys.exit(1 if bad else 0)


if __name__ == "__main__":
    main()
