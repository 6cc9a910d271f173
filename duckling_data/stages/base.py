"""What a stage is: one record with its settings, inputs, function, outputs and summary, in the stage's own file."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec

from duckling_data.base.progress import Reporter
from duckling_data.base.records import FileRecord, describe
from duckling_data.corpus.splits import Split
from duckling_data.stages.shards import Sharding, Task
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.encoding import EncodedSplit
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.workspace.manifest import CorpusRecord, Manifest, StageRecord
from duckling_data.workspace.settings import Resolved

S = TypeVar("S")
F = TypeVar("F", bound=msgspec.Struct)


@dataclass(frozen=True)
class Context:
    """What a stage works with."""

    manifest: Manifest
    corpus: CorpusRecord | None
    """The source; None in a dry run that would have to download it."""
    digests: Mapping[str, str]
    """The digest of each split's stories, by the split's name."""
    encoded: Mapping[str, EncodedSplit]
    """The splits by name, to be encoded where they are needed."""
    reporter: Reporter
    splits: Mapping[str, Split] = field(default_factory=dict)
    """The splits by name."""
    begin: Callable[[], None] = lambda: None
    """To be called when the stage's outputs are about to be replaced, the heavy work being done."""
    sharding: Sharding | None = None
    """How the stage is divided among tasks; None where this process does it in one go."""
    outdated: set[str] = field(default_factory=set)
    """In a dry run, the stages that would be made again: the digests of their outputs are not known."""
    base: BaseTokenizer = GPT2
    """What the tokens are of."""

    @property
    def workspace(self) -> Path:
        """The folder that the outputs are written in."""
        return self.manifest.workspace

    def base_input(self) -> dict[str, str]:
        """Return the base as an input of a stage: nothing for GPT-2, so that its records are as they always were."""
        return {} if self.base.sha256 is None else {"tokenizer": self.base.sha256}

    def made(self, stage: str) -> StageRecord | None:
        """Return the record of a stage, or None where it is not made."""
        return None if stage in self.outdated else self.manifest.made(stage)

    def output(self, stage: str, name: str) -> str:
        """Return the SHA-256 of a stage's output; where it is not made, a text that equals no digest."""
        record = self.made(stage)
        return record.outputs[name].sha256 if record and name in record.outputs else not_made(stage)


def not_made(stage: str) -> str:
    """Return the text in place of a digest where a stage is not made."""
    return f"({stage} is not made)"


Made = tuple[dict[str, FileRecord], F]
"""What a stage made: each file, by its path inside the workspace, and what was measured on the way."""


@dataclass(frozen=True)
class Stage(Generic[S, F]):
    """A stage of the pipeline, with settings of the dataclass S and figures of the msgspec Struct F."""

    name: str
    """As in the manifest and on the command line."""
    needs: tuple[str, ...]
    """The stages to be brought up to date before it."""
    outputs: tuple[str, ...]
    """The files and directories that it may write, inside the workspace."""
    settings: type[S]
    figures: type[F]
    inputs: Callable[[Context, S], dict[str, str]]
    """Returns the digest of everything that the stage reads, by name."""
    make: Callable[[Context, S], Made[F]]
    """Writes the outputs."""
    summary: Callable[[F], str]
    """Returns the main figures in a few words."""
    shards: Callable[[Context, S], list[Task[Any]]] | None = None
    """Returns the tasks, one a shard, that go through the stories; None for a stage that is not divided."""
    page: str | None = None
    """The output that a person opens first."""
    line: Callable[[Resolved[S]], str] = Resolved.line
    """Returns the settings in one line for a person."""


@dataclass(frozen=True)
class NoSettings:
    """The settings of a stage that has none."""


class NoFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The figures of a stage that has none."""


def described(workspace: Path, *names: str) -> dict[str, FileRecord]:
    """Return the records of files in the workspace, by their paths inside it."""
    return {name: describe(workspace / name) for name in names}
