"""A flipped bit in a record of a workspace or a run is named by `verify`, or changes nothing: never a traceback.

Here some bits of each record; `scripts/soak_flips.py` (`make soak`) flips them all.
"""

from __future__ import annotations

import random

import pytest

from tests.support.flips import RUN_RECORDS, WORKSPACE_RECORDS, Target, outcomes, targets

BITS = 50
"""How many bits of each record are flipped here."""
UNUSED = {"corpus/source.json"}
"""It may hold what does not matter, such as the text field of stories that are generated."""


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Target]:
    """A workspace, a finished run and an unfinished one; nothing is flipped yet, and the first two verify."""
    made = targets(tmp_path_factory.mktemp("flips"))
    for kind in ("workspace", "run"):
        root, _, verify = made[kind]
        verify(root)
    return made


@pytest.mark.parametrize(
    ("kind", "name"),
    [
        *(("workspace", name) for name in WORKSPACE_RECORDS),
        *((kind, name) for kind in ("run", "unfinished") for name in RUN_RECORDS),
    ],
)
def test_a_flipped_bit_is_named_or_harmless(folders: dict[str, Target], kind: str, name: str) -> None:
    root, _, verify = folders[kind]
    if not (root / name).is_file():
        assert (kind, name) in {("unfinished", "manifest.json"), ("unfinished", "summary.json")}
        return
    bits = 8 * (root / name).stat().st_size
    for outcome, said in outcomes(root, name, verify, random.Random(name).sample(range(bits), min(BITS, bits))):
        assert outcome != "traceback", said
        # A finished run and a workspace record the digest of every record; nothing may pass for what it is not.
        assert outcome != "harmless" or kind == "unfinished" or name in UNUSED, said
