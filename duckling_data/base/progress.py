"""What a person sees while a stage works: lines and progress bars, on standard error."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any, Self

BAR = "{desc} {percentage:3.0f}%|{bar}| {n_fmt}/{total_fmt}{unit} [{elapsed}<{remaining}, {rate_noinv_fmt}{postfix}]"
"""How a bar looks; a unit that is a word begins with a space."""


def nothing(_amount: int) -> None:
    """Show no progress: what a reader of much takes as `done` unless it is given a bar's `update`."""


class NoBar:
    """A bar that is not shown. tqdm's own would be imported for nothing."""

    n = 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def update(self, _amount: int = 1) -> None:
        """Show nothing."""


@dataclass(frozen=True)
class Reporter:
    """Says what happens. `quiet` leaves errors only; bars show on a terminal only."""

    quiet: bool = False

    def say(self, line: str) -> None:
        """Print one line on standard error."""
        if not self.quiet:
            sys.stderr.write(f"{line}\n")  # in one piece: a signal may end the program right behind it
            sys.stderr.flush()

    def bar(self, what: str, total: int, unit: str) -> Any:
        """Return a progress bar (a tqdm, to be used in a `with`), drawn if it lasts more than half a second.

        `unit` is "B", shown as MB, or a word.
        """
        if self.quiet or not sys.stderr.isatty():
            return NoBar()
        from tqdm import tqdm

        look = {"bar_format": BAR, "unit": unit if unit == "B" else f" {unit}", "unit_scale": True}
        look |= {"delay": 0.5, "leave": False, "dynamic_ncols": True}
        return tqdm(total=total, desc=what, file=sys.stderr, **look)


SILENT = Reporter(quiet=True)
