"""Flips every bit of every record of a workspace and a run, one at a time, and verifies each: `make soak` runs it.

Exit status 1 where any ends in what a user would see as a traceback.
"""

from __future__ import annotations

import sys
import tempfile
from collections import Counter
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))

from tests.support.flips import outcomes, targets


def main() -> int:
    """Flip them all; print how many of each record's flips were named, and every traceback."""
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        for root, names, verify in targets(Path(folder)).values():
            for name in (name for name in names if (root / name).is_file()):
                found: Counter[str] = Counter()
                for kind, said in outcomes(root, name, verify, range(8 * (root / name).stat().st_size)):
                    found[kind] += 1
                    if kind == "traceback":
                        print(f"{root.name}/{name}: {said}")
                failed += found["traceback"]
                told = ", ".join(f"{count:,} {kind}" for kind, count in sorted(found.items()))
                print(f"{root.name}/{name}: {found.total():,} bits: {told}", flush=True)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
