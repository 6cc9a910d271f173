"""A run opened by its path or name, for a notebook or a script."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_train.runs.read import RunRecord, find_run, model_directory, read_run

if TYPE_CHECKING:
    from transformers import GPT2LMHeadModel

    from duckling_data.tokens.tokenizer import DucklingTokenizer


@dataclass(frozen=True)
class Run(RunRecord):
    """What a run directory says about its run, and its model.

    >>> run = open_run("first")
    >>> run.finished, run.settings["n_embd"] == run.model().config.n_embd
    (True, True)
    """

    directory: Path
    """The run's directory."""

    def model(self) -> GPT2LMHeadModel:
        """Return the trained model, on the CPU in the dtype of its weights.

        Raises InputError for a run that has no model yet and for a damaged one.
        """
        from duckling_train.runs.generate import open_model

        return open_model(self.directory)[0]

    def tokenizer(self) -> DucklingTokenizer:
        """Return the tokenizer saved with the model. Raises InputError as `model` does."""
        from duckling_data.tokens.tokenizer import DucklingTokenizer

        folder = model_directory(self.directory)
        tokenizer: DucklingTokenizer = DucklingTokenizer.from_pretrained(str(folder), local_files_only=True)
        return tokenizer


def open_run(run: str | os.PathLike[str], workspace: str | os.PathLike[str] = "artifacts") -> Run:
    """Return a run's settings, losses, evaluations and summary. `run` is its name in the workspace, or its directory.

    Raises InputError where there is no such run, and for a damaged one.

    >>> run = open_run("first")
    >>> run.steps[-1], len(run.losses) == len(run.steps)
    (2, True)
    """
    directory = find_run(Path(workspace), os.fspath(run))
    return Run(**vars(read_run(directory)), directory=directory)
