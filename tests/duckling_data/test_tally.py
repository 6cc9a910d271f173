"""A tally holds positions as large as a split may have stories."""

from __future__ import annotations

import numpy as np
import pytest

from duckling_data.base.errors import InputError
from duckling_data.stages.count import MOST_STORIES, CountSettings, sample_positions
from duckling_data.stages.tally import Tally, tally_batch
from duckling_data.tokens.encoding import EncodedBatch


def test_a_token_of_the_last_possible_story_comes_after_all_others_and_before_none() -> None:
    tokens, lengths = np.array([7, 8, 8], np.uint16), np.array([1, 2])
    batch = EncodedBatch(np.arange(2), tokens, lengths, 2, 0)
    total = Tally.zero()
    total.add(tally_batch(batch, np.array([MOST_STORIES - 1, MOST_STORIES - 2], np.int32), total.earliest()))
    assert total.earliest()[[7, 8, 9]].tolist() == [MOST_STORIES - 1, MOST_STORIES - 2, MOST_STORIES]
    assert total.counts().rows.tolist() == [[8, 2, 0], [7, 1, 1]]


def test_more_stories_are_refused() -> None:
    with pytest.raises(InputError, match="2,147,483,648 stories, expected at most 2,147,483,647"):
        sample_positions(MOST_STORIES + 1, CountSettings(sample=None))
