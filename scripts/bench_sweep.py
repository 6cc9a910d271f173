"""Times a sweep of tiny runs on Ray: what each costs beyond the run itself, as made one after the other in one process.

Both make the same runs by the same call, `Make`, after one run that imports what a run needs. The overhead of a run is
the time that passes from the first to the last end on Ray, times the runs side by side, less the runs' own time, by
their number: scheduling, the record of outcomes, and what runs that share a machine take from each other.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).parent.parent
sys.path.insert(0, str(ROOT))
from duckling_data.base.progress import SILENT, Reporter  # noqa: E402
from duckling_train.sweep import layout, plan, runner  # noqa: E402
from duckling_train.sweep.cluster import Cluster  # noqa: E402
from duckling_train.sweep.on_ray import Make  # noqa: E402
from tests.support.train import make_workspace, sentences  # noqa: E402

SHAPE = {"n_positions": (64,), "vocab_size": (512,), "n_embd": (16,), "n_layer": (1,), "batch_size": (1,),
         "steps": (2,), "device": ("cpu",), "precision": ("fp32",), "checkpoint_steps": (0,)}  # fmt: skip


class Ends(Reporter):
    """Notes when each run ended."""

    def __init__(self) -> None:
        super().__init__(quiet=True)
        self.times: list[float] = []

    def say(self, line: str) -> None:
        """Note the time of a line that tells the end of a run."""
        if "steps/s" in line:
            self.times.append(time.perf_counter())


def planned(workspace: Path, folder: Path, runs: int, cluster: Cluster) -> plan.Sweep:
    """Return a sweep of so many seeds."""
    lists = {**SHAPE, "seed": tuple(range(runs))}
    return plan.plan(
        lists, workspace, folder, None, 1, preset="duckling-ii", file=None, overwrite=False, cluster=cluster
    )


def here(sweep: plan.Sweep) -> float:
    """Make the runs in this process, one after the other. Returns seconds a run, without the first."""
    sweep.folder.mkdir()
    layout.prepare(sweep.folder, sweep.grid, layout.record_of(sweep.grid, sweep.inputs), overwrite=False)
    first, *others = sweep.grid.points
    Make(sweep)((first,))
    start = time.perf_counter()
    for point in others:
        (ended,) = Make(sweep)((point,))
        assert not ended.status, ended.message
    return (time.perf_counter() - start) / len(others)


def main() -> None:
    """Make both and print the figures."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--runs", type=int, default=100)
    parser.add_argument("--alone", type=int, default=10, help="runs that are made without Ray")
    parser.add_argument("--ray-address", help="a running cluster; without one it is started here")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        workspace = make_workspace(folder / "workspace", sentences(30), live=448, dead=64, context=64)
        cluster = Cluster(given.ray_address, 1.0, 0.0)
        alone = here(planned(workspace, folder / "alone", given.alone + 1, cluster))
        ends, start = Ends(), time.perf_counter()
        sweep = planned(workspace, folder / "ray", given.runs, cluster)
        rows = runner.run(sweep, ends, overwrite=False)
        whole = time.perf_counter() - start
        assert runner.failure(sweep, rows) is None
    with cluster.executor(SILENT) as executor:
        slots = executor.slots
    # The first run of each worker imports torch: they are the first to end.
    rest = (ends.times[-1] - ends.times[slots - 1]) * slots / (given.runs - slots)
    print(f"{given.runs} runs on Ray, {slots} side by side: {whole:.1f} s in all, the first ended after "
          f"{ends.times[0] - start:.1f} s")  # fmt: skip
    print(f"a run: {rest:.2f} s of a slot, {alone:.2f} s in one process alone; overhead {rest - alone:.2f} s")


if __name__ == "__main__":
    main()
