"""From GPT-2 ids to compact ids by table look-up, for millions of tokens at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.tokens.gpt2 import GPT2_VOCAB_SIZE, gpt2_parts, split_to_live
from duckling_data.tokens.mapping import DECOMPOSE, TokenMapping

NONE = np.uint16(np.iinfo(np.uint16).max)
"""No live id. No mapping can give it: there are 50,257 GPT-2 ids, so live ids end below."""


@dataclass(frozen=True)
class Compacted:
    """Some stories in compact ids."""

    tokens: npt.NDArray[np.uint16]
    """The stories one after the other."""
    lengths: npt.NDArray[np.int64]
    """Tokens in each story, separators included."""
    unknown: int
    """GPT-2 tokens among them that have no live id of their own."""


@dataclass(frozen=True)
class CompactTable:
    """What becomes of each GPT-2 id: `first[id]` and, where a token is split, the further pieces behind it."""

    live: npt.NDArray[np.uint16]
    """(50257,) the live id of each GPT-2 id, or NONE."""
    first: npt.NDArray[np.uint16]
    """(50257,) what stands for each GPT-2 id: its live id, or the first piece's, or the unknown token's."""
    more: Mapping[int, npt.NDArray[np.uint16]]
    """The second and later pieces of each GPT-2 id that is split (policy `decompose`)."""

    @classmethod
    def from_mapping(cls, mapping: TokenMapping) -> CompactTable:
        """Return the table of a checked mapping."""
        live: dict[int, int] = {int(gpt2): int(compact) for gpt2, compact in mapping["gpt2_to_compact"].items()}
        unk: int = mapping["unk_id"]
        own = np.full(GPT2_VOCAB_SIZE, NONE, np.uint16)
        own[list(live)] = list(live.values())
        first = np.where(own == NONE, np.uint16(unk), own)
        more: dict[int, npt.NDArray[np.uint16]] = {}
        if mapping.get("unk_policy") == DECOMPOSE:
            parts = gpt2_parts()
            for gpt2 in np.flatnonzero(own == NONE).tolist():
                pieces = [live.get(piece, unk) for piece in split_to_live(gpt2, live, parts)]
                first[gpt2] = pieces[0]
                if len(pieces) > 1:
                    more[gpt2] = np.array(pieces[1:], np.uint16)
        return cls(own, first, more)

    def compact(
        self, tokens: npt.NDArray[Any], lengths: npt.NDArray[np.int64], separator: int | None = None
    ) -> Compacted:
        """Return the stories in compact ids, `separator` (a compact id) behind each if one is given."""
        compact = self.live.take(tokens)
        # One look-up for all tokens, one more for the few that have no live id.
        where = np.flatnonzero(compact == NONE)
        unknown = len(where)
        compact[where] = self.first[tokens[where]]
        if self.more:
            compact, lengths = self._split(tokens, compact, lengths, where)
        if separator is not None:
            compact, lengths = _separated(compact, lengths, separator)
        return Compacted(compact, lengths, unknown)

    def _split(
        self,
        tokens: npt.NDArray[Any],
        compact: npt.NDArray[np.uint16],
        lengths: npt.NDArray[np.int64],
        where: npt.NDArray[np.int64],
    ) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
        """Insert the further pieces behind the tokens at the positions `where`."""
        found = [
            (at, self.more[token])
            for at, token in zip(where, tokens[where].tolist(), strict=True)
            if token in self.more
        ]
        if not found:
            return compact, lengths
        at = np.array([position for position, _ in found])
        extra = np.array([len(pieces) for _, pieces in found])
        inserted = np.insert(compact, np.repeat(at + 1, extra), np.concatenate([pieces for _, pieces in found]))
        story = np.searchsorted(np.cumsum(lengths), at, side="right")
        longer = lengths + np.bincount(story, weights=extra, minlength=len(lengths)).astype(np.int64)
        return inserted, longer


def _separated(
    compact: npt.NDArray[np.uint16], lengths: npt.NDArray[np.int64], separator: int
) -> tuple[npt.NDArray[np.uint16], npt.NDArray[np.int64]]:
    longer = lengths + 1
    joined = np.empty(len(compact) + len(lengths), np.uint16)
    ends = np.zeros(len(joined), bool)
    ends[np.cumsum(longer) - 1] = True
    joined[ends] = separator
    joined[~ends] = compact
    return joined, longer
