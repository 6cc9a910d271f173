"""`duckling-data publish PLACE`: a finished workspace's artifacts, copied to a folder or a store and compared there.

`manifest.json` comes last, and an old one goes first: where it is, everything that it lists is there and whole. What is
there already is not sent again, so a command that was interrupted continues.
"""

from __future__ import annotations

import base64
import hashlib
import shutil
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any, Protocol

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import CheckFailed, InputError, SourceMissing
from duckling_data.base.executor import LocalExecutor
from duckling_data.base.files import HASH_BLOCK, own_folder, remove, replacing
from duckling_data.base.locks import LOCK, held
from duckling_data.base.progress import Reporter
from duckling_data.base.records import FileRecord, describe, file_fault, file_faults, first_fault
from duckling_data.corpus.folders import listed
from duckling_data.corpus.hub.errors import CutShort
from duckling_data.corpus.remote.listing import listing
from duckling_data.corpus.remote.store import PART, described, kind_of, opened
from duckling_data.corpus.remote.tries import retried
from duckling_data.corpus.sources import absolute
from duckling_data.stages import NAMES, STAGES
from duckling_data.stages.pack import PACK
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.mapping import MAPPING_FILE
from duckling_data.workspace.manifest import MANIFEST_NAME, SUMS_NAME, Manifest

ELSEWHERE = "publish to another place"
LAST = (SUMS_NAME, MANIFEST_NAME)
WRITABLE = ("s3", "gs", "hf", "memory")


class Target(Protocol):
    """Where artifacts are published. Names are relative to it, with `/`."""

    def names(self) -> list[str]:
        """Return the names of the files that are there."""

    def equal(self, name: str, local: Path, record: FileRecord) -> bool:
        """Return whether a file is there with this content, which is also that of `local`."""

    def put(self, name: str, local: Path, record: FileRecord) -> None:
        """Copy a file there and compare it. Raises InputError or OutsideError where that fails."""

    def remove(self, name: str) -> None:
        """Remove a file that is there."""


class Folder:
    """A folder on this machine, or a shared one. Nothing is written through a link in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def names(self) -> list[str]:
        """Return as `Target` says."""
        return [path.relative_to(self.folder).as_posix() for path in self.folder.rglob("*") if not path.is_dir()]

    def equal(self, name: str, local: Path, record: FileRecord) -> bool:
        """Return as `Target` says."""
        return file_fault(self.folder / name, record, links=False) is None

    def put(self, name: str, local: Path, record: FileRecord) -> None:
        """Copy the file in one piece."""
        with disk_errors(self.folder, ELSEWHERE):
            self.folder.mkdir(parents=True, exist_ok=True)
            own_folder(self.folder, *name.split("/")[:-1])
            with local.open("rb") as file, replacing(self.folder / name) as copy:
                shutil.copyfileobj(file, copy, HASH_BLOCK)
        if fault := file_fault(self.folder / name, record, links=False):
            raise CheckFailed(f"{self.folder / name}: {fault}, once it was written; run the command again.")

    def remove(self, name: str) -> None:
        """Remove a file that is there."""
        remove(self.folder / name)


class Store:
    """A folder in a store, by its URL."""

    def __init__(self, url: str, reporter: Reporter) -> None:
        self.url, self.kind, self._reporter = url, kind_of(url), reporter

    def names(self) -> list[str]:
        """Return as `Target` says; none where there is nothing yet."""
        try:
            info = retried(lambda: described(self.url), self.url, "listed", self._reporter)
        except SourceMissing:
            return []
        if info["type"] != "directory":
            raise InputError(f"{self.url}: a file, expected a folder; {ELSEWHERE}.")
        return [*retried(lambda: listing(self.url, info), self.url, "listed", self._reporter)]

    def equal(self, name: str, local: Path, record: FileRecord) -> bool:
        """Return as `Target` says: by the store's checksum if that is equal, else by reading what is there."""
        url = f"{self.url}/{name}"
        try:
            return retried(lambda: self._equal(url, local, record), url, "read", self._reporter)
        except SourceMissing:
            return False

    def _equal(self, url: str, local: Path, record: FileRecord) -> bool:
        info = described(url)
        if info.get("size") != record.bytes:
            return False
        if _checksum_holds(info, local, record):
            return True
        store, path = opened(url)
        digest = hashlib.sha256()
        with store.open(path, "rb") as file:
            while block := file.read(HASH_BLOCK):
                digest.update(block)
        return digest.hexdigest() == record.sha256

    def put(self, name: str, local: Path, record: FileRecord) -> None:
        """Send the file, and again where it is not there as it was sent."""
        url = f"{self.url}/{name}"

        def work() -> None:
            store, path = opened(url)
            store.put_file(str(local), path, **({"chunksize": PART} if self.kind == "s3" else {}))
            if not self._equal(url, local, record):
                raise CutShort("what is there is not what was sent")

        retried(work, url, "written", self._reporter)

    def remove(self, name: str) -> None:
        """Remove a file that is there."""
        store, path = opened(f"{self.url}/{name}")
        retried(lambda: store.rm_file(path), f"{self.url}/{name}", "removed", self._reporter)


def _checksum_holds(info: Mapping[str, Any], local: Path, record: FileRecord) -> bool:
    """Return whether the store gives a checksum that is the file's. Where it encrypts, its ETag is none."""
    if lfs := info.get("lfs"):
        return bool(lfs.get("sha256") == record.sha256)
    if info.get("md5Hash"):
        return bool(base64.b64decode(str(info["md5Hash"])).hex() == _md5s(local, record.bytes)[0].hex())
    etag = str(info.get("ETag", "")).strip('"')
    if "-" in etag:
        parts = _md5s(local, PART)
        return etag == f"{hashlib.md5(b''.join(parts), usedforsecurity=False).hexdigest()}-{len(parts)}"
    return bool(etag) and etag == _md5s(local, record.bytes)[0].hex()


def _md5s(path: Path, size: int) -> list[bytes]:
    """Return the MD5 of each `size` bytes of a file; at least one."""
    digests, left = [hashlib.md5(usedforsecurity=False)], size
    with path.open("rb") as file:
        while block := file.read(min(HASH_BLOCK, left)):
            digests[-1].update(block)
            if not (left := left - len(block)):
                digests, left = [*digests, hashlib.md5(usedforsecurity=False)], size
    if left == size and len(digests) > 1:
        digests.pop()
    return [digest.digest() for digest in digests]


def publish(workspace: Path, place: str, workers: int, reporter: Reporter) -> None:
    """Copy the artifacts of a finished workspace to a path or URL. Waits for the workspace's lock.

    Raises InputError for a workspace that is not finished and a place that cannot be written or holds other files in
    the artifacts' folders, CheckFailed for a damaged artifact, OutsideError where the store or the disk fails.
    """
    target, workers, place = _target(workspace, place, workers, reporter)
    if not (workspace / MANIFEST_NAME).exists():
        raise InputError(f"{workspace}: no {MANIFEST_NAME}, nothing to publish; make one with `duckling-data run`.")
    with held(workspace / LOCK, workspace, waiting=reporter.say):
        files = _artifacts(workspace, reporter)
        outputs = {output.split("/")[0] for stage in STAGES for output in stage.outputs}
        there = target.names()
        others = [name for name in sorted(there) if name.split("/")[0] in outputs and name not in files]
        if added := [name for name in others if not name.split("/")[-1].startswith((".", "cache-"))]:
            raise InputError(
                f"{place}: holds what this workspace did not make, {listed(added)}; expected an empty place or an "
                f"earlier copy; remove it, or {ELSEWHERE}."
            )
        lacking = _lacking(target, workspace, files, there, workers, reporter)
        if lacking and MANIFEST_NAME in there:
            target.remove(MANIFEST_NAME)

        def send(name: str) -> None:
            target.put(name, workspace / name, files[name])
            bar.update(files[name].bytes)

        with reporter.bar("publish", sum(files[name].bytes for name in lacking), "B") as bar:
            first = [name for name in lacking if name not in LAST]
            for _ in LocalExecutor(workers).map(send, first, ordered=False):
                pass
            for name in LAST if lacking else ():
                send(name)
        size, sent = sum(record.bytes for record in files.values()), len(first) + len(LAST) * bool(lacking)
        reporter.say(f"publish      {place}: {len(files):,} files, {size / 1e6:,.1f} MB; {sent:,} of them sent now")


def _lacking(
    target: Target, workspace: Path, files: Mapping[str, FileRecord], there: Collection[str], workers: int,
    reporter: Reporter,
) -> list[str]:  # fmt: skip
    """Return the names of the files that are not at the target, or are others there."""

    def lacks(name: str) -> bool:
        bar.update(files[name].bytes)
        return name not in there or not target.equal(name, workspace / name, files[name])

    with reporter.bar("compare", sum(record.bytes for record in files.values()), "B") as bar:
        found = list(LocalExecutor(workers).map(lacks, files, ordered=True))
    return [name for name, (_, lacking) in zip(files, found, strict=True) if lacking]


def _target(workspace: Path, place: str, workers: int, reporter: Reporter) -> tuple[Target, int, str]:
    """Return where to publish, how many files may be sent at a time, and how the place is called."""
    place = absolute(place, "PLACE").rstrip("/")
    if (kind := kind_of(place)) is None:
        if Path(place).resolve().is_relative_to(workspace.resolve()):
            raise InputError(f"{place}: in the workspace {workspace}; expected a place outside it; {ELSEWHERE}.")
        return Folder(Path(place)), workers, place
    if kind not in WRITABLE:
        raise InputError(f"{place}: cannot be written by its protocol; expected a path, s3://, gs:// or hf://.")
    return Store(place, reporter), 1 if kind == "hf" else workers, place  # the hub makes a commit of each file


def _artifacts(workspace: Path, reporter: Reporter) -> dict[str, FileRecord]:
    """Return the files to publish, each compared with the manifest."""
    manifest = Manifest(workspace, NAMES)
    pack, vocab = manifest.made(PACK.name), manifest.made(VOCAB.name)
    unfinished = [name for name in dict.fromkeys((VOCAB.name, PACK.name, *manifest.stages)) if not manifest.made(name)]
    mapping = vocab.outputs.get(MAPPING_FILE) if vocab else None
    why = f"{listed(unfinished)} not made" if unfinished else "its rows were made with another mapping"
    if not pack or unfinished or not mapping or pack.inputs.get("mapping") != mapping.sha256:
        raise InputError(f"{workspace}: not finished ({why}); expected every stage made; run `duckling-data run`.")
    files = {name: made for stage in manifest.stages.values() for name, made in stage.outputs.items()}
    with reporter.bar("hash", sum(made.bytes for made in files.values()), "B") as bar:
        if faults := dict(file_faults(workspace, files, done=bar.update)):
            raise CheckFailed(f"{first_fault(workspace, faults)}; nothing is published; run `duckling-data verify`.")
    manifest.write_sums()
    return files | {name: describe(workspace / name) for name in (SUMS_NAME, MANIFEST_NAME)}
