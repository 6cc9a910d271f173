"""What holds for every test: one thread for those side by side, Ctrl-C heeded, the same drawn examples every time.

Tests that run side by side share the cores: one thread each, before torch is imported, and so in their children.
hypothesis draws the same examples in every run; `HYPOTHESIS_PROFILE=explore` (`make soak`) draws others each time, and
of hostile bytes many more.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

if TYPE_CHECKING:
    from tests.support.browser import Browser

pytest.register_assert_rewrite("tests.support")

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:  # as in a job that a script started with &: children inherit it
    signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("same", derandomize=True, print_blob=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))


@pytest.fixture(scope="session")
def browser() -> Iterator[Browser]:
    """Headless Chromium, one for all tests of a process; they are skipped where there is none."""
    from tests.support.browser import browser

    with browser() as chromium:
        yield chromium
