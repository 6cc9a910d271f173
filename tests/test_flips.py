"""A flipped bit in a record of a workspace or a run is named by `verify`, or changes nothing: never a traceback.

Here some bits of each record; `scripts/soak_flips.py` (`make soak`) flips them all.
"""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.support.flips import (
    RUN_RECORDS,
    WORKSPACE_RECORDS,
    make_run,
    make_workspace,
    outcomes,
    unfinished,
    verify_data,
    verify_run,
)

BITS = 50
"""How many bits of each record are flipped here."""
UNUSED = {"corpus/source.json"}
"""It may hold what does not matter, such as the text field of stories that are generated."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, tuple[Path, Callable[[Path], None]]]:
    """A workspace, a finished run and an unfinished one, each with what verifies it."""
    folder = tmp_path_factory.mktemp("flips")
    workspace = make_workspace(folder / "w")
    run = make_run(folder / "run", workspace)
    verify_data(workspace)
    verify_run(run)
    return {
        "workspace": (workspace, verify_data),
        "run": (run, verify_run),
        "unfinished": (unfinished(run, folder / "unfinished"), verify_run),
    }


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("workspace", name) for name in WORKSPACE_RECORDS),
        *((kind, name) for kind in ("run", "unfinished") for name in RUN_RECORDS),
    ],
)
def test_a_flipped_bit_is_named_or_harmless(
    folders: dict[str, tuple[Path, Callable[[Path], None]]], kind: str, name: str
) -> None:
    root, verify = folders[kind]
    if not (root / name).is_file():
        assert (kind, name) in {("unfinished", "manifest.json"), ("unfinished", "summary.json")}
        return
    bits = 8 * (root / name).stat().st_size
    for outcome, said in outcomes(root, name, verify, random.Random(name).sample(range(bits), min(BITS, bits))):
        assert outcome != "traceback", said
        # A finished run and a workspace record the digest of every record; nothing may pass for what it is not.
        assert outcome != "harmless" or kind == "unfinished" or name in UNUSED, said
