"""Signals to a program that holds them back: the first is honoured when it is ready, a second one at once."""

from __future__ import annotations

import signal
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import HANG

PROGRAM = """
import os, sys, time
import click
from duckling_data.base.command_line import run_command
from duckling_data.base.signals import held_stops, keep, noted_stop

@click.command()
@click.argument("until")
def work(until):
    keep("half of it is kept")
    with held_stops("it ends after this step"):
        print("begun", flush=True)
        while not (os.path.exists(until) and noted_stop()):
            time.sleep(0.01)
        keep("all of it is kept")
    print("never printed", flush=True)

run_command(work, "work", resume="call again")
"""


@pytest.mark.parametrize(("number", "word"), [(signal.SIGINT, "interrupted"), (signal.SIGTERM, "stopped by SIGTERM")])
@pytest.mark.parametrize("twice", [False, True])
def test_a_first_signal_waits_for_the_program_and_a_second_does_not(
    tmp_path: Path, number: signal.Signals, word: str, twice: bool
) -> None:
    ready = tmp_path / "ready"
    work = subprocess.Popen(
        [sys.executable, "-c", PROGRAM, str(ready)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    assert work.stdout is not None
    assert work.stderr is not None
    assert work.stdout.readline() == "begun\n"
    work.send_signal(number)
    # It is longer at work than a program that holds nothing back may be, and says what it waits for.
    assert work.stderr.readline() == f"work: {word}; it ends after this step; once more ends it at once\n"
    if twice:
        work.send_signal(number)
    else:
        ready.touch()
    out, err = work.communicate(timeout=HANG)
    kept = "half of it is kept" if twice else "all of it is kept"
    assert (work.returncode, out, err) == (128 + number, "", f"work: {word}; {kept}\n")


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_while_the_handlers_are_set_ends_in_one_line(tmp_path: Path, number: signal.Signals) -> None:
    early = (
        f"import os, signal; made = os.pipe\ndef pipe():\n    os.kill(os.getpid(), {int(number)})\n    return made()\n"
    )
    program = f"{early}os.pipe = pipe\nfrom duckling_data.cli import main\nmain(['status', '-w', {str(tmp_path)!r}])"
    ended = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, timeout=HANG)
    assert (ended.returncode, ended.stderr.count("\n"), "Traceback" in ended.stderr) == (128 + number, 1, False)


def test_a_process_that_does_not_print_waits_for_the_one_that_says_why() -> None:
    program = """
import sys, click
from duckling_data.base.command_line import run_command
from duckling_data.base.errors import InputError

@click.command()
def work():
    print("begun", flush=True)
    raise InputError("not so")

run_command(work, "work", [], resume="call again", prints=False)
"""
    pipe = subprocess.PIPE
    process = subprocess.Popen([sys.executable, "-c", program], stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None
    assert process.stdout.readline() == "begun\n"
    with pytest.raises(subprocess.TimeoutExpired):
        process.wait(timeout=1)
    process.send_signal(signal.SIGTERM)  # as torchrun does when another one has ended
    assert process.communicate(timeout=HANG)[1] == ""
    assert process.returncode == 2
