"""A split's stories become rows of compact ids: encoded, mapped, cut, and counted on the way."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field, fields, replace
from typing import Literal, NamedTuple

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.records import Count
from duckling_data.rows.cut import RowPacker, story_positions
from duckling_data.rows.layout import Positions, TokenIds
from duckling_data.tokens.compact import Compacted, CompactTable
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.mapping import DECOMPOSE, TokenMapping
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
    """SHA-256 of the rows' tokens, little-endian uint16 or, of a vocabulary of more than 65,536, uint32, in order."""
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


@dataclass(frozen=True)
class Sums:
    """What is counted while a split is packed; the sums of its parts add up to its own."""

    stories: int = 0
    null_stories: int = 0
    gpt2_tokens: int = 0
    unknown_tokens: int = 0
    """Without a live id, and not split into pieces."""
    split_tokens: int = 0
    tokens: int = 0
    rows: int = 0
    dropped: int = 0
    """Tokens in tails."""

    def __add__(self, other: Sums) -> Sums:
        return Sums(*(getattr(self, at.name) + getattr(other, at.name) for at in fields(Sums)))

    def figures(
        self, mapping: TokenMapping, payload_sha256: str, positions_sha256: str | None, *, apart: bool = True
    ) -> SplitFigures:
        """Return the figures of a whole split with these digests of its rows and positions.

        Unless `apart`, tokens that are split are among the unknown ones, as version 0.1.0 recorded them.
        """
        unknown = self.unknown_tokens + (0 if apart else self.split_tokens)
        return SplitFigures(
            stories=self.stories, null_stories=self.null_stories, gpt2_tokens=self.gpt2_tokens, unknown_tokens=unknown,
            unknown_rate=round(unknown / max(self.gpt2_tokens, 1), 9), tokens=self.tokens, rows=self.rows,
            dropped_tail_tokens=self.dropped, payload_sha256=payload_sha256, positions_sha256=positions_sha256,
            split_tokens=self.split_tokens if mapping.get("unk_policy") == DECOMPOSE and apart else None,
        )  # fmt: skip


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

    def __init__(
        self, encoded: EncodedSplit, mapping: TokenMapping, settings: PackSettings, *, cut: bool = True
    ) -> None:
        """Unless `cut`, the stream of tokens is given as it is: rows of one token."""
        self._encoded = encoded
        base = encoded.base
        self._table = CompactTable.from_mapping(mapping, base)
        self._separator = mapping["gpt2_to_compact"].get(str(base.eos_id)) if settings.separator == "eos" else None
        if settings.separator == "eos" and base.eos_id is None:
            raise InputError("--separator eos: this tokenizer has no token that ends a text; leave --separator out.")
        if settings.separator == "eos" and self._separator is None:
            raise InputError(
                f"--separator eos: {base.eos_text} has no live id in this mapping; "
                "make one with `duckling-data build-vocab --eos`."
            )
        ctx, group = (settings.ctx, settings.group) if cut else (1, None)
        self._packer = RowPacker(ctx, group)
        self._positions = RowPacker(ctx, group) if settings.positions else None
        self.sums = Sums()
        """What was counted so far."""

    def compact(self, batch: EncodedBatch) -> tuple[Compacted, Positions | None, EncodedBatch]:
        """Return a batch's stories in compact ids, separators included, the tokens' positions, and the batch."""
        part = self._table.compact(batch.tokens, batch.lengths, self._separator)
        return part, story_positions(part.lengths) if self._positions else None, batch

    def batches(self, *, last: bool = False) -> Iterator[PackedBatch]:
        """Yield the rows, batch by batch. `last` as in `EncodedSplit.map`. To be gone through once, to the end."""
        for part, stream, batch in self._encoded.map(self.compact, last=last):
            rows = self._packer.add(part.tokens, part.lengths)
            positions = self._positions.add(stream, part.lengths) if self._positions and stream is not None else None
            self.sums += Sums(
                len(part.lengths), batch.nulls, len(batch.tokens), part.unknown, part.split, len(part.tokens), len(rows)
            )
            yield PackedBatch(rows, positions, part.lengths)
        self._packer.finish()
        self.sums = replace(self.sums, dropped=self._packer.dropped)


def refuse_no_row(sums: Sums, split: str, settings: PackSettings) -> None:
    """Raise InputError for a split that fills no row."""
    if not sums.rows:
        raise InputError(
            f"the {sums.stories:,} stories of the {split} split hold {sums.tokens:,} tokens and fill no row of --ctx "
            f"{settings.ctx}; lower --ctx, or give more stories."
        )
