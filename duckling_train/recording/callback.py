"""The recorder for notebooks and scripts: a hook of any engine, and a callback of any Hugging Face Trainer."""

from __future__ import annotations

from collections.abc import Collection
from pathlib import Path
from typing import Any

from duckling_train.engines.reference.callbacks import TrainerHook
from duckling_train.recording.recorder import Recording


class Recorder(Recording, TrainerHook):
    """Records rows of W, and more, while a model trains: `Recording` says what and how; its keywords are the same.

    >>> recorder = Recorder("two-steps.zarr", experiment.dead_token_ids)
    >>> tracker = experiment.train(2, callbacks=[recorder])
    step ...
    >>> Record.open("two-steps.zarr").W[2].shape
    (2048, 128)
    """

    def __init__(self, path: Path | str, dead: Collection[int], rows: str = "dead", **settings: Any) -> None:
        Recording.__init__(self, path, dead, rows, **settings)
        TrainerHook.__init__(self)
