"""Commands killed at random moments and at every write, going on after each: `make soak` runs it.

    python scripts/soak_kill.py [--kills N] [--seed N] [--cases pack train record]

A third of the kills is of the pipeline, a third of a training, a third of one that records its embedding, up to four in
a row before the command is let through; then each case is killed right before each of its writes. The bytes at the end
must be those of an undisturbed run, every time. Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import random
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.fault.cases import faults_of_a_write, faults_of_kills, make_cases
from tests.support.fault.disk import KILL, Disk, compile_shim

IN_A_ROW = 4


def main() -> None:
    """Run the soak. Exit status 1 if any bytes differ."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=200, help="kills at random moments (default: 200)")
    parser.add_argument("--seed", type=int, default=0, help="seed of the moments (default: 0)")
    parser.add_argument("--every", type=int, default=1, help="kill at every N-th write; 0: none (default: 1)")
    parser.add_argument("--cases", nargs="*", default=("pack", "train", "record"), help="of these (default: all)")
    given = parser.parse_args()
    rng = random.Random(given.seed)
    done = broken = 0
    began = time.monotonic()

    def count(kills: int, faults: list[str]) -> None:
        nonlocal done, broken
        done, broken = done + kills, broken + len(faults)
        for fault in faults:
            print(f"  {fault}", flush=True)

    with tempfile.TemporaryDirectory() as scratch:
        shim = compile_shim(Path(scratch))
        if shim is None:
            sys.exit("soak_kill.py: needs Linux and a C compiler (cc)")
        with Disk(shim, Path(scratch)) as disk:
            whole = given.cases == parser.get_default("cases")
            cases = make_cases(Path(scratch), disk, *(() if whole else given.cases))
            while done < given.kills:
                name = given.cases[done * len(given.cases) // given.kills]
                kills = min(rng.randint(1, IN_A_ROW), given.kills - done)
                count(kills, faults_of_kills(disk, cases[name], rng, kills))
            print(f"{done} kills at random moments, {time.monotonic() - began:.0f} s", flush=True)
            for case in cases.values() if given.every else ():
                for at in range(1, case.writes + 1, given.every):
                    count(1, faults_of_a_write(disk, case, at, KILL, lasting=False))
    print(f"{done} kills, {broken} laws broken, {time.monotonic() - began:.0f} s")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
