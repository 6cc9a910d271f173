"""The report: what the counts, the mapping and the rows of a workspace look like, as four figures and one page.

`facts` gathers, `plots` draws, `page` writes the page around the figures. All of it comes from the workspace's own
files and manifest, with no clock, host or path: equal workspaces give equal bytes.
"""

from __future__ import annotations

from pathlib import Path

from duckling_data.base.disk import make_directory
from duckling_data.base.files import write_bytes
from duckling_data.base.progress import Reporter
from duckling_data.workspace.manifest import Manifest

REPORT_FOLDER = "report"
PAGE = "index.html"


def draw_report(workspace: Path, manifest: Manifest, reporter: Reporter) -> dict[str, bytes]:
    """Return the report's files by name: the figures, then the page.

    Needs the stages `count` and `build-vocab`; shows the rows where `pack` has made them. Raises InputError for counts
    or a mapping that cannot be read, and as `load` does.
    """
    from duckling_data.base.plotting import load

    load()  # before anything imports matplotlib's parts
    from duckling_data.stages.report.facts import gather
    from duckling_data.stages.report.page import page
    from duckling_data.stages.report.plots import FIGURES, draw

    facts = gather(workspace, manifest)
    files: dict[str, bytes] = {}
    with reporter.bar("report", len(FIGURES), "figures") as bar:
        for name, content in draw(facts):
            files[name] = content
            bar.update()
    return files | {PAGE: page(facts, files)}


def write_report(workspace: Path, files: dict[str, bytes]) -> None:
    """Write the files into `report/` in the workspace. Raises OutsideError if the disk refuses."""
    folder = workspace / REPORT_FOLDER
    make_directory(folder)
    for name, content in files.items():
        write_bytes(folder / name, content)
