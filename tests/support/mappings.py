"""Stories, and a mapping made of them."""

from __future__ import annotations

from collections import Counter
from functools import cache
from typing import Any

from duckling_data.tokens.encoders import load_encoder

STORIES = [
    "Once upon a time, there was a little girl named Lily. She loved to play outside in the sunshine.",
    "One day, she saw a big red ball. “Can I play with it?” she asked her mom... “Yes,” said Mom!",
    "Lily's dog Max didn't like the rain.\n\nThey ran home, and Lily said, \"I'm happy!\" The end.",
    "Élodie et naïve 日本 🙂 \x00 2024",
]


@cache
def frequent_ids() -> list[int]:
    """STORIES' tokens, most frequent first."""
    counts: Counter[int] = Counter()
    for story in STORIES:
        counts.update(load_encoder().encode(story))
    return [gpt2 for gpt2, _ in counts.most_common()]


def make_mapping(policy: str, live: int = 60, dead: int = 20, extra: tuple[int, ...] = ()) -> dict[str, Any]:
    """A mapping of STORIES' most frequent tokens; `decompose` has all single bytes besides."""
    room = live - len(extra) - (policy == "reserved")
    ids = [*[gpt2 for gpt2 in frequent_ids() if gpt2 not in extra][:room], *extra]
    if policy == "decompose":
        ids += [byte for byte in range(256) if byte not in ids]
        live = len(ids)
    mapping = {
        "live_tokens": live,
        "dead_tokens": dead,
        "total_vocab": live + dead,
        "unk_id": live - 1 if policy == "reserved" else 0,
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(ids)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(ids)},
        "live_token_ids": ids,
    }
    return mapping | ({"unk_policy": "decompose"} if policy == "decompose" else {})
