"""Where stories come from: the hub, files, or the demo generator. A corpus is splits; a split is stories in order.

Reading is the same for all: `batches(split, workers)` yields the stories in order, a few thousand at a time,
parsed by threads. What identifies a corpus is the content of its files (SHA-256), not their names or places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

from duckling_data.errors import InputError
from duckling_data.files import digest_json
from duckling_data.parallel import ordered_map
from duckling_data.readers import file_format, read_blocks

if TYPE_CHECKING:
    import pyarrow as pa

    from duckling_data.reader_bytes import Block

DEMO_BLOCK = 4096
"""Demo stories generated at a time."""


class Split(Protocol):
    """An ordered, countable part of a corpus: `train` or `validation`."""

    @property
    def stories(self) -> int:
        """How many stories there are."""

    def describe(self) -> dict[str, Any]:
        """Return what the manifest keeps of it, without any place on this machine."""

    def identity(self) -> object:
        """Return what decides the stories' text: equal identities, equal stories."""

    def blocks(self) -> Iterator[Block]:
        """Yield the parts that threads parse side by side."""


@dataclass(frozen=True)
class CorpusFile:
    """One file of stories, hashed and counted."""

    path: Path
    name: str
    """Its name in the manifest: relative to the folder given, or to the hub's repository."""
    bytes: int
    sha256: str
    stories: int


@dataclass(frozen=True)
class FileSplit:
    """Stories in files, one file after the other."""

    files: tuple[CorpusFile, ...]
    text_field: str

    @property
    def stories(self) -> int:
        """How many stories the files hold together."""
        return sum(file.stories for file in self.files)

    def describe(self) -> dict[str, Any]:
        """Return the files' names, sizes, hashes and counts."""
        files = [{"name": f.name, "bytes": f.bytes, "sha256": f.sha256, "stories": f.stories} for f in self.files]
        return {"stories": self.stories, "text_field": self.text_field, "files": files}

    def identity(self) -> object:
        """Return each file's hash and kind, and the field read."""
        return [self.text_field, [[f.sha256, file_format(f.path)] for f in self.files]]

    def blocks(self) -> Iterator[Block]:
        """Yield the blocks of all files."""
        for file in self.files:
            yield from read_blocks(file.path, self.text_field)


@dataclass(frozen=True)
class DemoSplit:
    """Stories made by the demo generator."""

    split: str
    stories: int

    def describe(self) -> dict[str, Any]:
        """Return the number of stories and the hash of the first of them."""
        return {"stories": self.stories, "generator": self._fingerprint()}

    def identity(self) -> object:
        """Return the split, the number of stories and the hash of the first of them."""
        return ["demo", self.split, self.stories, self._fingerprint()]

    def blocks(self) -> Iterator[Block]:
        """Yield ranges of stories, each generated where it is asked for."""
        from functools import partial

        from duckling_data.demo import demo_stories

        for start in range(0, self.stories, DEMO_BLOCK):
            yield partial(demo_stories, start, min(start + DEMO_BLOCK, self.stories), split=self.split)

    def _fingerprint(self) -> str:
        """Return a hash that changes when the generator does: of the first stories' text."""
        from duckling_data.demo import demo_stories

        return digest_json(demo_stories(0, min(64, self.stories), split=self.split).to_pylist())


@dataclass(frozen=True)
class Corpus:
    """The stories to build from."""

    source: str
    """`tinystories`, `demo` or `files`."""
    train: Split
    validation: Split | None

    def splits(self) -> dict[str, Split]:
        """Return the splits there are, by name."""
        return {"train": self.train} | ({"validation": self.validation} if self.validation else {})

    def describe(self) -> dict[str, Any]:
        """Return what the manifest keeps of the corpus."""
        return {"source": self.source, "splits": {name: split.describe() for name, split in self.splits().items()}}

    def digests(self) -> dict[str, str]:
        """Return the digest of each split's identity, by split name."""
        return {name: digest_json(split.identity()) for name, split in self.splits().items()}


@dataclass(frozen=True)
class StoryBatch:
    """Consecutive stories of a split."""

    first: int
    """The index, in the split, of the first story."""
    texts: pa.LargeStringArray
    """The stories; no nulls."""
    nulls: int
    """How many of them were null, and are empty here."""


def batches(split: Split, workers: int) -> Iterator[StoryBatch]:
    """Yield all stories of a split in order, parsed by `workers` threads.

    Raises InputError if their number is not the one that was counted: a file has changed since.
    """
    first = 0
    for texts in ordered_map(lambda block: block(), split.blocks(), workers):
        if len(texts) == 0:
            continue
        nulls = texts.null_count
        yield StoryBatch(first, texts.fill_null("") if nulls else texts, nulls)
        first += len(texts)
    if first != split.stories:
        raise InputError(
            f"the corpus changed while it was read: {first:,} stories, {split.stories:,} were counted. Run again."
        )
