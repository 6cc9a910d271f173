"""What the report shows of tokens, shares and story lengths."""

from __future__ import annotations

import numpy as np
import pytest
from tokenizers import decoders

from duckling_data.stages.report.facts import Lengths, percent, visible
from duckling_data.stages.report.plots import _drawable
from duckling_data.tokens.gpt2 import GPT2, gpt2_vocabulary


def test_no_two_tokens_are_shown_alike() -> None:
    for drawable in (None, _drawable()):
        shown = [visible(token, drawable) for token in range(50_257)]
        assert len(set(shown)) == 50_257
        assert all(text.isprintable() and not text.startswith(" ") for text in shown)


def test_token_bytes_are_gpt2s() -> None:
    decode = decoders.ByteLevel().decode
    whole = 0
    for token, gpt2_id in gpt2_vocabulary().items():
        found, expected = GPT2.token_bytes(gpt2_id), decode([token])
        assert found.decode("utf-8", "replace") == expected
        whole += "\ufffd" not in expected
    assert whole > 49_000
    assert {GPT2.token_bytes(token) for token in range(256)} == {bytes([value]) for value in range(256)}


@pytest.mark.parametrize(
    ("gpt2_id", "shown"),
    [
        (262, "·the"),
        (198, "\\n"),
        (59, "\\\\"),
        (220, "·"),
        (188, "\\x00"),
        (1849, "\\u00a0"),
        (50256, "<|endoftext|>"),
    ],
)
def test_tokens_are_shown_with_visible_spaces_and_escapes(gpt2_id: int, shown: str) -> None:
    assert visible(gpt2_id) == shown


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [
        (0.995481, 4, "99.5481 %"),
        (0.5, 2, "50.00 %"),
        (1.0, 2, "100.00 %"),
        (0.0, 4, "0.0000 %"),
        (0.9999996, 2, "99.99996 %"),
        (3e-8, 4, "0.000003 %"),
    ],
)
def test_a_share_short_of_all_or_of_nothing_is_never_shown_as_it(share: float, digits: int, shown: str) -> None:
    assert percent(share, digits) == shown


def test_lengths_are_read_from_the_histogram() -> None:
    lengths = Lengths(np.array([0, 4, 4, 0, 2]), 16, mean=35.0)
    assert lengths.total == 10
    assert lengths.quantile(0.5) == 36.0  # a quarter into the bin from 32
    assert lengths.quantile(1.0) == 80.0
    assert lengths.median == (36.0, "about 36")
    assert lengths.at_least(32) == 6
    assert lengths.at_least(64) == 2
    assert lengths.at_least(33) is None
    assert lengths.at_least(16 * 127) == 0
    assert lengths.at_least(16 * 128) is None


def test_a_median_among_the_longest_stories_is_not_guessed() -> None:
    lengths = Lengths(np.array([4] + [0] * 126 + [6]), 16, mean=3000.0)
    assert lengths.open_ended
    assert lengths.median == (2032, "2,032 or more")
