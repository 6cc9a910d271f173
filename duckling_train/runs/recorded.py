"""A run's record: what it takes on disk, the hook that writes it, and `record.zarr` opened as the run's own."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from duckling_data.base.disk import free_bytes, in_bytes
from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.strict_json import digest_json
from duckling_data.tokens.mapping import TokenMapping
from duckling_train.config import TrainConfig
from duckling_train.recording.codec import LEVEL, LINE, ORDER, itemsize
from duckling_train.recording.layout import GROUP, Layout, Place
from duckling_train.recording.record import Record
from duckling_train.runs import layout

if TYPE_CHECKING:
    from duckling_train.recording.recorder import Recording

RATIO = {LINE: 2.0, LEVEL: 1.0, ORDER: 3.0}
"""How much smaller a matrix at least becomes by each coding: docs/record.md has what was measured."""


def run_identity(config: TrainConfig, inputs: dict[str, Any]) -> str:
    """Return a digest of what makes a run's numbers: its record names it."""
    settings = config.resolved()
    for name in ("report_to", "on_record_error", *(["steps"] if config.goes_on else [])):
        settings.pop(name, None)
    return digest_json({"settings": settings, "inputs": inputs})


def dead_ids(mapping: TokenMapping) -> range:
    """Return the ids that no token has."""
    return range(mapping["live_tokens"], mapping["total_vocab"])


def layout_for(config: TrainConfig, mapping: TokenMapping, run: str = "") -> Layout:
    """Return the layout of a run's record. Raises InputError as `rows_of`."""
    from duckling_train.precision import RECIPES  # torch is not imported to list runs
    from duckling_train.recording.recorder import layout_of, rows_of

    narrow = str(RECIPES[config.precision].weights) == "torch.bfloat16"
    rows = rows_of(config.record, config.vocab_size, dead_ids(mapping))
    return layout_of(
        len(rows), config.n_embd, config.record_tensors.split(","), bf16_weights=narrow,
        as_bf16=config.record_dtype == "bf16", every=config.record_every, run=run,
    )  # fmt: skip


@dataclass(frozen=True)
class Budget:
    """What a record takes, in bytes."""

    what: str
    """The rows and tensors, for a person."""
    step: int
    """A recorded step, uncompressed."""
    steps: int
    """How many are recorded."""
    disk: int
    """All of them on disk, compressed as `RATIO` says."""

    def __str__(self) -> str:
        size = f"{in_bytes(self.step)} a step, {in_bytes(self.step * self.steps)} in all"
        return f"record of {self.what}: {size}, about {in_bytes(self.disk)} compressed"


def budget(config: TrainConfig, mapping: TokenMapping) -> Budget:
    """Return what a run's record takes; nothing where it has none."""
    if config.record == "none":
        return Budget("nothing", 0, 0, 0)
    held, steps = layout_for(config, mapping), config.steps // config.record_every + 1
    matrices = sum(held.rows * held.width * itemsize(each) / RATIO[each] for each in held.codings.values())
    others = held.step_bytes() - sum(held.rows * held.width * itemsize(each) for each in held.codings.values())
    return Budget(f"{held.rows:,} rows ({', '.join(held.tensors)})", held.step_bytes(), steps,
                  int(steps * (matrices + others)))  # fmt: skip


def record_room(config: TrainConfig, mapping: TokenMapping, run_dir: Path) -> int:
    """Return the bytes that a run's record still takes on disk: without what it has already."""
    place = run_dir / layout.RECORD
    there = sum(path.stat().st_size for path in place.rglob("*") if path.is_file()) if place.is_dir() else 0
    return max(0, budget(config, mapping).disk - there)


def budget_line(config: TrainConfig, mapping: TokenMapping, run_dir: Path, runs: int = 1) -> str:
    """Return what the records of so many runs like this one take, and what is free, for a person."""
    free, each = free_bytes(run_dir), f", each of {runs} runs" if runs > 1 else ""
    known = f"; {in_bytes(free)} free" if free is not None else ""
    return f"{budget(config, mapping)}{each}{known}"


def recording_of(config: TrainConfig, mapping: TokenMapping, inputs: dict[str, Any], run_dir: Path) -> Recording:
    """Return the hook that records a run."""
    from duckling_train.recording.recorder import Recording

    return Recording(
        run_dir / layout.RECORD, dead_ids(mapping), config.record, every=config.record_every,
        tensors=config.record_tensors.split(","), dtype=config.record_dtype, on_error=config.on_record_error,
        run=run_identity(config, inputs), replace=True,
    )  # fmt: skip


def open_record(run_dir: Path, config: TrainConfig, inputs: dict[str, Any], *, around: bool = False) -> Record:
    """Return a run's record. Raises InputError where it has none, where it is another run's, and as `Record.open`."""
    if config.record == "none":
        raise InputError(f"{run_dir} has no record: train with --record dead, or all")
    record = Record.open(run_dir / layout.RECORD, around=around)
    if record.layout.run != run_identity(config, inputs):
        raise InputError(f"{run_dir / layout.RECORD} is another run's record: put this run's own there")
    return record


def finish_record(run_dir: Path) -> None:
    """Write the shapes of a record's arrays: a run that was killed after its last step has had no time for it."""
    place = Place(run_dir / layout.RECORD)
    if (place.path / GROUP).is_file():
        place.describe(place.layout(), len(Record.open(place.path).steps))


def check_record(run_dir: Path, config: TrainConfig, inputs: dict[str, Any], last: int) -> Iterator[str]:
    """Yield a line once a run's record is whole up to its step `last`. Raises CheckFailed, InputError for none."""
    if config.record == "none":
        return
    record = open_record(run_dir, config, inputs)
    for _shard, fault in record.faults():
        raise CheckFailed(fault)
    expected, held = last // config.record_every + 1, int((record.steps <= last).sum())
    if held < expected and config.on_record_error == "stop":
        raise CheckFailed(f"{run_dir / layout.RECORD} holds {held:,} of the {expected:,} steps up to step {last:,}")
    missing = f" (of {expected:,}: the others could not be written)" if held < expected else ""
    rows = f"{len(record.rows):,} rows ({', '.join(record.tensors)})"
    yield f"{'record':<12} ok: {len(record.steps):,} steps{missing} of {rows}"
