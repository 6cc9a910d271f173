#!/usr/bin/env python3
"""Stands for Slurm's `sbatch` on one machine: runs a job at once, all tasks of an array side by side, from a copy.

As Slurm does, it runs the script under another path, gives a task its number in SLURM_ARRAY_TASK_ID and the CPUs that
the script asks for in SLURM_CPUS_PER_TASK, and runs no job whose dependency has failed. Jobs are kept in $SBATCH_JOBS.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
from pathlib import Path


def main() -> None:
    """Run a job and print its number."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--parsable", action="store_true", required=True)
    parser.add_argument("--kill-on-invalid-dep", choices=["yes"])
    parser.add_argument("--job-name")
    for name, form in (("dependency", r"afterok:(\d+)"), ("array", r"0-(\d+)")):
        parser.add_argument(f"--{name}", type=re.compile(form).fullmatch)
    parser.add_argument("script")
    parser.add_argument("arguments", nargs="*")
    given = parser.parse_args()
    jobs = Path(os.environ["SBATCH_JOBS"])
    number = 1 + len(list(jobs.iterdir()))
    folder = jobs / str(number)
    folder.mkdir()
    script = Path(shutil.copy(given.script, folder / "slurm_script"))
    script.chmod(0o700)
    if not given.dependency or (jobs / given.dependency[1] / "succeeded").exists():
        cpus = re.findall(r"^#SBATCH --cpus-per-task=(\d+)$", script.read_text(), re.MULTILINE)
        environment = os.environ | {"SLURM_CPUS_PER_TASK": cpus[0]}
        tasks = []
        for task in [str(n) for n in range(int(given.array[1]) + 1)] if given.array else [""]:
            with (folder / f"log{task}").open("wb") as log:
                own = environment | ({"SLURM_ARRAY_TASK_ID": task} if task else {})
                tasks.append(subprocess.Popen([script, *given.arguments], env=own, stdout=log, stderr=log))
        if not [task for task in tasks if task.wait()]:
            (folder / "succeeded").touch()
    print(f"{number};here")


if __name__ == "__main__":
    main()
