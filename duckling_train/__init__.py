"""Two files in, a recorded run out: the Duckling II model trained on the packed rows.

For a notebook or a script, `duckling_ii` opens everything at once, and `open_run` a run that was trained. The names
below are imported when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from duckling_data.base.lazy import lazy_names

if TYPE_CHECKING:
    from duckling_train.config import TrainConfig
    from duckling_train.engines.reference.engine import CausalLMCollator, make_training_args
    from duckling_train.experiment import Experiment, duckling_ii
    from duckling_train.recording.memory import WRecorder
    from duckling_train.runs.callbacks import LossTracker
    from duckling_train.runs.open import Run, open_run

    __version__: str

__all__ = [
    "CausalLMCollator",
    "Experiment",
    "LossTracker",
    "Run",
    "TrainConfig",
    "WRecorder",
    "duckling_ii",
    "make_training_args",
    "open_run",
]

__getattr__, __dir__ = lazy_names(
    __name__,
    {
        "CausalLMCollator": "duckling_train.engines.reference.engine",
        "Experiment": "duckling_train.experiment",
        "LossTracker": "duckling_train.runs.callbacks",
        "Run": "duckling_train.runs.open",
        "TrainConfig": "duckling_train.config",
        "WRecorder": "duckling_train.recording.memory",
        "duckling_ii": "duckling_train.experiment",
        "make_training_args": "duckling_train.engines.reference.engine",
        "open_run": "duckling_train.runs.open",
    },
)
