"""The engines that train. `reference` is the Hugging Face Trainer, bitwise the seed's notebook."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from duckling_train.engines.base import Engine


def load_engine(name: str) -> Engine:
    """Return the engine of one of `config.CHOICES`. The libraries behind it are imported when it trains: seconds."""
    engine: Engine = import_module(f"duckling_train.engines.{name}.engine").ENGINE
    return engine
