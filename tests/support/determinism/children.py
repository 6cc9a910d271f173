"""A program that uses duckling_data as a library from children that it starts.

It is run as `python -m tests.support.determinism.children`. It builds a workspace itself first, so that a forked
child inherits whatever threads that leaves behind.
"""

from __future__ import annotations

import multiprocessing
import sys
from pathlib import Path
from typing import Any

from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from tests.support import HANG

METHODS = ("fork", "forkserver", "spawn")


def build(workspace: Path, source: Path) -> None:
    """Bring the rows of a small workspace up to date."""
    settings = {"sample": "all", "live": 300, "dead": 20, "ctx": 32}
    Pipeline(Request(workspace, 2, (str(source),), settings=settings), Reporter(quiet=True)).make("pack")


def main() -> None:
    """Build the source's workspace here, then once in a child of each kind: `place/parent`, `place/fork`, …"""
    source, place = Path(sys.argv[1]), Path(sys.argv[2])
    build(place / "parent", source)
    for method in METHODS:
        context: Any = multiprocessing.get_context(method)
        child = context.Process(target=build, args=(place / method, source))
        child.start()
        child.join(HANG)
        if child.exitcode != 0:
            child.kill()
            print(f"{method}: {child.exitcode}", file=sys.stderr)


if __name__ == "__main__":
    main()
