"""What `inspect-embedding` is given: a safetensors file, a model's directory, or a run."""

from __future__ import annotations

from pathlib import Path

from duckling_data.base.errors import InputError
from duckling_train.runs.layout import METRICS, MODEL, RUNS
from duckling_train.runs.open import model_directory
from duckling_train.runs.read import find_run


def place_of(workspace: Path, given: str) -> Path:
    """Return the file or directory that holds the model: what is at the path `given`, else a run of that name.

    Of a run it is the directory of its model. Raises InputError where nothing is there, for a run without a model, and
    for a model that is not the one that a finished run wrote.
    """
    path = Path(given)
    try:
        there = path.exists()
        run_dir = path if there else find_run(workspace, given)
    except (OSError, ValueError, InputError) as error:  # the first two for what no file can be named
        expected = "expected a safetensors file, a directory with a model, or a run"
        fault = f"no such file or directory, nor a run of {workspace / RUNS}; {expected}"
        raise InputError(f"{given[:200]}: {fault}") from error
    if there and not (path.is_dir() and any((path / name).exists() for name in (MODEL, METRICS))):
        return path
    return model_directory(run_dir)
