"""Programs run for the scripts that make virtual environments."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def run(*words: object) -> str:
    """Return a program's standard output; stop with its error if it fails. The project is found by PYTHONPATH."""
    settings = os.environ | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(w) for w in words], capture_output=True, text=True, env=settings, check=False)
    if done.returncode:
        sys.exit(f"{' '.join(str(w) for w in words[:6])} … failed:\n{done.stderr}")
    return done.stdout
