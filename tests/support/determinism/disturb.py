"""What may differ between two machines and must not move a byte: environments, locales, places, masks, cores, orders.

A `Disturbance` is how a command's process is started; `run` starts it. The locale that no Python hides (Turkish, in an
8-bit character set, with a decimal comma) is compiled where the system lacks it.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from tests.support.fault.disk import compile_preload

ROOT = Path(__file__).parents[3]
READDIR = Path(__file__).with_name("readdir.c")
TURKISH = "tr_TR.ISO-8859-9"

CLEARED = ("LANG", "LC_ALL", "LC_CTYPE", "LANGUAGE", "PYTHONUTF8", "PYTHONIOENCODING", "PYTHONHASHSEED", "MPLBACKEND")
"""Variables that a process has only if its disturbance gives them."""

START = """
import os, sys
cores, program = sys.argv[1:3]
if cores != "all":
    os.sched_setaffinity(0, sorted(os.sched_getaffinity(0))[:int(cores)])
if program == "duckling-train":
    from duckling_train.cli import main
else:
    from duckling_data.cli import main
main(sys.argv[3:])
"""


@dataclass(frozen=True)
class Disturbance:
    """How a process differs from an ordinary one."""

    name: str
    variables: Mapping[str, str | None] = field(default_factory=dict)
    """Environment variables; None: not set."""
    umask: int = 0o022
    folder: str = "."
    """The working directory: `/`, or a name in the case's own place, where `.` is that place and `w` its workspace."""
    relative: bool = False
    """Whether paths are given relative to the working directory."""
    cores: int | None = None
    """Cores that the process may use; None: all there are."""
    workers: int = 2
    no_stdin: bool = False
    """Whether the standard input is closed, not merely empty."""

    @property
    def id(self) -> str:
        """Return the name as pytest shows it."""
        return self.name


@dataclass(frozen=True)
class Ended:
    """How a command ended."""

    status: int
    stdout: str
    stderr: str

    @property
    def said(self) -> list[str]:
        """Return the lines on standard error but those that name a path or draw a bar."""
        paths = ("source ", "report       open ")
        return [line for line in self.stderr.splitlines() if not line.startswith(paths) and "\r" not in line]


def run(program: str, place: Path, disturbance: Disturbance, *arguments: str | Path) -> Ended:
    """Run the program with these arguments in a process of its own, disturbed; paths are given below `place`."""
    folder = Path("/") if disturbance.folder == "/" else place / disturbance.folder
    folder.mkdir(parents=True, exist_ok=True)
    given = [_told(a, folder, disturbance) if isinstance(a, Path) else a for a in arguments]
    variables = {name: value for name, value in os.environ.items() if name not in CLEARED}
    variables |= {"OMP_NUM_THREADS": "1", "HF_HUB_OFFLINE": "1", "PYTHONPATH": str(ROOT)}
    for name, value in disturbance.variables.items():
        variables.pop(name, None) if value is None else variables.update({name: value})
    cores = "all" if disturbance.cores is None else str(disturbance.cores)
    line = [sys.executable, "-c", START, cores, program, *given]
    if disturbance.no_stdin:
        line = ["/bin/sh", "-c", 'exec "$@" <&-', "sh", *line]
    done = subprocess.run(
        line,
        env=variables,
        cwd=folder,
        umask=disturbance.umask,
        stdin=subprocess.DEVNULL,
        capture_output=True,
        check=False,
    )
    return Ended(done.returncode, done.stdout.decode(errors="replace"), done.stderr.decode(errors="replace"))


def _told(path: Path, folder: Path, disturbance: Disturbance) -> str:
    return os.path.relpath(path, folder) if disturbance.relative else str(path)


def compile_readdir(folder: Path) -> Path | None:
    """Return the compiled `readdir.c`, as `compile_preload` does."""
    return compile_preload(READDIR, folder)


def turkish(folder: Path) -> dict[str, str] | None:
    """Return the variables of a process in TURKISH, compiled into `folder`; None where it cannot be."""
    compiler = shutil.which("localedef")
    if compiler is None:
        return None
    line = [compiler, "-i", "tr_TR", "-f", "ISO-8859-9", str(folder / TURKISH)]
    if subprocess.run(line, capture_output=True, check=False).returncode > 1:  # 1: warnings
        return None
    return {"LOCPATH": str(folder), "LC_ALL": TURKISH, "PYTHONUTF8": "0"}


def modes(folder: Path) -> dict[str, str]:
    """Return the permission bits, in octal, of everything below a folder."""
    return {p.relative_to(folder).as_posix(): oct(p.stat().st_mode & 0o777) for p in folder.rglob("*")}
