"""The fixture of the tests that disturb commands."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.fault.disk import Disk, compile_shim


@pytest.fixture(scope="module")
def disk(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Disk]:
    """Runs commands and disturbs them."""
    scratch = tmp_path_factory.mktemp("disk")
    shim = compile_shim(scratch)
    if shim is None:
        pytest.skip("needs Linux and a C compiler (cc) for tests/support/fault/shim.c")
    with Disk(shim, scratch) as running:
        yield running


@pytest.fixture(scope="module")
def scratch(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder for the cases."""
    return tmp_path_factory.mktemp("cases")
