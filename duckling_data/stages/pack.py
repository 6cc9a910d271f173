"""Stage `pack`: every story of a split, encoded and mapped to compact ids, cut into rows of `ctx` tokens.

Each run of `group` consecutive stories is one stream of tokens, without separators unless asked for; its tail of
fewer than `ctx` tokens is dropped, as the original's `Dataset.map(batched=True, batch_size=10_000)` does.

Threads read, encode and map; one thread cuts and hashes what they hand over in order, and another writes it. The
bound is reading and encoding, some 400 MB/s of text a core each; the README has the figures of all parts.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.disk import check_room
from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.rows.layout import TokenIds, row_dtype
from duckling_data.rows.write import RowWriter
from duckling_data.tokens.compact import Compacted, CompactTable
from duckling_data.tokens.encoding import EncodedBatch, EncodedSplit
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import TokenMapping

SEPARATORS = ("none", "eos")


@dataclass(frozen=True)
class PackSettings:
    """The settings of the stage."""

    ctx: int = 512
    """Tokens in a row."""
    group: int | None = 10_000
    """Stories concatenated before they are cut; None concatenates all."""
    separator: str = "none"
    """What stands behind each story: nothing, or `<|endoftext|>` (a mapping made with --eos)."""

    def __post_init__(self) -> None:
        if not 1 <= self.ctx <= 1 << 20:
            raise InputError(f"--ctx {self.ctx}: expected a number of tokens from 1 to {1 << 20:,}.")
        if self.group is not None and self.group < 1:
            raise InputError(f"--group {self.group}: expected a number of stories from 1 up, or `all`.")
        if self.separator not in SEPARATORS:
            raise InputError(f"--separator {self.separator}: expected one of {', '.join(SEPARATORS)}.")


class RowPacker:
    """Cuts a stream of stories into rows; the same rows however the stories are batched."""

    def __init__(self, ctx: int, group: int | None) -> None:
        self.ctx = ctx
        self.group = group
        self.dropped = 0
        """Tokens in the tails dropped so far."""
        self._carry: TokenIds = np.empty(0, row_dtype(0))
        self._in_group = 0

    def add(self, tokens: TokenIds, lengths: npt.NDArray[np.int64]) -> TokenIds:
        """Return the rows that these stories complete: uint16, shape (n, ctx).

        `tokens` holds the stories one after the other, `lengths` their numbers of tokens. What is left of an
        unfinished group (fewer than ctx tokens) is kept for the next call.
        """
        stream = np.concatenate([self._carry, tokens]) if len(self._carry) else tokens
        ends = self._group_ends(lengths, len(self._carry))
        begins = np.concatenate([[0], ends])
        stops = np.append(ends, len(stream))
        rows = (stops - begins) // self.ctx
        # Row r of a group starts r * ctx behind the group's begin: all starts at once, for any number of groups.
        within = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
        starts = np.repeat(begins, rows) + within * self.ctx
        tails = stops - begins - rows * self.ctx
        self.dropped += int(tails[:-1].sum())
        self._carry = stream[len(stream) - int(tails[-1]) :].copy()
        return self._cut(stream, starts)

    def _cut(self, stream: TokenIds, starts: npt.NDArray[np.int64]) -> TokenIds:
        if len(starts) == 0:
            return np.empty((0, self.ctx), stream.dtype)
        windows = np.lib.stride_tricks.sliding_window_view(stream, self.ctx)
        rows: TokenIds = windows[starts]
        return rows

    def _group_ends(self, lengths: npt.NDArray[np.int64], offset: int) -> npt.NDArray[np.int64]:
        """Return where, in the stream that starts `offset` tokens before these stories, groups end."""
        if self.group is None:
            return np.empty(0, np.int64)
        last = np.arange(self.group - self._in_group - 1, len(lengths), self.group)
        self._in_group = (self._in_group + len(lengths)) % self.group
        ends: npt.NDArray[np.int64] = np.cumsum(lengths)[last] + offset
        return ends

    def finish(self) -> None:
        """Drop the tail of the last group."""
        self.dropped += len(self._carry)
        self._carry = self._carry[:0]


@dataclass(frozen=True)
class PackedSplit:
    """A split's rows, written but not yet in place."""

    writer: RowWriter
    figures: dict[str, Any]


def check_rows_room(workspace: Path, encoded: Mapping[str, EncodedSplit], counted: Mapping[str, Any]) -> None:
    """Raise OutsideError where the disk has no room for the rows: 2 bytes a token, as many a story as were counted.

    `counted` are the figures of the stage `count`. Tokens that are kept on the disk make room for their rows.
    """
    tokens, stories = int(counted.get("tokens", 0)), max(1, int(counted.get("stories_counted", 1)))
    needed = sum(max(0, tokens * part.split.stories * 2 // stories - part.kept_bytes) for part in encoded.values())
    check_room(workspace, min(needed, 1 << 62), "the packed rows")


def pack_split(
    encoded: EncodedSplit, name: str, mapping: TokenMapping, settings: PackSettings, place: Path, reporter: Reporter
) -> PackedSplit:
    """Write the rows of the split `name` beside the directory `place`; the result's writer puts them in place.

    Raises InputError if the separator has no live id, or if the split does not fill one row.
    """
    table = CompactTable.from_mapping(mapping)
    separator = _separator(mapping, settings)
    packer = RowPacker(settings.ctx, settings.group)
    stories = nulls = gpt2_tokens = tokens = unknown = 0

    def compact(batch: EncodedBatch) -> tuple[Compacted, EncodedBatch]:
        return table.compact(batch.tokens, batch.lengths, separator), batch

    with (
        RowWriter(place, settings.ctx, name, mapping["total_vocab"]) as writer,
        reporter.bar(f"pack {name}", encoded.split.stories, "stories") as bar,
    ):
        for part, batch in encoded.map(compact, last=True):
            stories += len(part.lengths)
            writer.write(packer.add(part.tokens, part.lengths))
            nulls += batch.nulls
            gpt2_tokens += len(batch.tokens)
            tokens += len(part.tokens)
            unknown += part.unknown
            bar.update(len(part.lengths))
        packer.finish()
        if writer.rows == 0:
            raise InputError(
                f"the {stories:,} stories of the {name} split hold {tokens:,} tokens and fill no row of --ctx "
                f"{settings.ctx}. Lower --ctx, or give more stories."
            )
    figures = {
        "stories": stories,
        "null_stories": nulls,
        "gpt2_tokens": gpt2_tokens,
        "unknown_tokens": unknown,
        "unknown_rate": round(unknown / max(gpt2_tokens, 1), 9),
        "tokens": tokens,
        "rows": writer.rows,
        "dropped_tail_tokens": packer.dropped,
        "payload_sha256": writer.payload_sha256,
    }
    return PackedSplit(writer, figures)


def _separator(mapping: TokenMapping, settings: PackSettings) -> int | None:
    if settings.separator == "none":
        return None
    compact: int | None = mapping["gpt2_to_compact"].get(str(GPT2.eos_id))
    if compact is None:
        raise InputError(
            "--separator eos: <|endoftext|> has no live id in this mapping. "
            "Make one with `duckling-data build-vocab --eos`."
        )
    return compact
