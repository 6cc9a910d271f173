"""Tests that run side by side share the cores: one thread each, before torch is imported, and so in their children."""

from __future__ import annotations

import os

if "PYTEST_XDIST_WORKER" in os.environ:
    os.environ["OMP_NUM_THREADS"] = "1"
