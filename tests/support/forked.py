"""Runs of a command in processes of their own that start in milliseconds: forked from a server that has imported it.

What a test kills is a real process that ran the real command; only its imports were done before.
"""

from __future__ import annotations

import importlib
import multiprocessing
import os
import resource
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

from duckling_data.base.executor import Ended, Executor, Results
from tests.support import HANG

TRAINER = ["duckling_train.cli", "duckling_train.runs.train", "duckling_train.runs.resume"]
LATER = [
    "duckling_train.engines.reference.trainer",
    "duckling_data.tokens.tokenizer",
    "gigatoken",
    "matplotlib.backends.backend_agg",
    "matplotlib.figure",
]
"""What those import only when they need it."""
PRELOADED = ["tests.support.forked", *TRAINER, *LATER, "datasets"]
SERVER = multiprocessing.get_context("forkserver")
SERVER.set_forkserver_preload(PRELOADED)


def _run(module: str, arguments: list[str], output: str, file_limit: int | None) -> None:
    if file_limit is not None:
        resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit, file_limit))
    for number, name in ((1, "stdout"), (2, "stderr")):
        handle = os.open(f"{output}.{name}", os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        os.dup2(handle, number)
    sys.stdout = open(1, "w", buffering=1, closefd=False)  # noqa: SIM115
    sys.stderr = open(2, "w", buffering=1, closefd=False)  # noqa: SIM115
    importlib.import_module(module).main(arguments)


@dataclass
class Running:
    """A command under way; `output` is where its two streams go."""

    process: BaseProcess
    output: Path

    def wait(self) -> int:
        self.process.join(HANG)
        assert self.process.exitcode is not None, "the command hangs"
        return self.process.exitcode

    def kill(self, number: int = signal.SIGKILL) -> None:
        assert self.process.pid is not None
        os.kill(self.process.pid, number)

    def kill_when(self, reached: Callable[[], bool]) -> None:
        """Kill the command as soon as `reached` says so; it must not have ended before."""
        deadline = time.monotonic() + HANG
        while not reached():
            assert self.process.is_alive(), f"ended before it could be killed: {self.stderr}"
            assert time.monotonic() < deadline, "never came to the place where it is killed"
            time.sleep(0.0005)
        self.kill()
        self.wait()

    @property
    def stdout(self) -> str:
        return Path(f"{self.output}.stdout").read_text()

    @property
    def stderr(self) -> str:
        return Path(f"{self.output}.stderr").read_text()


def start(module: str, *arguments: str | Path, output: Path, file_limit: int | None = None) -> Running:
    """Start `module.main(arguments)` in a process of its own, in which no file grows beyond so many bytes."""
    given = (module, [str(argument) for argument in arguments], str(output), file_limit)
    process = SERVER.Process(target=_run, args=given)
    process.start()
    return Running(process, output)


def run(module: str, *arguments: str | Path, output: Path, file_limit: int | None = None) -> Running:
    """Start the command and wait for its end."""
    running = start(module, *arguments, output=output, file_limit=file_limit)
    running.wait()
    return running


def run_commands(_executor: Executor, commands: Iterable[list[str]], _keep_open: int) -> Results[Ended]:
    """Run commands of `duckling-train` as `base.executor.run_commands` does, one after the other and quickly."""
    for number, line in enumerate(commands):
        program, arguments = line[: line.index("duckling_train") + 1], line[line.index("duckling_train") + 1 :]
        assert program == [sys.executable, "-P", "-m", "duckling_train"]
        with tempfile.TemporaryDirectory() as folder:
            ran = run("duckling_train.cli", *arguments, output=Path(folder) / "said")
            assert ran.process.exitcode is not None
            yield number, Ended(ran.process.exitcode, (ran.stderr.splitlines() or [""])[-1])
