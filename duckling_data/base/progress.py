"""What a person sees while a stage works: lines and progress bars, on standard error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any


@dataclass
class Reporter:
    """Says what happens. `quiet` leaves errors only; bars show on a terminal only."""

    quiet: bool = False

    def say(self, line: str) -> None:
        """Print one line on standard error."""
        if not self.quiet:
            sys.stderr.write(f"{line}\n")  # in one piece: a signal may end the program right behind it
            sys.stderr.flush()

    def bar(self, what: str, total: int, unit: str) -> Any:
        """Return a progress bar (a tqdm, to be used in a `with`), drawn if it lasts more than half a second."""
        from tqdm import tqdm

        off = True if self.quiet else None  # None: off where standard error is no terminal
        look = {"unit": f" {unit}", "unit_scale": True, "delay": 0.5, "leave": False, "dynamic_ncols": True}
        return tqdm(total=total, desc=what, file=sys.stderr, disable=off, **look)
