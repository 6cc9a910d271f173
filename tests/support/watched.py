"""Runs a command and watches, on Linux: its time, its memory, and the space that its folder takes on the disk."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from duckling_data.stages.shards import SHARDS
from duckling_data.tokens.store import KEPT

ROOT = Path(__file__).parents[2]
PERIOD = 0.1
"""Seconds between two looks at memory and disk."""
SEARCH = 5
"""Looks between two searches for new processes."""
TASK = b"ray::_call"
"""The title of a Ray worker that has a task of Duckling's."""


@dataclass(frozen=True)
class Watched:
    """What a command took; sizes in bytes."""

    seconds: float
    """From its start to its end, by the clock."""
    memory: int
    """The most resident memory of the command's process (VmHWM), its threads included."""
    cluster: int
    """The largest sum, at one look, of the resident memory (VmRSS) of all other processes below this one: a Ray
    cluster's. What several of them share counts for each, so it is an upper bound."""
    worker: int
    """The most resident memory (VmHWM) of one of those that had a task of Duckling's."""
    temporary: int
    """The largest size of the workspace's files together, less that of the artifacts in the end: kept tokens, shards,
    and files without a name that the command has open there count."""


class Watch:
    """Looks at a command's process, the other processes below this one, and the folder, until it is stopped."""

    def __init__(self, process: int, folder: Path) -> None:
        self.memory = self.cluster = self.worker = self.disk = 0
        self._process, self._folder = process, folder
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self._thread.start()

    def stop(self) -> None:
        """End; what was seen stays."""
        self._stopped.set()
        self._thread.join()

    def _run(self) -> None:
        looks, others = 0, list[int]()
        while not self._stopped.is_set():
            if looks % SEARCH == 0:
                others = [found for found in below(os.getpid()) if found != self._process]
            looks += 1
            self.memory = max(self.memory, resident(self._process, "VmHWM"))
            self.cluster = max(self.cluster, sum(resident(other, "VmRSS") for other in others))
            self.worker = max([self.worker, *(resident(other, "VmHWM") for other in others if has_task(other))])
            self.disk = max(self.disk, named(self._folder) + unnamed(self._process, self._folder))
            self._stopped.wait(PERIOD)


def watched(command: list[str], folder: Path) -> Watched:
    """Run a command in the workspace `folder`. Exits where it fails; its standard error is this process's."""
    began = time.perf_counter()
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    watch = Watch(process.pid, folder)
    try:
        status = process.wait()
        seconds = time.perf_counter() - began
    finally:
        watch.stop()
        process.kill()  # does nothing to a process that has ended
        process.wait()
    if status:
        sys.exit(f"failed with exit status {status}: {' '.join(command)}")
    final = named(folder)
    artifacts = final - named(folder / KEPT) - named(folder / SHARDS)
    return Watched(seconds, watch.memory, watch.cluster, watch.worker, max(watch.disk, final) - artifacts)


def below(process: int) -> Iterator[int]:
    """Yield the processes that a process started, and those that they did."""
    children: dict[int, list[int]] = {}
    for entry in Path("/proc").glob("[0-9]*"):
        if stat := text(entry / "stat"):
            children.setdefault(int(stat.rpartition(b")")[2].split()[1]), []).append(int(entry.name))
    found = [process]
    for parent in found:
        found += children.get(parent, [])
    yield from found[1:]


def resident(process: int, field: str) -> int:
    """Return a size of /proc/PID/status in bytes; 0 for a process that has ended."""
    lines = text(Path(f"/proc/{process}/status")).splitlines()
    return next((1024 * int(line.split()[1]) for line in lines if line.startswith(field.encode())), 0)


def has_task(process: int) -> bool:
    """Return whether it is a Ray worker at a task of Duckling's."""
    return text(Path(f"/proc/{process}/cmdline")).startswith(TASK)


def text(path: Path) -> bytes:
    """Return what a file of /proc says; nothing where its process has ended."""
    try:
        return path.read_bytes()
    except OSError:
        return b""


def named(folder: Path) -> int:
    """Return the bytes of the files below a folder."""
    total = 0
    for at, _, files in os.walk(folder):
        for name in files:
            try:
                total += Path(at, name).lstat().st_size
            except FileNotFoundError:  # renamed or removed meanwhile
                continue
    return total


def unnamed(process: int, folder: Path) -> int:
    """Return the bytes of the files that a process has open in the folder and that have no name there any more."""
    total = 0
    for handle in Path(f"/proc/{process}/fd").glob("*"):
        try:
            place = str(handle.readlink())
            if place.startswith(f"{folder}/") and place.endswith(" (deleted)"):
                total += handle.stat().st_size
        except OSError:  # closed meanwhile
            continue
    return total
