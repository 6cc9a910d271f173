"""A stage's work in shards: numbered ranges of stories, each made by one task in any process, joined in their order.

What a task makes lies in the workspace's folder `shards/STAGE-DIGEST-of-COUNT/`, each file flushed and renamed under
its final name, the task's record last. The digest is that of the stage's settings and inputs, so a task whose record
is there is not done again: a stage that was stopped goes on where it was, and tasks of a batch system may run in any
order, on any machine that shares the folder. The folder goes when the stage is made.
"""

from __future__ import annotations

import contextlib
import re
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import google_crc32c
import msgspec

from duckling_data.base.errors import CheckFailed, InputError, OutsideError
from duckling_data.base.executor import Executor
from duckling_data.base.files import own_folder, read_bytes, remove, renamed, write_bytes
from duckling_data.base.strict_json import digest_json, read_json, write_json
from duckling_data.tokens.encoding import Encoding

SHARDS = "shards"
"""The folder, inside the workspace."""
SETTINGS = "settings.json"
"""The stage's settings, among its shards."""
SHARD_BYTES = 128 << 20
"""Text of a shard, about, where the number of shards is not given."""
RECORD = re.compile(r"[a-z]+-\d{5}-of-\d{5}")
"""The name of a shard's record; what else a task makes has a longer one."""
RECORD_LIMIT = 1 << 28
"""Bytes of the largest record that is read."""

R = TypeVar("R", bound=msgspec.Struct)


class Bar(Protocol):
    """What shows progress."""

    def update(self, n: int) -> object:
        """Show that `n` more stories are done."""


@dataclass(frozen=True)
class Task(Generic[R]):
    """The making of one shard; it may be sent to another process."""

    record: Path
    """The file of its result; its parent is there."""
    make: Callable[[], R]
    """Does the work and returns the result, small enough for the caller to hold."""
    kind: type[R]
    stories: int
    """How many stories it goes through."""
    files: tuple[Path, ...] = ()
    """What else it makes, under final names."""

    def is_done(self) -> bool:
        """Return whether it was done before, here or elsewhere."""
        return self.record.exists() and all(file.exists() for file in self.files)

    def result(self) -> R:
        """Return the result that was written. Raises CheckFailed for a damaged record."""
        again = f"remove {self.record.parent}, and run the command again."
        content = read_bytes(self.record, RECORD_LIMIT)
        if len(content) < 4 or google_crc32c.value(content[4:]) != struct.unpack("<I", content[:4])[0]:
            raise CheckFailed(f"{self.record}: damaged, its checksum is not that of its content; {again}")
        try:
            return msgspec.msgpack.decode(content[4:], type=self.kind)
        except msgspec.MsgspecError as error:
            raise CheckFailed(f"{self.record}: no record of this shard ({error}); {again}") from error


def do(task: Task[Any]) -> int:
    """Do a task, unless it is done. Returns its number of stories."""
    from duckling_data.base.memory import keep_freed_memory

    if not task.is_done():
        keep_freed_memory()
        content = msgspec.msgpack.encode(task.make())
        with renamed(task.record) as partial:
            write_bytes(partial, struct.pack("<I", google_crc32c.value(content)) + content)
    return task.stories


@dataclass(frozen=True)
class Sharding:
    """How a stage is divided, who does its tasks, and where they leave what they make."""

    executor: Executor
    workspace: Path
    encoder: Encoding
    """What encodes."""
    workers: int
    """Threads of a task."""
    count: int | None = None
    """Shards of a split; None for as many as its size asks for."""
    finds: bool = False
    """Whether the tasks of `Stage.shards` were done before: one that was not is refused."""
    name: str = ""
    """The stage's, with the digest of its settings and inputs."""

    def of_stage(self, stage: str, settings: object, inputs: object, text_bytes: int) -> Sharding:
        """Return the sharding of a stage whose main split has `text_bytes` bytes.

        Where the tasks were done before, and their number is not given, it is the one that is there. Raises InputError
        where none or several are.
        """
        name = f"{stage}-{digest_json([settings, inputs])[:16]}"
        count = self.count
        if count is None and self.finds:
            found = sorted((self.workspace / SHARDS).glob(f"{name}-of-*"))
            if len(found) != 1:
                there = ", ".join(str(int(path.name.rsplit("-", 1)[1])) for path in found) or "none"
                raise InputError(
                    f"{self.workspace / SHARDS}: numbers of shards of {stage} with these settings and inputs: {there}; "
                    f"expected one; make them with `duckling-data {stage} --shard I/N`, or say --shards N."
                )
            count = int(found[0].name.rsplit("-", 1)[1])
        return replace(self, name=name, count=count or max(1, -(-text_bytes // SHARD_BYTES)))

    @property
    def shards(self) -> int:
        """How many shards a split has."""
        assert self.count is not None
        return self.count

    def folder(self) -> Path:
        """Return the folder of the stage's shards, made where it is not there."""
        return own_folder(self.workspace, SHARDS, f"{self.name}-of-{self.shards:05d}")

    def bytes_made(self) -> int:
        """Return the bytes of what is made already."""
        return sum(path.stat().st_size for path in self.folder().rglob("*") if path.is_file())

    def remember(self, settings: dict[str, Any]) -> None:
        """Write the stage's settings beside its shards, for the command that joins them."""
        with renamed(self.folder() / SETTINGS) as partial:
            write_json(partial, settings)

    def shard_name(self, number: int) -> str:
        """Return a shard's name, as `00003-of-00007`."""
        return f"{number:05d}-of-{self.shards:05d}"

    def results(self, tasks: Sequence[Task[R]], bar: Bar, *, main: bool = False) -> Iterator[R]:
        """Do the tasks that are not done; then yield their results, in the tasks' order.

        `main` tasks are those that may be done by commands of their own (`--shard I/N`). Raises InputError where such
        a one is not done and this is the command that joins them.
        """
        todo = [task for task in tasks if not task.is_done()]
        if main and self.finds and todo:
            missing = [str(number) for number, task in enumerate(tasks) if task in todo]
            raise InputError(
                f"{self.folder()}: shards {', '.join(missing[:20])}{' …' if len(missing) > 20 else ''} of "
                f"{len(tasks)} are not made; make each with --shard I/{len(tasks)}, then join them again."
            )
        bar.update(sum(task.stories for task in tasks) - sum(task.stories for task in todo))
        for _, stories in self.executor.map(do, todo, ordered=False):
            bar.update(stories)
        list(self.folder().iterdir())  # has NFS ask its server for what other machines have made meanwhile
        for task in tasks:
            if not task.is_done():
                raise OutsideError(
                    f"{task.record}: made by another machine and not seen here; the workspace must be a folder that "
                    "all machines share, under the same path."
                )
            yield task.result()


def shard_settings(workspace: Path, stage: str) -> dict[str, Any]:
    """Return the settings with which a stage's shards were made. Raises InputError where they are several."""
    found = [read_json(path) for path in sorted((workspace / SHARDS).glob(f"{stage}-*-of-*/{SETTINGS}"))]
    if any(other != found[0] for other in found):
        raise InputError(
            f"{workspace / SHARDS}: shards of {stage} with several settings; expected one; give the options of those "
            "that are to be joined, or remove the others."
        )
    settings: dict[str, Any] = found[0] if found else {}
    return settings


def shards_made(workspace: Path, stage: str) -> list[tuple[int, int]]:
    """Return how many of a stage's shards are made, and how many there will be, for each division of it begun."""
    found = []
    for folder in sorted((workspace / SHARDS).glob(f"{stage}-*-of-*")):
        with contextlib.suppress(FileNotFoundError):  # they were just joined
            made = sum(RECORD.fullmatch(path.name) is not None for path in folder.iterdir())
            found.append((made, int(folder.name.rsplit("-", 1)[1])))
    return found


def remove_shards(workspace: Path, stage: str) -> None:
    """Remove what is left of a stage's shards; the folder of them all, too, where it is empty."""
    for path in (workspace / SHARDS).glob(f"{stage}-*-of-*"):
        remove(path)
    with contextlib.suppress(OSError):
        (workspace / SHARDS).rmdir()
