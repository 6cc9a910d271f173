"""A dataset's files on the Hugging Face hub, pinned: TinyStories at one revision, with the size of each file."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass


@dataclass(frozen=True)
class HubFile:
    """One file of a repository: its name inside it, and its bytes. The revision is a full commit."""

    repo: str
    revision: str
    name: str
    size: int
    kind: str = "dataset"
    """What the repository holds: a `dataset`, or a `model` with its tokenizer."""

    @property
    def instead(self) -> str:
        """What the user may do without it, for the end of a message."""
        return "or use --source demo or --source PATH." if self.kind == "dataset" else "or use --tokenizer PATH."


@dataclass(frozen=True)
class HubDataset:
    """A dataset's Parquet files at one revision."""

    repo: str
    revision: str
    splits: Mapping[str, tuple[tuple[str, int], ...]]
    """(file name inside the repository, bytes) of each file, in order, by split."""

    def files(self) -> Iterator[tuple[str, HubFile]]:
        """Yield (split, file) in order."""
        for split, files in self.splits.items():
            for name, size in files:
                yield split, HubFile(self.repo, self.revision, name, size)


TINYSTORIES = HubDataset(
    repo="roneneldan/TinyStories",
    revision="f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    splits={
        "train": (
            ("data/train-00000-of-00004-2d5a1467fff1081b.parquet", 248_731_111),
            ("data/train-00001-of-00004-5852b56a2bd28fd9.parquet", 248_171_980),
            ("data/train-00002-of-00004-a26307300439e943.parquet", 245_894_874),
            ("data/train-00003-of-00004-d243063613e5a057.parquet", 247_988_350),
        ),
        "validation": (("data/validation-00000-of-00001-869c898b519ad725.parquet", 9_989_127),),
    },
)
