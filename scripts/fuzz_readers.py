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
import random
import re
import resource
import shutil
import signal
import sys
import tempfile
import time
import traceback
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from scripts.fuzz_targets import TARGETS, Target

SECONDS = 10
MEMORY = 1 << 30
LONGEST_LINE = 1500
"""Characters of a refusal: it names a value, it does not print a file."""

HOSTILE = [
    *(b"null", b"true", b"-1", b"0", b"0.5", b"1e999", b"-1e999", b"NaN", b"Infinity", b"1" * 5000, b"9" * 19),
    *(b"18446744073709551616", b"[]", b"{}", b"[" * 2000, b'{"a":' * 2000, b'""', b'"\\ud800"', b'"\\u0000"', b'"x"'),
    *(b'"/etc/passwd"', b'"../../../etc/passwd"', b'"' + b"y" * 3000 + b'"', b'[{"a": [1]}]', b'{"a": {"b": 1}}'),
]
INTEGERS = [0, 1, -1, 0x7F, 0xFF, 0x7FFF, 0xFFFF, 0x7FFFFFFF, 0xFFFFFFFF, 1 << 62, (1 << 63) - 1, (1 << 64) - 1]
JSON_VALUE = re.compile(rb'"(?:[^"\\]|\\.)*"|-?\d[\d.eE+-]*|true|false|null')


def mutated(content: bytes, other: bytes, draw: random.Random) -> bytes:
    """Return the content after one to six mutations; `other` is spliced in now and then."""
    data = bytearray(content)
    for _ in range(draw.choice((1, 1, 1, 2, 3, 6))):
        draw.choice(MUTATIONS)(data, other, draw)
    return bytes(data)


def _flip(data: bytearray, other: bytes, draw: random.Random) -> None:
    if data:
        data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)


def _overwrite(data: bytearray, other: bytes, draw: random.Random) -> None:
    width = draw.choice((1, 2, 4, 8))
    place = draw.randrange(len(data) + 1)
    data[place : place + width] = (draw.choice(INTEGERS) % (1 << 8 * width)).to_bytes(width, "little")


def _cut(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    del data[start : start + draw.choice((1, 4, 64, len(data)))]


def _repeat(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(data) + 1)
    piece = data[start : start + draw.choice((1, 8, 100))]
    data[start:start] = piece * draw.choice((1, 2, 50))


def _splice(data: bytearray, other: bytes, draw: random.Random) -> None:
    start = draw.randrange(len(other) + 1)
    place = draw.randrange(len(data) + 1)
    data[place : place + draw.choice((0, 16))] = other[start : start + draw.choice((4, 40, 400))]


def _json_value(data: bytearray, other: bytes, draw: random.Random) -> None:
    found = list(JSON_VALUE.finditer(data[: 1 << 16]))
    if found:
        data[slice(*draw.choice(found).span())] = draw.choice(HOSTILE)


MUTATIONS: list[Callable[[bytearray, bytes, random.Random], None]] = [
    *(_flip, _overwrite, _cut, _repeat, _splice, _json_value)
]


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


def execute(target: Target, folder: Path, seed: int, number: int) -> tuple[str, str]:
    """Run one execution. Returns its kind (see Outcome) and, of a fault, what it was."""
    draw = random.Random(f"{target.name} {seed} {number}")
    seeds = target.seeds()
    chosen = draw.choice(sorted(seeds))
    content = mutated(seeds[chosen], seeds[draw.choice(sorted(seeds))], draw)
    return judge(target, folder, chosen, content)


def judge(target: Target, folder: Path, name: str, content: bytes) -> tuple[str, str]:
    """Let the target read the content in the place of its seed `name`. Returns as `execute` does."""
    from duckling_data.base.errors import DucklingError

    path = folder / name
    path.write_bytes(content)
    try:
        target.read(folder, name)
    except DucklingError as error:
        line = str(error)
        if "\n" in line or len(line) > LONGEST_LINE:
            return "fault", f"a refusal of {len(line)} characters, {len(line.splitlines())} lines: {line[:80]!r}"
        return "refused", ""
    except Exception as error:
        frames = traceback.extract_tb(error.__traceback__)
        place = next((f for f in reversed(frames) if "duckling_" in f.filename), frames[-1])
        return "fault", f"{type(error).__name__} in {Path(place.filename).name}:{place.lineno}: {str(error)[:80]}"
    finally:
        path.write_bytes(target.seeds()[name])
    return "read", ""


def put_seeds(target: Target, folder: Path) -> None:
    """Write the target's seeds into the folder and read them: they themselves must be fine."""
    target.warm(folder)
    for name, content in target.seeds().items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(content)
    target.read(folder, min(target.seeds()))


def bound_memory() -> None:
    """Let this process's address space grow by MEMORY and no more."""
    used = int(Path("/proc/self/statm").read_text().split()[0]) * os.sysconf("SC_PAGESIZE")
    resource.setrlimit(resource.RLIMIT_AS, (used + MEMORY, used + MEMORY))


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
