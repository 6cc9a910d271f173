"""The runs of a sweep as Ray tasks: each task makes one run, or those that the fast engine trains at once.

A worker process makes many runs, one after the other, as starting a process that has torch takes seconds: the command
itself is called in it. A task that is run again resumes its runs from their checkpoints in the shared folder.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from types import FrameType
from typing import NoReturn

from duckling_data.base.errors import InputError
from duckling_data.base.executor import SIGNALS, Ended, last_line
from duckling_data.base.locks import beside, holder
from duckling_data.base.signals import SIGNALLED, STOPS, Stopped, heeding_signals
from duckling_train.config import naming_flags
from duckling_train.sweep.grid import Point
from duckling_train.sweep.plan import Sweep

PATIENCE = 30.0
"""Seconds that a run waits for a worker whose node was lost to end: it has the run's lock until then."""
POLL = 0.1


@dataclass(frozen=True)
class Make:
    """What a task does."""

    sweep: Sweep

    def __call__(self, points: tuple[Point, ...]) -> list[Ended]:
        """Make the points' runs in this process. Returns how each ended, as a process of its own would have."""
        for point in points:
            deadline = time.monotonic() + PATIENCE
            while holder(beside(self.sweep.run_dir(point))) is not None and time.monotonic() < deadline:
                time.sleep(POLL)
            self.sweep.clear(point)
        return [self._alone(points[0])] if len(points) == 1 else self._together(points)

    def _alone(self, point: Point) -> Ended:
        # By its name, as `python -m` has it in a local sweep: imports lead from the command to this module.
        main = importlib.import_module("duckling_train.cli").main
        said = io.StringIO()
        status = 0
        with contextlib.redirect_stderr(said):
            try:
                main(self.sweep.arguments(point))
            except SystemExit as request:
                status = int(request.code or 0)
        return Ended(status, last_line(said.getvalue()))

    def _together(self, points: tuple[Point, ...]) -> list[Ended]:
        from duckling_train.runs.many import train_many

        run_dirs = [self.sweep.run_dir(point) for point in points]
        try:
            with naming_flags(), heeding_signals(lambda number: None, lambda number, first: None):
                ends = train_many([point.config for point in points], self.sweep.workspace, run_dirs, quiet=True)
        except KeyboardInterrupt:
            return [Ended(SIGNALLED + signal.SIGINT, "interrupted")] * len(points)
        return [Ended(end.exit_status, str(end)) if isinstance(end, InputError) else Ended(0, "") for end in ends]


@contextlib.contextmanager
def raised_signals() -> Iterator[None]:
    """Raise KeyboardInterrupt at each of SIGNALS, Stopped at one of STOPS; ending the runs may take its time."""

    def stop(number: int, _frame: FrameType | None) -> NoReturn:
        raise Stopped(number) if number in STOPS else KeyboardInterrupt

    heeded = [number for number in SIGNALS if signal.getsignal(number) != signal.SIG_IGN]  # nohup has one ignored
    before = {number: signal.signal(number, stop) for number in heeded}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
