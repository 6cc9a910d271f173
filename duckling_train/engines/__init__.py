"""The engines that train: `fast` by a step of its own; `reference` is the Hugging Face Trainer, bitwise the seed's."""

from __future__ import annotations

from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING

from duckling_data.base.errors import InputError

if TYPE_CHECKING:
    from duckling_train.config import TrainConfig
    from duckling_train.engines.base import Engine

FAST, REFERENCE = "fast", "reference"


def load_engine(name: str) -> Engine:
    """Return the engine of this name. The libraries behind it are imported when it trains: seconds."""
    engine: Engine = import_module(f"duckling_train.engines.{name}.engine").ENGINE
    return engine


def choose_engine(config: TrainConfig) -> tuple[TrainConfig, str]:
    """Return `config`, its device resolved, with the engine that auto stands for, and why it is that one.

    Raises InputError where an engine that is asked for does not have a setting.
    """
    if config.engine != "auto":
        engine = load_engine(config.engine)
        return engine.checked(config), "as asked"
    try:
        return load_engine(FAST).checked(replace(config, engine=FAST)), "it has every setting given"
    except InputError as error:
        if config.compile == "yes":  # which the reference does not have either
            raise
        return load_engine(REFERENCE).checked(replace(config, engine=REFERENCE)), str(error).partition(": ")[0]
