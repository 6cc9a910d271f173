"""The tokens that a workspace keeps from one command to the next, so that changed settings need no new encoding.

They are found again by what they are made from: the digest of their source, and what encoded them. They are no
artifact: no manifest lists them, and nothing is lost with them. So they are not flushed to the disk; what a power cut,
or anything else, damages is found by its checksum and encoded again.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import msgspec

from duckling_data.base.disk import disk_errors
from duckling_data.base.errors import InputError
from duckling_data.base.files import PARTIAL, own_folder, refuse_linked, remove, replace_directory, write_bytes
from duckling_data.base.records import plain, read_record
from duckling_data.base.strict_json import digest_json
from duckling_data.tokens.kept import DamagedTokens, KeptBatch, KeptTokens

KEPT = "kept_tokens"
"""The folder in the workspace, with a folder for each split."""
SPLITS = ("train", "validation")
KEPT_FOLDERS = tuple(f"{KEPT}/{split}" for split in SPLITS)
INDEX, INDEX_LIMIT = "index.json", 128 << 20
"""The list of a split's batches, and its largest size in bytes: about 50 for 4 MB of text."""


class TokenIndex(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The content of `index.json`."""

    format: Literal[1]
    made_from: dict[str, str]
    """What decides the tokens: the source's digest, the base tokenizer, and the encoder with its version."""
    batches: list[KeptBatch]
    record_sha256: str = ""
    """The digest of all the others."""

    def digest(self) -> str:
        """Return what `record_sha256` has to be."""
        return digest_json({name: value for name, value in plain(self).items() if name != "record_sha256"})


@dataclass(frozen=True)
class TokenStore:
    """A split's place in the workspace's kept tokens."""

    workspace: Path
    split: str
    made_from: Mapping[str, str]
    vocab_size: int
    say: Callable[[str], None]

    @property
    def path(self) -> Path:
        """The folder of the split's tokens."""
        return self.workspace / KEPT / self.split

    def find(self, stories: int) -> KeptTokens | None:
        """Return what is kept of these `stories`, or None. Raises DamagedTokens."""
        refuse_linked(self.workspace, f"{KEPT}/{self.split}")
        if not self.path.exists():
            return None
        index = self.path / INDEX
        try:
            record = read_record(index, TokenIndex, "", INDEX_LIMIT)
        except InputError as error:
            raise DamagedTokens(index) from error
        if record.digest() != record.record_sha256:
            raise DamagedTokens(index)
        kept = KeptTokens(self.path, self.vocab_size, record.batches, named=True)
        return kept if record.made_from == self.made_from and kept.stories == stories else None

    @contextlib.contextmanager
    def keeping(self) -> Iterator[KeptTokens]:
        """Yield what to append the whole split to: at the end in the place of what was there, gone after an error."""
        folder = own_folder(self.workspace, KEPT, self.split + PARTIAL)
        kept = KeptTokens(folder, self.vocab_size, [], named=True)
        try:
            yield kept
            kept.close()
            record = TokenIndex(1, dict(self.made_from), kept.batches)
            record = msgspec.structs.replace(record, record_sha256=record.digest())
            write_bytes(folder / INDEX, msgspec.json.encode(record))
            replace_directory(folder, self.path)
        except BaseException:
            kept.close()
            shutil.rmtree(folder, ignore_errors=True)
            raise
        kept.folder = self.path

    def remove(self) -> None:
        """Remove what is kept of the split, and what a killed command left."""
        remove_kept(self.workspace, self.split)


def remove_kept(workspace: Path, split: str) -> None:
    """Remove a split's kept tokens, and what a killed command left of them."""
    refuse_linked(workspace, KEPT)
    folder = workspace / KEPT
    if not folder.is_dir():
        return
    path, partial = folder / split, folder / (split + PARTIAL)
    remove(partial)
    with disk_errors(path):
        if os.path.lexists(path):
            path.rename(partial)  # at once: what a kill leaves is not taken for damage
    remove(partial)
    with contextlib.suppress(OSError):  # the other split's are there
        folder.rmdir()


def keep_only(workspace: Path, splits: Collection[str]) -> None:
    """Remove the kept tokens of all other splits."""
    for split in SPLITS:
        if split not in splits:
            remove_kept(workspace, split)


def kept_bytes(workspace: Path) -> dict[str, int]:
    """Return the bytes of the tokens that are kept, by split."""
    folders = sorted(path.parent for path in (workspace / KEPT).glob(f"*/{INDEX}"))
    return {folder.name: sum(path.lstat().st_size for path in folder.iterdir()) for folder in folders}
