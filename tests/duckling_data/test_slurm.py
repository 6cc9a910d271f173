"""The documented Slurm script, its tasks as real processes of one machine, gives the bytes of one process."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support import HANG, sbatch
from tests.support.data import snapshot

SCRIPT = Path(__file__).parents[2] / "scripts" / "slurm" / "pipeline.sh"
OPTIONS = {"COUNT_OPTIONS": "--sample all", "VOCAB_OPTIONS": "--live 300 --dead 20", "PACK_OPTIONS": "--ctx 32"}
STEPS = ["download", "count", "merge-count", "build-vocab", "pack", "merge-pack"]


def submitted(folder: Path, source: Path, shards: int) -> dict[str, Path]:
    """Run the script. Returns the folder of each job, by its step."""
    programs, jobs = folder / "bin", folder / "jobs"
    for made in (programs, jobs):
        made.mkdir(parents=True)
    stand_in = Path(shutil.copy(sbatch.__file__, programs / "sbatch"))
    ours = programs / "duckling-data"
    ours.write_text(f'#!/bin/sh\nexec "{sys.executable}" -m duckling_data "$@"\n')
    for program in (stand_in, ours):
        program.chmod(0o700)
    settings = {"DUCKLING_WORKSPACE": str(folder / "w"), "SOURCE": str(source), "SHARDS": str(shards)} | OPTIONS
    path = f"{programs}:{Path(sys.executable).parent}:{os.environ['PATH']}"
    environment = os.environ | settings | {"PATH": path, "SBATCH_JOBS": str(jobs)}
    done = subprocess.run(["bash", SCRIPT], env=environment, capture_output=True, text=True, timeout=HANG, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    said = [line.split(": job ") for line in done.stdout.splitlines()]
    assert [step for step, _ in said] == STEPS
    return {step: jobs / number for step, number in said}


@pytest.mark.parametrize("shards", [1, 3, 7])
def test_the_script_gives_the_bytes_of_one_process(packed_once: Path, tmp_path: Path, shards: int) -> None:
    jobs = submitted(tmp_path, packed_once / "stories.jsonl", shards)
    logs = {path.parent.name + path.name: path.read_text() for path in (tmp_path / "jobs").rglob("log*")}
    assert all((job / "succeeded").exists() for job in jobs.values()), logs
    for step in ("count", "pack"):
        lines = [(jobs[step] / f"log{number}").read_text().splitlines()[-1] for number in range(shards)]
        assert lines == [f"{step:<12} shard {number} of {shards} made" for number in range(shards)]
    own = ("corpus/", "kept_tokens/")  # where the source is, and what shards do not keep
    whole = {name: digest for name, digest in snapshot(packed_once / "w").items() if not name.startswith(own)}
    assert whole.items() <= snapshot(tmp_path / "w").items()
    assert not (tmp_path / "w" / "shards").exists()


def test_what_needs_a_failed_job_is_not_run(tmp_path: Path) -> None:
    jobs = submitted(tmp_path, tmp_path / "none.jsonl", 2)
    assert "none.jsonl" in (jobs["download"] / "log").read_text()
    assert [list(jobs[step].glob("log*")) for step in STEPS[1:]] == [[]] * 5
