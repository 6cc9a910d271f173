"""Where stories come from: the hub, files, or the demo generator. A corpus is splits; a split is stories in order.

Reading is the same for all: a split gives numbered blocks, and the thread that takes one parses it. What identifies a
corpus is the content of its files (SHA-256), not their names or places.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from duckling_data.base.errors import InputError
from duckling_data.base.strict_json import digest_json
from duckling_data.corpus.readers import file_format, read_blocks
from duckling_data.corpus.readers.blocks import Block
from duckling_data.workspace.manifest import CorpusRecord, SplitRecord, StoryFile

if TYPE_CHECKING:
    import pyarrow as pa

DEMO_BLOCK, DEMO_STORY_BYTES = 4096, 900
"""Demo stories generated at a time, and the text of one on average."""


class Split(Protocol):
    """An ordered, countable part of a corpus: `train` or `validation`."""

    @property
    def stories(self) -> int:
        """How many stories there are."""

    @property
    def text_bytes(self) -> int:
        """About how many bytes of text there are: in compressed files more than this."""

    def describe(self) -> SplitRecord:
        """Return what the manifest keeps of it, without any path on this machine."""

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

    @property
    def text_bytes(self) -> int:
        """The size of the files together."""
        return sum(file.bytes for file in self.files)

    def describe(self) -> SplitRecord:
        """Return the files' names, sizes, hashes and counts."""
        files = tuple(StoryFile(f.name, f.bytes, f.sha256, f.stories) for f in self.files)
        return SplitRecord(self.stories, text_field=self.text_field, files=files)

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

    @property
    def text_bytes(self) -> int:
        """The number of stories by the bytes of an average one."""
        return self.stories * DEMO_STORY_BYTES

    def describe(self) -> SplitRecord:
        """Return the number of stories and the hash of the first of them."""
        return SplitRecord(self.stories, generator=self._fingerprint())

    def identity(self) -> object:
        """Return the split, the number of stories and the hash of the first of them."""
        return ["demo", self.split, self.stories, self._fingerprint()]

    def blocks(self) -> Iterator[Block]:
        """Yield ranges of stories, each generated where it is asked for."""
        from duckling_data.corpus.demo import demo_stories

        for start in range(0, self.stories, DEMO_BLOCK):
            stop = min(start + DEMO_BLOCK, self.stories)
            yield Block(stop - start, partial(demo_stories, start, stop, split=self.split))

    def _fingerprint(self) -> str:
        """Return a hash that changes when the generator does: of the first stories' text."""
        from duckling_data.corpus.demo import demo_stories

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

    def describe(self) -> CorpusRecord:
        """Return what the manifest keeps of the corpus."""
        return CorpusRecord(self.source, {name: split.describe() for name, split in self.splits().items()})

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


def numbered_blocks(split: Split) -> Iterator[tuple[int, Block]]:
    """Yield each block of the split with the index of its first story.

    Raises InputError at the end if the stories are not as many as were counted: a file has changed since.
    """
    first = 0
    for block in split.blocks():
        if block.stories:
            yield first, block
        first += block.stories
    if first != split.stories:
        raise InputError(
            f"the corpus changed while it was read: {first:,} stories, {split.stories:,} were counted. Run again."
        )


def parse_block(first: int, block: Block) -> StoryBatch:
    """Return the block's stories, nulls made empty. Raises InputError for a block that cannot be read."""
    texts = block.parse()
    nulls = texts.null_count
    return StoryBatch(first, texts.fill_null("") if nulls else texts, nulls)
