"""Rows made again from the stories, and compared.

Every row is made again with one encoder, and a sample of the rows a second time with the other: of the stories that
such a row is cut from, the other encoder must give the same ids. (`--deep` makes every row with the other one.)
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import numpy.typing as npt

from duckling_data.rows.layout import TokenIds
from duckling_data.rows.read import StoredRows
from duckling_data.stages.pack import DATASET_NAMES, PackFigures, PackSettings, SplitFigures, SplitPacker
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, read_mapping
from duckling_data.verify.derive import Stories, figure_faults

SAMPLE_ROWS = 1000
"""Rows of a split that the other encoder makes again."""
SAMPLE_SEED = 0


def pack_faults(workspace: Path, settings: PackSettings, figures: PackFigures, stories: Stories) -> Iterator[str]:
    """Yield what of the rows and their figures is not as the stories give it; of each split the first difference."""
    mapping = read_mapping(workspace / MAPPING_FILE)
    for split, recorded in figures.splits.items():
        stored = StoredRows(workspace / DATASET_NAMES[split])
        difference = SplitCheck(split, mapping, settings, stories).difference(stored, recorded)
        if difference is not None:
            yield difference


class SplitCheck:
    """The rows of a split, made again."""

    def __init__(self, split: str, mapping: TokenMapping, settings: PackSettings, stories: Stories) -> None:
        self._split = split
        self._mapping = mapping
        self._settings = settings
        self._stories = stories
        self._lengths: list[npt.NDArray[np.int64]] = []
        """Compact tokens in each story, in the split's order."""

    def difference(self, stored: StoredRows, recorded: SplitFigures) -> str | None:
        """Return the first difference between the stored rows or the recorded figures and the stories', or None."""
        encoded = self._stories.encoded(self._split)
        packer = SplitPacker(encoded, self._mapping, self._settings)
        made = 0
        with self._stories.reporter.bar(f"verify {self._split} rows", encoded.split.stories, "stories") as bar:
            for rows, lengths in packer.batches():
                if (difference := stored.difference(made, rows)) is not None:
                    return difference
                made += len(rows)
                self._lengths.append(lengths)
                bar.update(len(lengths))
        if len(stored) > made:
            return f"{stored.where(made)} was added, the stories give {made:,} rows"
        derived = packer.figures(stored.payload_sha256())
        wrong = next(figure_faults(f"the {self._split} split", derived, recorded), None)
        return wrong if wrong is not None or self._stories.other is None else self.sample_difference(stored)

    def sample_difference(self, stored: StoredRows) -> str | None:
        """Return the first sampled row that the other encoder makes otherwise, or None. Called after `difference`."""
        chosen = sample_rows(len(stored))
        ctx, lengths = self._settings.ctx, np.concatenate(self._lengths)
        begins = row_begins(lengths, self._settings)[chosen]
        ends = np.cumsum(lengths)
        first = np.searchsorted(ends, begins, side="right")
        last = np.searchsorted(ends, begins + ctx - 1, side="right")
        again = self._encode_again(first, last, len(lengths))
        offsets = begins - (ends - lengths)[first]
        for row, start, stop, offset in np.stack([chosen, first, last, offsets], axis=1).tolist():
            derived = np.concatenate([again[story] for story in range(start, stop + 1)])[offset : offset + ctx]
            if len(derived) < ctx:
                difference: str | None = f"{stored.where(row)}: its stories have {len(derived)} tokens, expected {ctx}"
            else:
                difference = stored.difference(row, derived[np.newaxis])
            if difference is not None:
                return f"{difference} (by the encoder {self._stories.other})"
        return None

    def _encode_again(
        self, first: npt.NDArray[np.int64], last: npt.NDArray[np.int64], count: int
    ) -> dict[int, TokenIds]:
        """Return the compact tokens from the other encoder of the stories from each `first` to its `last`, by story."""
        wanted = np.zeros(count, bool)
        for start, stop in zip(first.tolist(), last.tolist(), strict=True):
            wanted[start : stop + 1] = True
        encoded = self._stories.encoded(self._split, self._stories.other)
        packer = SplitPacker(encoded, self._mapping, self._settings)
        again: dict[int, TokenIds] = {}
        for part, batch in encoded.map(packer.compact, wanted):
            tokens = np.split(part.tokens, np.cumsum(part.lengths)[:-1])
            again |= dict(zip(batch.stories.tolist(), tokens, strict=False))
        return again


def sample_rows(rows: int) -> npt.NDArray[np.int64]:
    """Return the numbers of the rows sampled of so many, ascending: the same every time."""
    chosen = np.random.default_rng(SAMPLE_SEED).choice(rows, min(rows, SAMPLE_ROWS), replace=False)
    return np.sort(chosen)


def row_begins(lengths: npt.NDArray[np.int64], settings: PackSettings) -> npt.NDArray[np.int64]:
    """Return where each row begins in the stream of all the stories' tokens, the tails of groups included.

    `lengths` are the compact tokens of each story.
    """
    group = settings.group or max(len(lengths), 1)
    tokens = np.add.reduceat(lengths, np.arange(0, len(lengths), group))
    rows = tokens // settings.ctx
    within = np.arange(rows.sum()) - np.repeat(np.cumsum(rows) - rows, rows)
    begins: npt.NDArray[np.int64] = np.repeat(np.cumsum(tokens) - tokens, rows) + within * settings.ctx
    return begins
