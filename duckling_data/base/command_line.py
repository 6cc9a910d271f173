"""Runs a click command as both of Duckling's programs do: every failure is one line and an exit status.

Ctrl-C and SIGTERM are raised in the main thread, so that what is half-written is removed. A program that is still
running GRACE seconds later, in a long computation or in a thread, is ended at once: what that leaves is what a kill
leaves, and the next command removes it. Only click and the standard library are imported here: `--help` is quick.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from functools import reduce
from types import FrameType
from typing import Any, NoReturn

import click

from duckling_data.base.errors import DucklingError, InputError, OutsideError, printable

Command = Callable[..., Any]
SIGNALLED = 128
"""A program that a signal ended has the exit status of this and the signal's number: 130 Ctrl-C, 143 SIGTERM."""
STOPS = {signal.SIGINT: "interrupted", signal.SIGTERM: "stopped by SIGTERM"}
"""The signals that ask a program to stop, and what it says then."""
GRACE = 0.7
"""Seconds that a program has to end by itself after such a signal."""
USERS_FAULT = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What the operating system says about a path that was chosen badly; all else is a failure outside (disk full, …)."""


class Stopped(KeyboardInterrupt):
    """A signal, whose number is the argument, asked the program to stop."""


def options(*given: Command) -> Callable[[Command], Command]:
    """Return a decorator that adds click options to a command, in the order given."""
    return lambda command: reduce(lambda made, one: one(made), reversed(given), command)


def run_command(
    command: click.Command, program: str, arguments: Sequence[str] | None = None, *, resume: str, prints: bool = True
) -> NoReturn:
    """Run the command and exit: 0 done, 1 a check failed, 2 the user's input, 3 outside, 130 Ctrl-C, 143 SIGTERM.

    `--debug` among the arguments adds the traceback to an error; `resume` says how to continue after a signal. A
    process that does not print ends with the status alone: one of several that run the same command.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    silent = threading.Lock()

    def say(message: str) -> None:
        # Once: where a signal ends the program, the main thread and the one that watches it may both want to.
        if silent.acquire(blocking=False) and prints:
            click.echo(f"{program}: {message}", err=True)

    def fail(message: str, status: int) -> NoReturn:
        if "--debug" in arguments:
            traceback.print_exc()
        say(message)
        sys.exit(status)

    def stop(number: int) -> str:
        return f"{STOPS[signal.Signals(number)]}; {resume}"

    with _heeding_signals(lambda number: say(stop(number))):
        try:
            # Not the command's own main: it prints a usage text around errors and a blank line on Ctrl-C.
            with command.make_context(program, list(arguments)) as context:  # click empties the list it is given
                command.invoke(context)
        except click.exceptions.Exit as request:
            sys.exit(request.exit_code)
        except (KeyboardInterrupt, click.Abort) as error:
            number = error.args[0] if isinstance(error, Stopped) else signal.SIGINT
            fail(stop(number), SIGNALLED + number)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            fail(printable(f"{error.format_message()} See {program} --help."), error.exit_code)
        except DucklingError as error:
            fail(str(error), error.exit_status)
        except OSError as error:
            status = InputError.exit_status if isinstance(error, USERS_FAULT) else OutsideError.exit_status
            fail(printable(f"{error.filename or 'input or output'}: {error.strerror or error}"), status)
        sys.exit(0)


@contextlib.contextmanager
def _heeding_signals(say: Callable[[int], None]) -> Iterator[None]:
    """Raise Stopped in the main thread at the first of STOPS; end the process at a second, or when GRACE is over.

    `say` is called with the signal's number in the latter case. A signal that is ignored (nohup) or handled elsewhere
    is left alone. Does nothing outside the main thread.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    received: list[int] = []

    def stop(number: int, _frame: FrameType | None) -> None:
        received.append(number)
        if len(received) > 1:
            os._exit(SIGNALLED + number)
        raise Stopped(number)

    def watch() -> None:
        # Woken by the signal itself: the handler above has to wait until the interpreter gets its turn again.
        while number := int.from_bytes(os.read(reader, 1)):
            if signal.getsignal(number) is stop:
                time.sleep(GRACE)
                say(number)
                os._exit(SIGNALLED + number)
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
