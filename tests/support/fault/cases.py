"""What is disturbed, and the law that holds each time: one line says so, and the next command ends in equal bytes.

A case is a command in a folder of its own, and the command with which a person would go on. Used by the tests, with a
sample of the moments, and by `scripts/soak_kill.py` and `scripts/soak_disk.py` with all of them.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import random
import shutil
import signal
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from duckling_data.corpus.demo import demo_stories
from tests.support.data import SMALL, write_jsonl
from tests.support.fault.disk import KILL, Disk, Done
from tests.support.train import TINY_SHAPE, make_workspace, sentences

DATA, TRAIN = "duckling_data.cli", "duckling_train.cli"
WORKSPACE, RUN = "workspace", "run"
CLOCKED = "summary.json"
"""The one file of a run whose bytes hold the clock."""

NOT_WHOLE = ("interrupted", "not made", "nothing to verify", "of its checks failed", "missing", "before its input")
"""What `verify` may say after a fault: that something is not there, or older than its inputs; never damage."""


@dataclass
class Case:
    """A command that is disturbed."""

    name: str
    folder: Path
    """Where all that it writes lies."""
    start: list[str]
    template: Path | None = None
    """What the folder holds at first; None: nothing."""
    expected: dict[str, str] | None = None
    """The digests after an undisturbed run."""
    writes: int = 0
    seconds: float = 0.0

    def measure(self, disk: Disk) -> None:
        """Run it undisturbed, twice: the first time some things are loaded."""
        for _ in range(2):
            self.clear()
            done = disk.run(self.start, self.folder)
            assert done.status == 0, done.stderr
        self.expected, self.writes, self.seconds = self.digests(), done.writes, done.seconds

    def clear(self) -> None:
        """Put the folder back to how it was before."""
        shutil.rmtree(self.folder, ignore_errors=True)
        if self.template is not None:
            shutil.copytree(self.template, self.folder)
        else:
            self.folder.mkdir(parents=True)

    def go_on(self) -> list[str]:
        """Return the command with which a person would go on."""
        run = self.folder / RUN
        if self.start[0] == TRAIN and (run / "config.json").exists():
            return [TRAIN, "--resume", str(run), "--quiet", "-w", self.start[self.start.index("-w") + 1]]
        return self.start

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of every file in the folder, hidden and partial ones too, the clock's apart."""
        files = sorted(path for path in self.folder.rglob("*") if path.is_file() and path.name != CLOCKED)
        return {str(path.relative_to(self.folder)): hashlib.sha256(_unclocked(path)).hexdigest() for path in files}


def _unclocked(path: Path) -> bytes:
    content = path.read_bytes()
    if path.name == "manifest.json" and b'"summary.json"' in content:
        manifest = json.loads(content)
        del manifest["files"][CLOCKED]
        return json.dumps(manifest).encode()
    return content


def make_cases(scratch: Path, disk: Disk, *names: str) -> dict[str, Case]:
    """Return the cases, or those named, measured: stages up to the rows, other rows, the report, runs, one recorded."""
    stories = scratch / "stories.jsonl"
    write_jsonl(stories, demo_stories(0, 40).to_pylist())
    tiny = scratch / "tiny"
    if not names or {"train", "record"} & {*names}:
        make_workspace(tiny, sentences(30), live=448, dead=64, context=64)
    source = ["--source", str(stories), *SMALL]
    pack = _data(scratch, "pack", *source)
    pack.measure(disk)
    made = scratch / "made"
    shutil.copytree(pack.folder, made)
    train = _training(scratch, "train", tiny, "--steps", "8", "--checkpoint-steps", "3", "--logging-steps", "2")
    record = _training(
        scratch, "record", tiny, "--steps", "70", "--checkpoint-steps", "20", "--record", "dead",
        "--record-tensors", "W,grad,h_mean",
    )  # fmt: skip
    again = _data(scratch, "pack", "--sample", "30", "--ctx", "16", name="repack", template=made)
    report = _data(scratch, "report", template=made)
    chosen = [case for case in (pack, again, report, train, record) if not names or case.name in names]
    for case in chosen:
        case.measure(disk)
    return {case.name: case for case in chosen}


def _training(scratch: Path, name: str, workspace: Path, *settings: str) -> Case:
    out = ["-w", str(workspace), "--out", str(scratch / name / RUN)]
    return Case(name, scratch / name, [TRAIN, *out, *TINY_SHAPE, "--quiet", *settings])


def _data(scratch: Path, command: str, *arguments: str, name: str = "", template: Path | None = None) -> Case:
    folder = scratch / (name or command)
    workspace = folder / WORKSPACE
    if template is not None:
        holder = scratch / f"before-{name or command}"
        shutil.copytree(template / WORKSPACE, holder / WORKSPACE)
        template = holder
    return Case(name or command, folder, [DATA, command, "-w", str(workspace), *arguments], template)


def faults_of_a_write(disk: Disk, case: Case, at: int, error: int, *, lasting: bool) -> list[str]:
    """Let the case's write number `at` fail, or the process die there (KILL); return which laws do not hold after."""
    case.clear()
    done = disk.run(case.start, case.folder, at, error, lasting=lasting)
    found = [] if error == KILL else said_wrong(case, done)
    if error == KILL and done.failed and done.status != -signal.SIGKILL:
        found.append(f"status {done.status}, expected the kill")
    found += _verify_faults(disk, case)
    found += _goes_on_wrong(disk, case)
    return [f"{case.name}, write {at} ({done.failed}): {fault}" for fault in found]


def faults_of_kills(disk: Disk, case: Case, rng: random.Random, kills: int) -> list[str]:
    """Kill the case at `kills` random moments, going on after each; return which laws do not hold at the end."""
    case.clear()
    moments = [rng.random() * case.seconds for _ in range(kills)]
    for moment in moments:
        disk.run(case.go_on(), case.folder, number=signal.SIGKILL, after=moment)
    return [f"{case.name}, killed after {moments} s: {fault}" for fault in _goes_on_wrong(disk, case)]


def said_wrong(case: Case, done: Done) -> list[str]:
    """Return what is wrong with how a command ended whose disk failed."""
    if done.status == 0 and _harmless(done.failed):
        return []
    if not done.failed:
        return [] if done.status == 0 else [f"status {done.status} without a fault: {done.stderr}"]
    lines = [line for line in done.stderr.splitlines() if line.startswith("duckling-")]
    wrong: list[tuple[str, Callable[[], bool]]] = [
        (f"status {done.status}", lambda: done.status not in (2, 3)),
        ("a traceback", lambda: "Traceback" in done.stderr),
        (f"{len(lines)} lines of error", lambda: len(lines) != 1),
        ("a full disk without the room that is free", lambda: any(map(_silent_about_room, lines))),
        ("no path", lambda: not any(str(case.folder) in line for line in lines)),
    ]
    return [f"{what}: {done.stderr[-600:]}" for what, holds in wrong if holds()]


def _silent_about_room(line: str) -> bool:
    """Whether a line says that a disk is full, and not how much is free."""
    return os.strerror(errno.ENOSPC) in line or ("disk is full" in line and " free; free some or " not in line)


def _harmless(failed: str) -> bool:
    """Whether a command may succeed all the same: the directory was there, or an unnamed file gets a name instead."""
    return failed.startswith(("mkdir ", "open-unnamed "))


def _verify_faults(disk: Disk, case: Case) -> list[str]:
    """Return what `verify` finds wrong, but for what it says is not there."""
    if case.start[0] != DATA:
        return []
    done = disk.run([DATA, "verify", "--quiet", "-w", str(case.folder / WORKSPACE)], case.folder)
    bad = [line for line in done.stderr.splitlines() if not any(words in line for words in NOT_WHOLE)]
    return [f"verify, status {done.status}: {line}" for line in bad]


def _goes_on_wrong(disk: Disk, case: Case) -> list[str]:
    done = disk.run(case.go_on(), case.folder)
    if done.status != 0:
        return [f"the next command ended with {done.status}: {done.stderr[-600:]}"]
    assert case.expected is not None
    found = case.digests()
    names = sorted(name for name in found.keys() | case.expected.keys() if found.get(name) != case.expected.get(name))
    return [f"other bytes than undisturbed: {', '.join(names)}"] if names else []
