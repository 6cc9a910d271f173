"""From the base tokenizer's ids to compact ids by table look-up, for millions of tokens at a time."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.rows.layout import TokenIds, row_dtype
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import DECOMPOSE, TokenMapping

Lengths = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Compacted:
    """Some stories in compact ids."""

    tokens: TokenIds
    """The stories one after the other."""
    lengths: Lengths
    """Tokens in each story, separators included."""
    unknown: int
    """Base tokens among them that are lost: they have no live id, nor are they split into pieces that all have one."""
    split: int
    """Base tokens among them that are split into pieces, each with a live id (policy `decompose`)."""


@dataclass(frozen=True)
class CompactTable:
    """How each base id is mapped: to `first[id]` and, where a token is split, to the further pieces after it."""

    live: TokenIds
    """(base vocabulary,) the live id of each base id, or `none`."""
    first: TokenIds
    """(base vocabulary,) what replaces each base id: its live id, or the first piece's, or the unknown token's."""
    more: Mapping[int, TokenIds]
    """The second and later pieces of each base id that is split (policy `decompose`)."""
    whole: npt.NDArray[np.bool_]
    """(base vocabulary,) whether a token without a live id is split into pieces that all have one."""
    none: int
    """What `live` holds where a token has no live id: the dtype's largest value, above every live id."""
    dtype: np.dtype[Any]
    """That of rows."""

    @classmethod
    def from_mapping(cls, mapping: TokenMapping, base: BaseTokenizer = GPT2) -> CompactTable:
        """Return the table of a checked mapping of the tokens of `base`."""
        live = {int(token): compact for token, compact in mapping["gpt2_to_compact"].items()}
        unk = mapping["unk_id"]
        dtype = row_dtype(max(mapping["total_vocab"], mapping["live_tokens"] + 1))  # `none` is no live id
        none = int(np.iinfo(dtype).max)
        own = np.full(base.vocab_size, none, dtype)
        own[list(live)] = list(live.values())
        first = np.where(own == none, dtype.type(unk), own)
        more: dict[int, TokenIds] = {}
        whole = np.zeros(base.vocab_size, bool)
        if mapping.get("unk_policy") == DECOMPOSE:
            for token in np.flatnonzero(own == none).tolist():
                parts = base.split(token, live)
                pieces = [live.get(piece, unk) for piece in parts]
                whole[token] = all(piece in live for piece in parts)
                first[token] = pieces[0]
                if len(pieces) > 1:
                    more[token] = np.array(pieces[1:], dtype)
        return cls(own, first, more, whole, none, row_dtype(mapping["total_vocab"]))

    def compact(self, tokens: npt.NDArray[Any], lengths: Lengths, separator: int | None = None) -> Compacted:
        """Return the stories in compact ids, `separator` (a compact id) after each if one is given."""
        compact = self.live.take(tokens)
        # One look-up for all tokens, one more for the few that have no live id.
        where = np.flatnonzero(compact == self.none)
        split = int(np.count_nonzero(self.whole[tokens[where]]))
        compact[where] = self.first[tokens[where]]
        compact = compact.astype(self.dtype, copy=False)
        if self.more:
            compact, lengths = self._split(tokens, compact, lengths, where)
        if separator is not None:
            compact, lengths = np.insert(compact, np.cumsum(lengths), separator), lengths + 1
        return Compacted(compact, lengths, len(where) - split, split)

    def _split(
        self, tokens: npt.NDArray[Any], compact: TokenIds, lengths: Lengths, where: npt.NDArray[np.int64]
    ) -> tuple[TokenIds, Lengths]:
        """Insert the further pieces after the tokens at the positions `where`."""
        at = where[[token in self.more for token in tokens[where].tolist()]]
        if not len(at):
            return compact, lengths
        pieces = [self.more[token] for token in tokens[at].tolist()]
        extra = np.array(list(map(len, pieces)))
        inserted = np.insert(compact, np.repeat(at + 1, extra), np.concatenate(pieces))
        story = np.searchsorted(np.cumsum(lengths), at, side="right")
        return inserted, lengths + np.bincount(story, weights=extra, minlength=len(lengths)).astype(np.int64)
