"""Stage `pack`: every story of a split, encoded and mapped to compact ids, cut into rows of `ctx` tokens.

Each run of `group` consecutive stories is one stream of tokens, without separators unless asked for; its tail of
fewer than `ctx` tokens is dropped, as the original's `Dataset.map(batched=True, batch_size=10_000)` does.

Threads read, encode and map; one thread cuts and hashes what they hand over in order, and another writes it. Reading
and encoding take most of the time, some 400 MB/s of text a core each.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import check_room
from duckling_data.base.errors import InputError
from duckling_data.base.files import remove
from duckling_data.base.records import Count, FileRecord
from duckling_data.rows.cut import RowPacker, story_positions
from duckling_data.rows.layout import Positions, TokenIds, column_dtypes
from duckling_data.rows.write import RowWriter
from duckling_data.stages.base import Context, Made, Stage
from duckling_data.stages.count import COUNT, CountFigures
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.compact import Compacted, CompactTable
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, TokenMapping, read_mapping
from duckling_data.workspace.settings import ADDED

DATASET_NAMES = {"train": "tokenized_dataset", "validation": "tokenized_validation"}
"""The directory of each split's rows, inside the workspace."""

SEPARATORS = ("none", "eos")


@dataclass(frozen=True)
class PackSettings:
    """The settings of the stage."""

    ctx: int = 512
    """Tokens in a row."""
    group: int | None = 10_000
    """Stories concatenated before they are cut; None concatenates all."""
    separator: str = "none"
    """What follows each story: nothing, or `<|endoftext|>` (a mapping made with --eos)."""
    positions: bool = field(default=False, metadata=ADDED)
    """Whether a second column holds each token's index in its own story; a separator is its story's last token."""

    def __post_init__(self) -> None:
        if not 1 <= self.ctx <= 1 << 20:
            raise InputError(f"--ctx {self.ctx}: expected a number of tokens from 1 to {1 << 20:,}.")
        if self.group is not None and self.group < 1:
            raise InputError(f"--group {self.group}: expected a number of stories from 1 up, or `all`.")
        if self.separator not in SEPARATORS:
            raise InputError(f"--separator {self.separator}: expected one of {', '.join(SEPARATORS)}.")


class SplitFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What is measured while a split is packed."""

    stories: Count
    null_stories: Count
    gpt2_tokens: Count
    """Tokens of the stories, before they are mapped."""
    unknown_tokens: Count
    """Those among them that are lost: without a live id of their own, and not split into pieces."""
    unknown_rate: float
    """Their share."""
    tokens: Count
    """Compact ids, before the tails are dropped."""
    rows: Count
    dropped_tail_tokens: Count
    payload_sha256: str
    """SHA-256 of the rows' tokens, little-endian uint16, in order."""
    positions_sha256: str | None = None
    """SHA-256 of the tokens' positions, little-endian uint32, in order; None where none are stored."""
    split_tokens: Count | None = None
    """Under `--unk decompose` the tokens of the stories that are split into pieces; None under other policies.

    Also None in what version 0.1.0 recorded, where they are among the unknown ones.
    """


class PackFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is measured while packing."""

    splits: dict[Literal["train", "validation"], SplitFigures]

    def __post_init__(self) -> None:
        if "train" not in self.splits:
            raise ValueError("Object missing required split `train`")


class PackedBatch(NamedTuple):
    """The rows that some stories complete."""

    rows: TokenIds
    """(n, ctx)"""
    positions: Positions | None
    """(n, ctx), each token's index in its own story; None where they are not asked for."""
    lengths: npt.NDArray[np.int64]
    """(stories,) compact tokens in each story."""


class SplitPacker:
    """Turns a split's stories into rows. Raises InputError if the separator has no live id in the mapping."""

    def __init__(self, encoded: EncodedSplit, mapping: TokenMapping, settings: PackSettings) -> None:
        self._encoded = encoded
        self._table = CompactTable.from_mapping(mapping)
        self._separator = mapping["gpt2_to_compact"].get(str(GPT2.eos_id)) if settings.separator == "eos" else None
        if settings.separator == "eos" and self._separator is None:
            raise InputError(
                "--separator eos: <|endoftext|> has no live id in this mapping; "
                "make one with `duckling-data build-vocab --eos`."
            )
        self._packer = RowPacker(settings.ctx, settings.group)
        self._positions = RowPacker(settings.ctx, settings.group) if settings.positions else None
        self._splits = mapping.get("unk_policy") == DECOMPOSE
        self._split = 0
        self._sums = Counter(stories=0, null_stories=0, gpt2_tokens=0, unknown_tokens=0, tokens=0, rows=0)

    def compact(self, batch: EncodedBatch) -> tuple[Compacted, Positions | None, EncodedBatch]:
        """Return a batch's stories in compact ids, separators included, the tokens' positions, and the batch."""
        part = self._table.compact(batch.tokens, batch.lengths, self._separator)
        return part, story_positions(part.lengths) if self._positions else None, batch

    def batches(self, *, last: bool = False) -> Iterator[PackedBatch]:
        """Yield the rows, batch by batch. `last` as in `EncodedSplit.map`. To be gone through once, to the end."""
        for part, stream, batch in self._encoded.map(self.compact, last=last):
            rows = self._packer.add(part.tokens, part.lengths)
            positions = self._positions.add(stream, part.lengths) if self._positions and stream is not None else None
            self._sums.update(stories=len(part.lengths), null_stories=batch.nulls, gpt2_tokens=len(batch.tokens))
            self._sums.update(unknown_tokens=part.unknown, tokens=len(part.tokens), rows=len(rows))
            self._split += part.split
            yield PackedBatch(rows, positions, part.lengths)
        self._packer.finish()

    def figures(self, payload_sha256: str, positions_sha256: str | None, *, apart: bool = True) -> SplitFigures:
        """Return the figures of what `batches` gave; the digests of the rows and the positions are the caller's.

        Unless `apart`, tokens that are split are among the unknown ones, as version 0.1.0 recorded them.
        """
        sums = self._sums if apart else self._sums + Counter(unknown_tokens=self._split)
        return SplitFigures(
            **{name: sums[name] for name in self._sums}, dropped_tail_tokens=self._packer.dropped,
            unknown_rate=round(sums["unknown_tokens"] / max(sums["gpt2_tokens"], 1), 9), payload_sha256=payload_sha256,
            positions_sha256=positions_sha256, split_tokens=self._split if self._splits and apart else None,
        )  # fmt: skip


def _write_split(
    context: Context, split: str, mapping: TokenMapping, settings: PackSettings
) -> tuple[RowWriter, SplitFigures]:
    """Write a split's rows beside their directory. Raises InputError if the split does not fill one row."""
    encoded = context.encoded[split]
    packer = SplitPacker(encoded, mapping, settings)
    stories = encoded.split.stories
    place, total_vocab = context.workspace / DATASET_NAMES[split], mapping["total_vocab"]
    with (
        RowWriter(place, settings.ctx, split, total_vocab, positions=settings.positions) as writer,
        context.reporter.bar(f"pack {split}", stories, "stories") as bar,
    ):
        for batch in packer.batches(last=True):
            writer.write(batch.rows, batch.positions)
            bar.update(len(batch.lengths))
        figures = packer.figures(writer.payload_sha256, writer.positions_sha256)
        if not figures.rows:
            raise InputError(
                f"the {stories:,} stories of the {split} split hold {figures.tokens:,} tokens and fill no row of --ctx "
                f"{settings.ctx}; lower --ctx, or give more stories."
            )
    return writer, figures


def _inputs(context: Context, settings: PackSettings) -> dict[str, str]:
    corpus = {f"corpus {split}": digest for split, digest in context.digests.items()}
    return {"mapping": context.output(VOCAB.name, MAPPING_FILE)} | corpus


def _check_room(context: Context, settings: PackSettings) -> None:
    """Raise OutsideError where the disk has no room for the rows: 2 bytes a token, less the tokens kept there.

    A token's position takes 4 bytes more.
    """
    counted = context.manifest.figures(COUNT.name, CountFigures)
    if counted is None:  # a mapping of the user's own needs no counts
        return
    a_token = sum(dtype.itemsize for dtype in column_dtypes(positions=settings.positions).values())
    a_story = a_token * counted.tokens // counted.stories_counted
    needed = sum(max(0, a_story * split.split.stories - split.kept_bytes) for split in context.encoded.values())
    check_room(context.workspace, min(needed, 1 << 62), "the packed rows")


def _make(context: Context, settings: PackSettings) -> Made[PackFigures]:
    _check_room(context, settings)
    mapping = read_mapping(context.workspace / MAPPING_FILE)
    written: dict[str, tuple[RowWriter, SplitFigures]] = {}
    try:
        for split in context.encoded:
            written[split] = _write_split(context, split, mapping, settings)
    except BaseException:
        for writer, _ in written.values():
            writer.discard()
        raise
    # Only now, with every row written, are the rows of before replaced.
    context.begin()
    outputs: dict[str, FileRecord] = {}
    for split, name in DATASET_NAMES.items():
        if split in written:
            writer = written[split][0]
            writer.put_in_place()
            outputs |= {f"{name}/{file}": made for file, made in writer.outputs.items()}
        else:  # left by another source
            remove(context.workspace / name)
    return outputs, msgspec.convert({"splits": {s: f for s, (_, f) in written.items()}}, PackFigures)


def _summary(figures: PackFigures) -> str:
    rows = ", ".join(f"{split.rows:,} rows ({name})" for name, split in figures.splits.items())
    train = figures.splits["train"]
    share = None if train.split_tokens is None else train.split_tokens / max(train.gpt2_tokens, 1)
    split = "" if share is None else f", split into pieces {share:.4%}"
    return f"{rows}, unknown tokens {train.unknown_rate:.4%}{split}"


PACK = Stage(
    name="pack", needs=(VOCAB.name,), outputs=tuple(DATASET_NAMES.values()), settings=PackSettings, figures=PackFigures,
    inputs=_inputs, make=_make, summary=_summary,
)  # fmt: skip
