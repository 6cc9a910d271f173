"""Gives `duckling-data run` and `duckling-train` each disturbance alone: which one is it that moves a byte?

    python scripts/soak_determinism.py              # every one alone: some minutes
    python scripts/soak_determinism.py --only TZ    # those whose name holds TZ
    python scripts/soak_determinism.py --data       # the data alone

The tests (tests/test_determinism.py) join them into few processes. Exit status 1 if any byte moved.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.determinism.cases import ALONE, PLAIN
from tests.support.determinism.commands import digests, pack, put, run_digests, story_files, train
from tests.support.determinism.disturb import Disturbance, compile_readdir, turkish

LINE = "{:<44} {:>7} {:>8.1f}  {}"


def disturbances(folder: Path) -> list[Disturbance]:
    """Return every disturbance that this system has; what has to be compiled for one goes into the folder."""
    library, locale = compile_readdir(folder), turkish(folder)
    found = list(ALONE)
    if library:
        found.append(Disturbance("directories backwards", {"LD_PRELOAD": str(library)}))
    if locale:
        found.append(Disturbance("a Turkish 8-bit locale", locale))
    return found


def moved(expected: dict[str, str], found: dict[str, str]) -> str:
    """Return the names of the files that differ, or `the same`."""
    names = sorted(name for name in expected.keys() | found.keys() if expected.get(name) != found.get(name))
    return f"MOVED: {', '.join(names)}" if names else "the same"


def main() -> None:
    """Compare each disturbance with an undisturbed command, and print a line about each."""
    parser = argparse.ArgumentParser(description="Find what moves a byte.")
    parser.add_argument("--only", default="", help="a part of the disturbances' names")
    parser.add_argument("--data", action="store_true", help="without training")
    arguments = parser.parse_args()
    programs = ("data",) if arguments.data else ("data", "train")
    failed = False
    with tempfile.TemporaryDirectory() as scratch:
        plain = put(Path(scratch) / "plain" / "stories", story_files()).parent
        pack(plain, PLAIN)
        expected = {"data": digests(plain / "w")}
        if "train" in programs:
            train(plain / "w", plain / "training", PLAIN)
            expected["train"] = run_digests(plain / "training" / "run")
        chosen = [case for case in disturbances(Path(scratch)) if arguments.only in case.name]
        for number, case in enumerate(chosen):
            for program in programs:
                begin = time.monotonic()
                place = Path(scratch) / f"{program}-{number}"
                if program == "data":
                    put(place / "stories", story_files())
                    pack(place, case)
                    found = digests(place / "w")
                else:
                    train(plain / "w", place, case)
                    found = run_digests(place / "run")
                result = moved(expected[program], found)
                failed |= result != "the same"
                print(LINE.format(case.name, program, time.monotonic() - begin, result), flush=True)
    sys.exit(1 if failed else 0)


if __name__ == "__main__":
    main()
