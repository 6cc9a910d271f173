"""`duckling-train template`: writes the notebook that an experiment starts from.

The notebook is `templates/experiment.ipynb`, a notebook in its own right; only its default workspace is set here. It
is written without Jupyter's libraries, in the bytes in which they would write it.
"""

from __future__ import annotations

import json
import os
from importlib.resources import files
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes


def write_template(file: Path, workspace: Path, *, overwrite: bool = False) -> None:
    """Write the template notebook to `file`, with `workspace` as its default. Equal arguments give equal bytes.

    A relative `workspace` is relative to the current directory; in the notebook it is relative to the notebook's own
    folder, where Jupyter runs it.

    Raises InputError for a name without .ipynb, a folder, a missing or unwritable folder around it, an existing file
    unless `overwrite`, and a workspace whose name is not Unicode; OutsideError when the disk fails.
    """
    if file.suffix != ".ipynb":
        raise InputError(f"{file} does not end with .ipynb: a notebook's name does, such as my_experiment.ipynb")
    if not file.parent.is_dir():
        raise InputError(f"{file.parent} is not a folder: make it first, or choose another path")
    if not os.access(file.parent, os.W_OK | os.X_OK):
        raise InputError(f"{file.parent} is not writable: choose another path, or change its permissions")
    if file.is_dir():
        raise InputError(f"{file} is a folder: give the notebook another name")
    if not overwrite and os.path.lexists(file):
        raise InputError(f"{file} exists: give the notebook another name, or --overwrite")
    write_bytes(file, notebook_bytes(seen_from(file.parent, workspace)))


def notebook_bytes(workspace: str) -> bytes:
    """Return the template notebook with `workspace` as its default, as nbformat writes it: UTF-8 JSON, keys sorted.

    Raises InputError for a workspace whose name cannot be written in UTF-8.
    """
    notebook: dict[str, Any] = json.loads((files("duckling_train") / "templates" / "experiment.ipynb").read_bytes())
    (cell,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
    (index,) = (index for index, line in enumerate(cell["source"]) if line.startswith("WORKSPACE = "))
    # A JSON string is the same string in Python, as long as nothing outside the basic plane is escaped.
    cell["source"][index] = f"WORKSPACE = {json.dumps(workspace, ensure_ascii=False)}\n"
    try:
        return (json.dumps(notebook, indent=1, ensure_ascii=False, sort_keys=True) + "\n").encode()
    except UnicodeEncodeError as error:
        raise InputError(f"--workspace is {workspace!r}, which is not Unicode: a notebook cannot name it") from error


def seen_from(folder: Path, workspace: Path) -> str:
    """Return `workspace`, a path from the current directory, as a path from `folder`; as it is where it is absolute."""
    here, folder = Path.cwd().resolve(), folder.resolve()
    if workspace.is_absolute() or here == folder:
        return workspace.as_posix()
    return Path(os.path.relpath(here / workspace, folder)).as_posix()
