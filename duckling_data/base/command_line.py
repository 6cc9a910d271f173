"""Runs a click command as both of Duckling's programs do: every failure is one line and an exit status.

Only click and the standard library are imported here: `--help` is quick.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
import signal
import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable, Mapping, Sequence
from functools import reduce
from typing import Any, NoReturn

import click

from duckling_data.base.errors import STRIPPED, CheckFailed, DucklingError, InputError, OutsideError, printable
from duckling_data.base.signals import SIGNALLED, STOPS, Stopped, heeding_signals, keep, what_is_kept

Command = Callable[..., Any]
USERS_FAULT = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What the operating system says about a path that was chosen badly; all else is a failure outside (disk full, …)."""


CONTEXT = {"help_option_names": ["-h", "--help"], "max_content_width": 110}
"""The `context_settings` of both programs."""


def flag(*names: str, help: str, **kwargs: Any) -> Command:
    """Return a click option that is off unless it is given."""
    return click.option(*names, is_flag=True, help=f"{help}  [default: off]", **kwargs)


def choice(choices: Sequence[str]) -> dict[str, Any]:
    """Return the attributes of an option that takes one of these values."""
    return {"type": click.Choice(choices), "metavar": "|".join(choices)}


QUIET = flag("-q", "--quiet", help="Print errors only.")
JSON = flag("--json", "as_json", help="Print JSON instead of text.")
DEBUG = flag("--debug", expose_value=False, help="Add the traceback to an error.")


class Grouped(click.Command):
    """A command whose help shows its options under headings: for each heading, their names in order.

    Those that have none, such as `--help`, are the last.
    """

    def __init__(self, *args: Any, headings: Mapping[str, Sequence[str]], **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        self.headings = headings

    def format_options(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Write a section for each heading, and one for the commands, if there are some."""
        found = ((option.name, option.get_help_record(ctx)) for option in self.get_params(ctx))
        rest = {name: record for name, record in found if record is not None}
        sections = {
            heading: [rest.pop(name) for name in names if name in rest] for heading, names in self.headings.items()
        }
        sections[[*sections][-1]].extend(rest.values())
        for heading, records in sections.items():
            if records:
                with formatter.section(heading):
                    formatter.write_dl(records)
        if isinstance(self, click.Group):
            self.format_commands(ctx, formatter)


class GroupedProgram(Grouped, click.Group):
    """A program with commands, whose own options are under headings."""


def options(*given: Command) -> Callable[[Command], Command]:
    """Return a decorator that adds click options to a command, in the order given."""
    return lambda command: reduce(lambda made, one: one(made), reversed(given), command)


def json_text(value: Any) -> str:
    """Return what a command with `--json` prints."""
    return json.dumps(value, indent=2, allow_nan=False)


def print_checks(lines: Iterable[str], *, as_json: bool, quiet: bool) -> None:
    """Print a line for each thing that holds: its name and what was found. Raises CheckFailed as `lines` does.

    With `as_json` all of them are one object, `{"ok": ..., "checks": [{"name": ..., "found": ...}], "faults": [...]}`,
    which is printed where a check fails, too.
    """
    checks, failed = [], None
    try:
        for line in lines:
            checks.append(dict(zip(("name", "found"), line.split(maxsplit=1), strict=True)))
            if not (as_json or quiet):
                click.echo(line)
    except CheckFailed as error:
        failed = error
    if as_json:
        click.echo(json_text({"ok": not failed, "checks": checks, "faults": str(failed).split("\n") if failed else []}))
    if failed:
        raise failed


PATIENCE = 20.0
"""Seconds that one of several processes which does not print waits after an error: where one ends, torchrun ends the
others at once, also the one that is about to say why. That one's end then ends the waiting."""


def run_command(
    command: click.Command, program: str, arguments: Sequence[str] | None = None, *, resume: str, prints: bool = True
) -> NoReturn:
    """Run the command and exit: 0 done, 1 a check failed, 2 the user's input, 3 outside, 130 Ctrl-C, 143 SIGTERM.

    `--debug` among the arguments adds the traceback to an error; `resume` says how to continue after a signal, where
    nothing better is known (`signals.keep`). A process that does not print ends with the status alone: one of several
    that run the same command. Called by a shell for its completion, it answers that and does nothing else.
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
        return f"{STOPS[signal.Signals(number)]}; {what_is_kept() or resume}"

    def interrupted(error: BaseException) -> NoReturn:
        number = error.args[0] if isinstance(error, Stopped) else signal.SIGINT
        fail(stop(number), SIGNALLED + number)

    def notice(number: int, first: str) -> None:
        if prints:
            click.echo(f"{program}: {STOPS[signal.Signals(number)]}; {first}; once more ends it at once", err=True)

    if sys.flags.optimize > 1:
        fail(STRIPPED, InputError.exit_status)
    variable = f"_{program}_COMPLETE".replace("-", "_").upper()
    if completing := os.environ.get(variable):
        from click.shell_completion import shell_complete

        if shell_complete(command, {}, program, variable, completing):
            fail(f"{variable} is {completing!r}; expected bash_source, zsh_source or fish_source", 2)
        sys.exit(0)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # a path may hold what cannot be printed, as with sys.stderr
    keep("")

    def run() -> NoReturn:
        try:
            # Not the command's own main: it prints a usage text around errors and a blank line on Ctrl-C.
            with command.make_context(program, list(arguments)) as context:  # click empties the list it is given
                command.invoke(context)
        except click.exceptions.Exit as request:
            sys.exit(request.exit_code)
        except (KeyboardInterrupt, click.Abort) as error:
            interrupted(error)
        except click.exceptions.NoArgsIsHelpError as error:
            click.echo(error.format_message(), err=True)
            sys.exit(error.exit_code)
        except click.ClickException as error:
            fail(printable(f"{error.format_message()} See {program} --help."), error.exit_code)
        except DucklingError as error:
            if not prints:
                with contextlib.suppress(KeyboardInterrupt):
                    time.sleep(PATIENCE)
            fail(str(error), error.exit_status)
        except OSError as error:
            status = InputError.exit_status if isinstance(error, USERS_FAULT) else OutsideError.exit_status
            fail(printable(f"{error.filename or 'input or output'}: {error.strerror or error}"), status)
        except UnicodeEncodeError as error:  # a name or a text from outside, where it is written
            around = ascii(error.object[max(error.start - 20, 0) : error.end + 20])
            fail(f"{around}: {error.encoding} cannot write it; use another name or text", InputError.exit_status)
        except MemoryError:
            fail("the memory is full; use smaller settings, or a machine with more", OutsideError.exit_status)
        sys.exit(0)

    try:
        with heeding_signals(lambda number: say(stop(number)), notice):
            run()
    except KeyboardInterrupt as error:  # it came while the handlers were set, or removed
        interrupted(error)
