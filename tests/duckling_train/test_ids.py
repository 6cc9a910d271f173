"""Ids as a user writes them: what is no id is refused in one line."""

from __future__ import annotations

import pytest

from duckling_data.base.errors import InputError
from duckling_train.ids import ids_below, read_ids


def test_numbers_and_ranges_without_their_end() -> None:
    assert read_ids("6144:6200, 7", "record") == [range(6144, 6200), range(7, 8)]
    assert ids_below([range(5, 8), range(6, 9)], 9, "record") == [5, 6, 7, 8]


@pytest.mark.parametrize(
    "text", ["", "a", "1:2:3", "-1", "1,,2", "٣", "1.5", "9" * 5000, "1:" + "9" * 5000, ":", "5:5", "7:3"]
)
def test_anything_else_is_refused_in_one_line(text: str) -> None:
    with pytest.raises(InputError) as caught:
        read_ids(text, "--record")
    assert "--record" in str(caught.value)
    assert len(str(caught.value)) < 200
