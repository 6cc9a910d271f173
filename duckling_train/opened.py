"""A run as a notebook or a script opens it: by its path or name, what it says, its model, and the lab that it is of."""

from __future__ import annotations

import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.errors import InputError
from duckling_train.runs.open import open_model
from duckling_train.runs.read import RunRecord, find_run, read_run

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from duckling_data.tokens.tokenizer import DucklingTokenizer
    from duckling_train.experiment import Experiment
    from duckling_train.recording.record import Record


@dataclass(frozen=True)
class Run(RunRecord):
    """What a run directory says about its run, and its model.

    >>> run = open_run("first")
    >>> run.finished, run.settings["n_embd"] == run.model().config.n_embd
    (True, True)
    """

    directory: Path
    """The run's directory."""
    workspace: Path
    """The workspace that it is in, else the one that `open_run` was given."""

    def model(self) -> GPT2LMHeadModel:
        """Return the trained model, on the CPU in its weights' dtype. Raises InputError for none or a damaged one."""
        return open_model(self.directory)[0]

    def tokenizer(self) -> DucklingTokenizer:
        """Return the tokenizer saved with the model. Raises InputError as `model` does."""
        return open_model(self.directory)[1]

    @property
    def record(self) -> Record:
        """The record of a run that was trained with --record, as it is now.

        Raises InputError where there is none, and for a damaged one, or another run's.
        """
        from duckling_train.runs.recorded import open_record
        from duckling_train.runs.resume import read_config

        return open_record(self.directory, *read_config(self.directory))

    def lab(self) -> Experiment:
        """Return an open experiment as `duckling_ii` does, with the run's settings, its data and its trained model.

        Where the run's device is absent, `device` is the one that auto takes. Raises InputError as `model` does, and
        where the workspace does not hold the data that the run was trained on.
        """
        from duckling_train.experiment import open_experiment
        from duckling_train.model import resolve_device
        from duckling_train.runs.resume import first_difference, read_config

        trained = self.model().state_dict()
        config, inputs = read_config(self.directory)
        try:
            device = resolve_device(config.device)
        except InputError:
            device = resolve_device("auto")
        lab, record = open_experiment(replace(config, device=device, processes=1), self.workspace)
        if other := first_difference({name: inputs.get(name) for name in record}, record):
            raise InputError(
                f"{self.directory} was trained on another {other} than {self.workspace} holds: "
                "give open_run the run's own workspace"
            )
        lab.model.load_state_dict(trained)
        return lab


def open_run(run: str | os.PathLike[str], workspace: str | os.PathLike[str] = "artifacts") -> Run:
    """Return a run's settings, losses, evaluations and summary. `run` is its name in the workspace, or its directory.

    Raises InputError where there is no such run, and for a damaged one.

    >>> run = open_run("first")
    >>> run.steps[-1], len(run.losses) == len(run.steps)
    (2, True)
    >>> run.lab().W.shape
    torch.Size([8192, 128])
    """
    from duckling_train.runs.resume import workspace_of

    directory = find_run(Path(workspace), os.fspath(run))
    return Run(**vars(read_run(directory)), directory=directory, workspace=workspace_of(directory, Path(workspace)))
