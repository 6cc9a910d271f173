"""Runs a click command as both of Duckling's programs do: every failure is one line and an exit status.

Only click and the standard library are imported here, so that `--help` answers at once.
"""

from __future__ import annotations

import sys
import traceback
from collections.abc import Sequence
from typing import NoReturn

import click

from duckling_data.errors import DucklingError, InputError, OutsideError

INTERRUPTED = 130
USERS_FAULT = (PermissionError, FileNotFoundError, FileExistsError, IsADirectoryError, NotADirectoryError)
"""What the operating system says about a path that was chosen badly; all else is a failure outside (disk full, …)."""


def run_command(
    command: click.Command, program: str, arguments: Sequence[str] | None = None, *, go_on: str, speaks: bool = True
) -> NoReturn:
    """Run the command and exit: 0 done, 1 a check failed, 2 the user's input, 3 something outside, 130 interrupted.

    `--debug` among the arguments adds the traceback to an error; `go_on` says how to go on after Ctrl-C. Of several
    processes that run the same command one `speaks`; the others end with the status alone.
    """
    arguments = list(sys.argv[1:] if arguments is None else arguments)

    def fail(message: str, status: int) -> NoReturn:
        if "--debug" in arguments:
            traceback.print_exc()
        if speaks:
            click.echo(f"{program}: {message}", err=True)
        sys.exit(status)

    try:
        # Not the command's own main: it prints a usage text around errors and a blank line on Ctrl-C.
        with command.make_context(program, list(arguments)) as context:  # click empties the list it is given
            command.invoke(context)
    except click.exceptions.Exit as request:
        sys.exit(request.exit_code)
    except (KeyboardInterrupt, click.Abort):
        fail(f"interrupted; {go_on}", INTERRUPTED)
    except click.exceptions.NoArgsIsHelpError as error:
        click.echo(error.format_message(), err=True)
        sys.exit(error.exit_code)
    except click.ClickException as error:
        fail(f"{error.format_message()} See {program} --help.", error.exit_code)
    except DucklingError as error:
        fail(str(error), error.exit_status)
    except OSError as error:
        status = InputError.exit_status if isinstance(error, USERS_FAULT) else OutsideError.exit_status
        fail(f"{error.filename or 'input or output'}: {error.strerror or error}", status)
    sys.exit(0)
