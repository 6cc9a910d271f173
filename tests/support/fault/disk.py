"""Commands that meet a fault: a disk that fails at their n-th write (`shim.c`), or a signal at some moment.

`Disk` starts a server with the shim preloaded and everything imported; each command is a fork of it. As a program
this file is that server: JSON lines in, JSON lines out.
"""

from __future__ import annotations

import contextlib
import ctypes
import importlib
import json
import os
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Any, Self

from tests.support import HANG

ROOT = Path(__file__).parents[3]
SHIM = Path(__file__).with_name("shim.c")
PRELOADED = (
    "duckling_data.pipeline",
    "duckling_data.stages.report.plots",
    "duckling_train.runs.resume",
    "duckling_train.engines.reference.trainer",
    "datasets",
    "gigatoken",
)
KILL = -1
"""In the place of an errno: the process is killed right before the call."""


def compile_shim(folder: Path) -> Path | None:
    """Return the compiled shim, as `compile_preload` does."""
    return compile_preload(SHIM, folder)


def compile_preload(source: Path, folder: Path) -> Path | None:
    """Return a C source compiled for LD_PRELOAD, or None where it cannot be: no Linux, or no C compiler."""
    compiler = shutil.which("cc")
    if compiler is None or not sys.platform.startswith("linux"):
        return None
    library = folder / f"{source.stem}.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-O1", "-o", str(library), str(source), "-ldl"], check=True)
    return library


@dataclass(frozen=True)
class Done:
    """How a command ended."""

    status: int
    """Its exit status; -N after signal N."""
    writes: int
    """The calls that write under the folder."""
    failed: str
    """The call that failed and its path, as `rename /w/manifest.json`; empty if none did."""
    seconds: float
    """From its start to its end, or from the signal that it was sent."""
    stderr: str


class Disk:
    """Runs commands one after the other, each with its fault; used in a `with`."""

    def __init__(self, shim: Path, scratch: Path) -> None:
        self._output = scratch / "output"
        threads = {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
        self._server = subprocess.Popen(
            [sys.executable, str(Path(__file__))], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
            cwd=scratch, env=os.environ | threads | {"LD_PRELOAD": str(shim)},
        )  # fmt: skip

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        assert self._server.stdin is not None
        self._server.stdin.close()
        self._server.wait(HANG)

    def run(
        self, command: list[str], folder: Path, at: int = 0, error: int = 0, *, lasting: bool = False,
        number: int = 0, after: float = 0.0,
    ) -> Done:  # fmt: skip
        """Run `command` (a module with a `main`, then its arguments); its write number `at` under `folder` fails.

        `error` is an errno, or KILL. `lasting`: every write after that fails as well. With `at` 0 nothing fails.
        The signal `number`, if any, is sent `after` so many seconds, unless it has ended by then.
        """
        assert self._server.stdin is not None
        assert self._server.stdout is not None
        asked = {"command": command, "folder": f"{folder}/", "at": at, "error": error, "lasting": lasting,
                 "number": number, "after": after, "output": str(self._output)}  # fmt: skip
        self._server.stdin.write(json.dumps(asked) + "\n")
        self._server.stdin.flush()
        answer = json.loads(self._server.stdout.readline())
        return Done(**answer, stderr=self._output.read_text(errors="replace"))


def _serve() -> None:
    for module in PRELOADED:
        importlib.import_module(module)
    shim = ctypes.CDLL(None)
    shim.fault_count.restype = ctypes.c_long
    shim.fault_failed.restype = ctypes.c_char_p
    for line in sys.stdin:
        asked = json.loads(line)
        child = os.fork()
        if child == 0:
            _run(asked, shim)
        status, seconds = _wait(child, asked["number"], asked["after"])
        answer = {"status": status, "writes": shim.fault_count(), "failed": os.fsdecode(shim.fault_failed())}
        print(json.dumps(answer | {"seconds": seconds}), flush=True)


def _wait(child: int, number: int, after: float) -> tuple[int, float]:
    """Wait for the child, sending it the signal when its time has come. Returns its exit status and the seconds."""
    since = time.monotonic()
    while True:
        pid, ended = os.waitpid(child, os.WNOHANG)
        if pid:
            return os.waitstatus_to_exitcode(ended), time.monotonic() - since
        if number and time.monotonic() - since >= after:
            os.kill(child, number)
            since, number = time.monotonic(), 0
        time.sleep(0.0005)


def _run(asked: dict[str, Any], shim: ctypes.CDLL) -> None:
    status = 70
    try:
        output = os.open(asked["output"], os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for number in (1, 2):
            os.dup2(output, number)
        os.close(0)
        module, *arguments = asked["command"]
        main = importlib.import_module(module).main
        shim.fault_arm(os.fsencode(asked["folder"]), ctypes.c_long(asked["at"]), asked["error"], asked["lasting"])
        main(arguments)
    except SystemExit as end:
        status = end.code if isinstance(end.code, int) else 71
    except BaseException:
        import traceback

        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(status)


if __name__ == "__main__":
    _serve()
