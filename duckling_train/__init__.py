"""Two files in, a recorded run out: the Duckling II model trained on the packed rows.

For a notebook or a script, `duckling_ii` opens everything at once; the names below are imported when they are first
used, so that importing the package costs nothing.
"""

from __future__ import annotations

import warnings
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from duckling_train.config import TrainConfig
    from duckling_train.engines.reference.callbacks import LossTracker
    from duckling_train.engines.reference.engine import CausalLMCollator, make_training_args
    from duckling_train.experiment import Experiment, duckling_ii
    from duckling_train.recording.memory import WRecorder

__all__ = [
    "CausalLMCollator",
    "Experiment",
    "LossTracker",
    "TrainConfig",
    "WRecorder",
    "duckling_ii",
    "make_training_args",
]

_HOMES = {
    "CausalLMCollator": "duckling_train.engines.reference.engine",
    "Experiment": "duckling_train.experiment",
    "LossTracker": "duckling_train.engines.reference.callbacks",
    "TrainConfig": "duckling_train.config",
    "WRecorder": "duckling_train.recording.memory",
    "duckling_ii": "duckling_train.experiment",
    "make_training_args": "duckling_train.engines.reference.engine",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    _import_tqdm()
    value = getattr(import_module(_HOMES[name]), name)
    globals()[name] = value  # the next access finds it without this function
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})


def _import_tqdm() -> None:
    """Import `tqdm.auto` before transformers and datasets do, without its warning in a notebook that has no ipywidgets.

    Its bars are then plain text, which is all it warns of.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import_module("tqdm.auto")
