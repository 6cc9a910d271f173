"""Where a report is written, and how it is opened."""

from __future__ import annotations

import os
import webbrowser
from collections.abc import Sequence
from pathlib import Path

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.base.files import write_bytes
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.opened import open_run
from duckling_train.runs.layout import REPORT


def write_report(run_dirs: Sequence[Path], workspace: Path, out: Path | None, reporter: Reporter = SILENT) -> Path:
    """Write the page of these runs and return its path: `out`, else in the run's directory, of several runs here.

    Raises InputError for a damaged run and an `out` that cannot be written.
    """
    path = out or (run_dirs[0] / REPORT if len(run_dirs) == 1 else Path(REPORT))
    if path.suffix.lower() != ".html":
        raise InputError(f"--out is {path}; the page is HTML, so its name must end in .html")
    if path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise InputError(f"{path} cannot be written; expected a file in a directory that can; give another --out")
    from duckling_train.report.page import report

    write_bytes(path, report([open_run(run_dir, workspace) for run_dir in run_dirs], reporter))
    return path


def open_page(path: Path) -> None:
    """Open a page in the browser. Raises OutsideError where there is none."""
    if not webbrowser.open(path.resolve().as_uri()):
        raise OutsideError(
            f"{path}: no browser was found; expected one, or its name in BROWSER; open the page yourself"
        )
