"""How many examples hypothesis draws of hostile bytes."""

from __future__ import annotations

from hypothesis import HealthCheck, settings

hostile = settings(
    max_examples=1000 if settings.get_current_profile_name() == "explore" else 10,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
"""For hostile bytes, of which hypothesis draws few in the tests: the fuzzers of `make soak` are to find more."""
