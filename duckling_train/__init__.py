"""Two files in, a recorded run out: the Duckling II model trained on the packed rows.

For a notebook or a script, `duckling_ii` opens everything at once, and `open_run` a run that was trained. The names
below are imported when they are first used, so that importing the package costs nothing.
"""

from typing import TYPE_CHECKING

from duckling_data.base.lazy import lazy_names

if TYPE_CHECKING:
    from duckling_train import plots as plots
    from duckling_train.config import TrainConfig as TrainConfig
    from duckling_train.engines.reference.callbacks import LossTracker as LossTracker
    from duckling_train.engines.reference.engine import CausalLMCollator as CausalLMCollator
    from duckling_train.engines.reference.engine import make_training_args as make_training_args
    from duckling_train.experiment import Experiment as Experiment
    from duckling_train.experiment import duckling_ii as duckling_ii
    from duckling_train.opened import Run as Run
    from duckling_train.opened import open_run as open_run
    from duckling_train.recording.callback import Recorder as Recorder
    from duckling_train.recording.memory import WRecorder as WRecorder
    from duckling_train.recording.record import Record as Record

    __version__: str

__all__, __getattr__, __dir__ = lazy_names(
    __name__,
    {
        "config": ("TrainConfig",),
        "engines.reference.engine": ("CausalLMCollator", "make_training_args"),
        "experiment": ("Experiment", "duckling_ii"),
        "recording.callback": ("Recorder",),
        "recording.record": ("Record",),
        "recording.memory": ("WRecorder",),
        "engines.reference.callbacks": ("LossTracker",),
        "opened": ("Run", "open_run"),
        "plots": (),
    },
)
