"""Encodes batches of stories side by side, each thread with an encoder of its own, the results in order.

One shared encoder would make the threads wait for each other: it holds a lock while it works.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable, Iterator
from typing import TypeVar

from duckling_data.corpus import StoryBatch
from duckling_data.gpt2 import Encoder, load_encoder
from duckling_data.parallel import ordered_map

R = TypeVar("R")


def encode_map(
    fn: Callable[[Encoder, StoryBatch], R], batches: Iterable[StoryBatch], workers: int, encoder: str
) -> Iterator[R]:
    """Yield `fn(encoder, batch)` for each batch, in order; `encoder` is a name in `gpt2.ENCODERS`."""
    own = threading.local()

    def work(batch: StoryBatch) -> R:
        if not hasattr(own, "encoder"):
            own.encoder = load_encoder(encoder)
        return fn(own.encoder, batch)

    return ordered_map(work, batches, workers)
