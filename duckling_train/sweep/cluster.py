"""Where the runs of a sweep on Ray are made, and what each of them takes of a node."""

from __future__ import annotations

from dataclasses import dataclass, replace

from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.ray_executor import RayExecutor
from duckling_train.sweep.grid import Grid


@dataclass(frozen=True)
class Cluster:
    """A Ray cluster, and what a run takes of it."""

    address: str | None
    """As Ray takes it; None: one on this machine, for the time of the sweep."""
    cpus: float | None
    """CPUs of a run; None: as many as it has threads."""
    gpus: float

    def for_grid(self, grid: Grid) -> Cluster:
        """Return the same with the CPUs of a run of this grid. Raises InputError where its device would be hidden."""
        if not self.gpus and any(device.startswith("cuda") for device in grid.values("device")):
            raise InputError("--device cuda needs a GPU for each run; give --gpus-per-run 1, or a part of 1")
        return replace(self, cpus=self.cpus or float(max(threads or 1 for threads in grid.values("threads"))))

    def executor(self, reporter: Reporter) -> RayExecutor:
        """Return what makes the runs there."""
        return RayExecutor(self.address, cpus=self.cpus or 1, gpus=self.gpus, reporter=reporter)

    def __str__(self) -> str:
        return f"on Ray at {self.address}" if self.address else "on Ray"
