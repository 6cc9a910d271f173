"""Ctrl-C and SIGTERM: raised in the main thread, or noted until the program has kept what it has done.

They are raised so that what is half-written is removed. A program that is still running GRACE seconds later, in a long
computation or in a thread, is ended at once: what that leaves is what a kill leaves, and the next command removes it.
Where a program can keep its work, it holds the signals back (`held_stops`), ends at a place of its own, and may take
longer than that. A second signal ends it at once in either case.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from types import FrameType

SIGNALLED = 128
"""A program that a signal ended has the exit status of this and the signal's number: 130 Ctrl-C, 143 SIGTERM."""
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}
"""The signals that ask a program to stop, and what it says then."""
GRACE = 0.7
"""Seconds that a program has to end by itself after such a signal."""


class Stopped(KeyboardInterrupt):
    """A signal, whose number is the argument, asked the program to stop."""


@dataclass
class _State:
    first: str | None = None
    """What the program does before it heeds a signal; None: it heeds one at once."""
    noted: int | None = None
    """The signal that waits for that."""
    kept: str = ""


_state = _State()


def keep(text: str) -> None:
    """Set what is said after a signal from now on: what is kept, and how to go on."""
    _state.kept = text


def what_is_kept() -> str:
    """Return what was last given to `keep`; empty where nothing was."""
    return _state.kept


def noted_stop() -> int | None:
    """Return the number of the signal that `held_stops` holds back, or None."""
    return _state.noted


@contextlib.contextmanager
def held_stops(first: str) -> Iterator[None]:
    """Hold back a signal inside: it is noted, and raised at the end. `first` says what the program does before that.

    Only what runs under `heeding_signals` is held back. What is inside looks at `noted_stop` and raises Stopped itself.
    """
    _state.first = first
    try:
        yield
    finally:
        _state.first, noted, _state.noted = None, _state.noted, None
    if noted is not None:
        raise Stopped(noted)


@contextlib.contextmanager
def heeding_signals(say: Callable[[int], None], notice: Callable[[int, str], None]) -> Iterator[None]:
    """Raise Stopped in the main thread at the first of STOPS; end the process at a second, or when GRACE is over.

    `say` is called with the signal's number before the process is ended. Under `held_stops` the first is not raised,
    and when GRACE is over only `notice` is called, with its number and what is done first. A signal that is ignored
    (nohup) or handled elsewhere is left alone. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            return  # `watch` ends the process
        if _state.first is None:
            raise Stopped(number)
        _state.noted = number

    def watch() -> None:
        # Woken by the signal itself: the handler above has to wait until the interpreter gets its turn again.
        first: int | None = None
        patience: float | None = None
        while True:
            number = 0
            if select.select([reader], [], [], patience)[0]:
                number = int.from_bytes(os.read(reader, 1))
                if not number:
                    break
                if signal.getsignal(number) is not stop:
                    continue
                if first is None:
                    first, patience = number, GRACE
                    continue
            assert first is not None
            if not number and (doing := _state.first) is not None:
                notice(first, doing)
                patience = None
                continue
            say(number or first)
            os._exit(SIGNALLED + (number or first))
        os.close(reader)

    defaults = (signal.SIG_DFL, signal.default_int_handler)
    before = {number: signal.signal(number, stop) for number in STOPS if signal.getsignal(number) in defaults}
    reader, writer = os.pipe()
    os.set_blocking(writer, False)
    woken_before = signal.set_wakeup_fd(writer, warn_on_full_buffer=False)
    threading.Thread(target=watch, daemon=True).start()
    try:
        yield
    finally:
        signal.set_wakeup_fd(woken_before)
        os.close(writer)
        for number, handler in before.items():
            signal.signal(number, handler)
