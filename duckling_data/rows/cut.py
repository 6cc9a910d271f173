"""Cuts stories into rows of `ctx` tokens, and says where in its story each token is."""

from __future__ import annotations

from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt

from duckling_data.rows.layout import Positions, row_dtype

T = TypeVar("T", bound=np.unsignedinteger[Any])


def story_positions(lengths: npt.NDArray[np.int64]) -> Positions:
    """Return each token's index in its own story, for stories of these lengths one after the other: uint32."""
    starts = np.cumsum(lengths) - lengths
    return (np.arange(lengths.sum()) - np.repeat(starts, lengths)).astype(np.uint32)


class RowPacker:
    """Cuts a stream of stories into rows; the same rows however the stories are batched.

    The stream is of token ids, or of anything else that there is one of for each token.
    """

    def __init__(self, ctx: int, group: int | None) -> None:
        self.ctx = ctx
        self.group = group
        self.dropped = 0
        """Tokens in the tails dropped so far."""
        self._carry: npt.NDArray[Any] = np.empty(0, row_dtype(0))
        self._in_group = 0

    def add(self, tokens: npt.NDArray[T], lengths: npt.NDArray[np.int64]) -> npt.NDArray[T]:
        """Return the rows that these stories, one after the other in `tokens`, complete: their dtype, shape (n, ctx).

        What is left of an unfinished group (fewer than ctx tokens) is kept for the next call.
        """
        if self.ctx == 1 and self.group is None:
            return tokens.reshape(-1, 1)
        stream = np.concatenate([self._carry, tokens]) if len(self._carry) else tokens
        ends = self._group_ends(lengths, len(self._carry))
        begins = np.concatenate([[0], ends])
        stops = np.append(ends, len(stream))
        rows = (stops - begins) // self.ctx
        tails = stops - begins - rows * self.ctx
        self.dropped += int(tails[:-1].sum())
        self._carry = stream[len(stream) - int(tails[-1]) :].copy()
        return self._rows(stream, begins, rows)

    def _rows(
        self, stream: npt.NDArray[T], begins: npt.NDArray[np.int64], rows: npt.NDArray[np.int64]
    ) -> npt.NDArray[T]:
        """Return so many rows from each of these places of the stream on; it is not copied where it is one place."""
        total = int(rows.sum())
        if total == 0:  # the stream may be shorter than a window
            return np.empty((0, self.ctx), stream.dtype)
        if np.count_nonzero(rows) == 1:
            begin = int(begins[rows > 0][0])
            return stream[begin : begin + total * self.ctx].reshape(total, self.ctx)
        # Row r of a group starts r * ctx after the group's begin: all starts at once, for any number of groups.
        within = np.arange(total) - np.repeat(np.cumsum(rows) - rows, rows)
        starts = np.repeat(begins, rows) + within * self.ctx
        cut: npt.NDArray[T] = np.lib.stride_tricks.sliding_window_view(stream, self.ctx)[starts]
        return cut

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
