"""A disk that fails at every write in turn, full (ENOSPC, lasting) or faulty (EIO, once): `make soak` runs it.

    python scripts/soak_disk.py [--every N] [--cases pack repack report train]

Of each case (see tests/support/fault/cases.py) every write, or every N-th, fails once in each way. After it the command
must have said so in one line, `verify` find nothing wrong, and the next command end in the bytes of an undisturbed run.
Needs Linux and a C compiler.
"""

from __future__ import annotations

import argparse
import errno
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.fault.cases import faults_of_a_write, make_cases
from tests.support.fault.disk import Disk, compile_shim


def main() -> None:
    """Run the soak. Exit status 1 if any law is broken, 3 where there is no C compiler."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--every", type=int, default=1, help="fail every N-th write only (default: 1, all)")
    parser.add_argument("--cases", nargs="*", default=(), help="only these cases (default: all)")
    given = parser.parse_args()
    broken = tried = 0
    began = time.monotonic()
    with tempfile.TemporaryDirectory() as scratch:
        shim = compile_shim(Path(scratch))
        if shim is None:
            sys.exit("soak_disk.py: needs Linux and a C compiler (cc)")
        with Disk(shim, Path(scratch)) as disk:
            for case in make_cases(Path(scratch), disk, *given.cases).values():
                print(f"{case.name}: {case.writes} writes", flush=True)
                for at in range(1, case.writes + 1, given.every):
                    for error, lasting in ((errno.ENOSPC, True), (errno.EIO, False)):
                        tried += 1
                        for fault in faults_of_a_write(disk, case, at, error, lasting=lasting):
                            broken += 1
                            print(f"  {errno.errorcode[error]}: {fault}", flush=True)
    print(f"{tried} faults, {broken} laws broken, {time.monotonic() - began:.0f} s")
    sys.exit(1 if broken else 0)


if __name__ == "__main__":
    main()
