"""What holds for every test: one thread for those side by side, and the same drawn examples every time.

Tests that run side by side share the cores: one thread each, before torch is imported, and so in their children.
hypothesis draws the same examples in every run; `HYPOTHESIS_PROFILE=explore` (`make soak`) draws others each time, and
of hostile bytes many more.
"""

from __future__ import annotations

import os

from hypothesis import HealthCheck, settings

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"

settings.register_profile("same", derandomize=True, print_blob=True)
settings.register_profile("explore", derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "same"))

hostile = settings(
    max_examples=1000 if settings.get_current_profile_name() == "explore" else 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""For hostile bytes, of which hypothesis draws few in the tests: the fuzzers of `make soak` are to find more."""
