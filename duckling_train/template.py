"""`duckling-train template`: writes the notebook that an experiment starts from.

The notebook is `templates/experiment.ipynb`, a notebook in its own right. Its default workspace is set here, and the
numbers in its text are made those of the workspace. It is written without Jupyter's libraries, in the bytes in which
they would write it.
"""

from __future__ import annotations

import json
import math
import os
import re
from importlib.resources import files
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes
from duckling_train.config import TrainConfig
from duckling_train.data import Sizes, sizes_of

DUCKLING_II = Sizes(context=512, live=6144, vocabulary=8192)


def write_template(file: Path, workspace: Path, *, overwrite: bool = False) -> str | None:
    """Write the template notebook to `file`, with `workspace` as its default, its text of that workspace's sizes.

    Returns None, or in one line what the workspace lacks for the notebook to run; the text is then of Duckling II's.

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
    sizes, lacks = DUCKLING_II, None
    try:
        sizes = sizes_of(workspace)
    except InputError as error:
        lacks = str(error)
    write_bytes(file, notebook_bytes(seen_from(file.parent, workspace), sizes))
    return lacks


def numbers(sizes: Sizes) -> list[str]:
    """Return every number in the template's text that follows from the sizes, in one order for all sizes."""
    config = TrainConfig(**sizes.settings())
    bytes_of_w = 4 * config.n_embd * sizes.vocabulary
    return [
        f"{sizes.vocabulary:,}", f"{sizes.vocabulary}", f"{sizes.live:,}", f"{sizes.vocabulary - sizes.live:,}",
        f"{sizes.context:,} tokens", f"{config.batch_size * sizes.context:,} tokens", f"{config.parameters:,}",
        f"{math.log(sizes.vocabulary):.2f}", f"{bytes_of_w / 2**20:.2g} MiB", f"{bytes_of_w * 10_000 / 1e9:.2g} GB",
    ]  # fmt: skip


def notebook_bytes(workspace: str, sizes: Sizes = DUCKLING_II) -> bytes:
    """Return the template notebook for `workspace` of these sizes, as nbformat writes it: UTF-8 JSON, keys sorted.

    Raises InputError for a workspace whose name cannot be written in UTF-8.
    """
    notebook: dict[str, Any] = json.loads((files("duckling_train") / "templates" / "experiment.ipynb").read_bytes())
    (cell,) = (cell for cell in notebook["cells"] if "parameters" in cell["metadata"].get("tags", ()))
    (index,) = (index for index, line in enumerate(cell["source"]) if line.startswith("WORKSPACE = "))
    # A JSON string is the same string in Python, as long as nothing outside the basic plane is escaped.
    cell["source"][index] = f"WORKSPACE = {json.dumps(workspace, ensure_ascii=False)}\n"
    told = dict(zip(numbers(DUCKLING_II), numbers(sizes), strict=True))
    pattern = re.compile("|".join(map(re.escape, told)))
    for text in (cell for cell in notebook["cells"] if cell["cell_type"] == "markdown"):
        text["source"] = [pattern.sub(lambda match: told[match[0]], line) for line in text["source"]]
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
