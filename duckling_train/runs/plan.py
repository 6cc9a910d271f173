"""What a training run would do, for `--dry-run`: nothing is written, and every reason to refuse it is found."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path

from duckling_data.base.errors import DucklingError
from duckling_train.config import TrainConfig
from duckling_train.data import refuse_short
from duckling_train.runs import layout
from duckling_train.runs.prepared import prepare, resolve
from duckling_train.runs.recorded import budget_line

UNSAID = (layout.TENSORBOARD, layout.MEASURES, layout.MEASURED_ROWS, layout.REPORT, layout.PLOTS)
"""Artifacts that a training run need not write."""


@dataclass(frozen=True)
class Plan:
    """What `train` would do."""

    config: TrainConfig
    """Resolved."""
    dataset: str
    """The rows, in a line for a person."""
    written: str
    """What would be written where."""
    refused: tuple[str, ...]
    """Why it would not: empty where it would."""

    def __str__(self) -> str:
        verdict = [f"would be refused: {reason}" for reason in self.refused] or [f"would write {self.written}"]
        settings = json.dumps(self.config.resolved(), indent=2)
        return "\n".join([*verdict, f"dataset: {self.dataset}", f"parameters: {self.config.parameters:,}", settings])


def plan(config: TrainConfig, workspace: Path, run_dir: Path, *, overwrite: bool = False) -> Plan:
    """Return what `train` would do, with every reason for which it would be refused. Nothing is written.

    Raises InputError as `resolve` does.
    """
    config, refused, dataset = resolve(config), [], "none that fits"
    if reason := layout.refusal(run_dir, overwrite=overwrite):
        refused.append(reason)
    try:
        data = prepare(config, workspace, run_dir, quiet=True).data
        dataset = f"{len(data.rows):,} rows of {config.n_positions} tokens, payload {data.payload_sha256[:12]}"
        refuse_short(config, data)
    except DucklingError as error:
        refused.append(str(error))
    if config.record != "none" and not refused:
        dataset += f"\n{budget_line(config, data.mapping, run_dir)}"
    names = ", ".join(artifact.name for artifact in layout.ARTIFACTS if artifact.name not in UNSAID)
    return Plan(config, dataset, f"{run_dir}: {names}", tuple(refused))
