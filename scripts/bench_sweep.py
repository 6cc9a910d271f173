"""Times a sweep of tiny runs on Ray: what each costs beyond the time from its first file to its last.

That overhead is the time between two ends, times the runs side by side, less the time of the run itself. So it has in
it what a run does before its first file (opening the data), the scheduling, and the records of the sweep. The runs that
end first are left out: they imported torch. A second figure is that of tasks that do nothing.
"""

from __future__ import annotations

import argparse
import os
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from duckling_data.base.progress import Reporter  # noqa: E402
from duckling_train.runs.layout import CONFIG, MANIFEST  # noqa: E402
from duckling_train.sweep import runner  # noqa: E402
from duckling_train.sweep.cluster import Cluster  # noqa: E402
from tests.support.train import make_workspace, sentences  # noqa: E402

SHAPE = {"n_positions": (64,), "vocab_size": (512,), "n_embd": (16,), "n_layer": (1,), "batch_size": (1,),
         "steps": (2,), "device": ("cpu",), "precision": ("fp32",), "checkpoint_steps": (0,)}  # fmt: skip


def swept(workspace: Path, folder: Path, runs: int, cluster: Cluster) -> list[tuple[float, float]]:
    """Make a sweep of so many seeds. Returns when each run wrote its first and its last file, by its end."""
    lists = {**SHAPE, "seed": tuple(range(runs))}
    sweep = runner.plan(
        lists, workspace, folder, None, 1, preset="duckling-ii", file=None, overwrite=False, cluster=cluster
    )
    rows = runner.run(sweep, Reporter(quiet=True), overwrite=False)
    assert runner.failure(sweep, rows) is None
    run_dirs = [sweep.run_dir(row.point) for row in rows]
    times = [tuple((run_dir / name).stat().st_mtime for name in (CONFIG, MANIFEST)) for run_dir in run_dirs]
    return sorted(((first, last) for first, last in times), key=lambda each: each[1])


def main() -> None:
    """Make the runs and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--ray-address", help="a running cluster; without one it is started here")
    given = parser.parse_args()
    cluster = Cluster(given.ray_address, 1.0, 0.0)
    with tempfile.TemporaryDirectory() as name:
        workspace = make_workspace(Path(name) / "workspace", sentences(30), live=448, dead=64, context=64)
        start = time.time()
        times = swept(workspace, Path(name) / "ray", given.runs, cluster)
        whole = time.time() - start
    with cluster.executor(Reporter(quiet=True)) as executor:
        slots = executor.slots
        list(executor.map(abs, range(2 * slots), ordered=False))  # starts the workers
        before = time.perf_counter()
        list(executor.map(abs, range(given.runs), ordered=False))
        empty = time.perf_counter() - before
    rest = times[slots:]
    slot = (times[-1][1] - times[slots - 1][1]) * slots / len(rest)
    own = sum(last - first for first, last in rest) / len(rest)
    print(f"{given.runs} runs, {slots} side by side: {whole:.1f} s in all, the first ended after "
          f"{times[0][1] - start:.1f} s; load {os.getloadavg()[0]:.1f} on {os.cpu_count()} cores")  # fmt: skip
    print(f"a run: {slot:.3f} s, {own:.3f} s of it from first file to last; overhead {slot - own:.3f} s")
    print(f"a task that does nothing: {1e3 * empty / given.runs:.1f} ms")


if __name__ == "__main__":
    main()
