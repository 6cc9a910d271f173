"""The workspace's two files, opened and checked: packed rows and the mapping that they were made with.

The rows stay memory-mapped: a row is a view. The whole dataset is read once, to check its ids and to hash it: a run's
manifest names the data that it was trained on, and data other than the workspace's manifest records is refused.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import sha256_file
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.rows.layout import COLUMN as COLUMN
from duckling_data.rows.layout import POSITION as POSITION
from duckling_data.rows.read import Column, Rows, open_rows
from duckling_data.stages.pack import PACK
from duckling_data.stages.packer import DATASET_NAMES, PackFigures
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.mapping import MAPPING_FILE as MAPPING
from duckling_data.tokens.mapping import TokenMapping, open_mapping, read_mapping
from duckling_data.workspace.manifest import Manifest, StageRecord
from duckling_train.config import TrainConfig, given, named

DATASET, VALIDATION = DATASET_NAMES["train"], DATASET_NAMES["validation"]


class PackedRows:
    """The rows as a map-style dataset: item `i` is `{"input_ids": uint16[context]}`, as in the seed; a view.

    The ids are uint32 where the vocabulary has more than 65,536.

    With `positions` it has `"position"`, too: uint32[context].
    """

    def __init__(self, rows: Rows, *, positions: bool = False) -> None:
        self.rows = rows
        self.positions = rows.positions if positions else None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[Any]]:
        row: dict[str, npt.NDArray[Any]] = {COLUMN: self.rows[index]}
        return row if self.positions is None else row | {POSITION: self.positions[index]}

    @cached_property
    def positions_sha256(self) -> str | None:
        """The digest of the positions; None where they are not used."""
        return None if self.positions is None else self.positions.payload_sha256()

    def record(self, payload_sha256: str) -> dict[str, Any]:
        """Return what a run's records say about these rows."""
        record = {"payload_sha256": payload_sha256, "rows": len(self)}
        return record if self.positions is None else record | {"positions_sha256": self.positions_sha256}


@dataclass(frozen=True)
class TrainingData:
    """A workspace's data, checked against a config."""

    rows: PackedRows
    mapping: TokenMapping
    payload_sha256: str
    """The dataset's payload digest."""
    mapping_sha256: str
    """SHA-256 of the mapping file's bytes."""
    base: BaseTokenizer
    """What the mapping's tokens are of."""

    def record(self, validation: PackedRows | None = None) -> dict[str, Any]:
        """Return what a run's records say about the data that it trains on and is evaluated on: digests and sizes."""
        record = {
            "dataset": self.rows.record(self.payload_sha256) | {"context": self.rows.rows.ctx},
            "mapping": {"sha256": self.mapping_sha256},
        }
        if validation is not None:
            record["validation"] = validation.record(validation.rows.payload_sha256())
        return record


@dataclass(frozen=True)
class Sizes:
    """What a workspace's files say about the model that fits them."""

    context: int
    """Tokens a row."""
    live: int
    """Ids that occur."""
    vocabulary: int
    """All ids."""

    def settings(self) -> dict[str, Any]:
        """Return the settings that fit."""
        return {"n_positions": self.context, "vocab_size": self.vocabulary}


def sizes_of(workspace: Path) -> Sizes:
    """Return the sizes of a workspace's data. Raises InputError where a file is missing or cannot be read."""
    dataset_path, mapping_path = paths_of(workspace)
    mapping = read_mapping(mapping_path)
    return Sizes(open_rows(dataset_path).ctx, mapping["live_tokens"], mapping["total_vocab"])


def fitting(workspace: Path) -> dict[str, Any]:
    """Return the settings that a workspace's data ask for; none where they cannot be read: opening them tells why."""
    try:
        return sizes_of(workspace).settings()
    except InputError:
        return {}


def paths_of(workspace: Path) -> tuple[Path, Path]:
    """Return the paths of a workspace's dataset and mapping. Raises InputError where one is missing."""
    dataset_path, mapping_path = workspace / DATASET, workspace / MAPPING
    if not dataset_path.is_dir():
        raise InputError(f"no {DATASET} in {workspace}: run duckling-data pack")
    if not mapping_path.is_file():
        raise InputError(f"no {MAPPING} in {workspace}: run duckling-data build-vocab")
    return dataset_path, mapping_path


def open_workspace(workspace: Path, config: TrainConfig, reporter: Reporter = SILENT) -> TrainingData:
    """Open and check `workspace`'s dataset and mapping. All rows are read twice; `reporter` shows how far.

    Raises InputError when one is missing or damaged, when the rows are not `config.n_positions` tokens long, when the
    mapping's vocabulary is not the model's, when a row holds an id that the mapping calls dead, when `config` masks
    across stories and the rows hold no positions, or when dataset and mapping are not the ones that the workspace's
    manifest records.
    """
    dataset_path, mapping_path = paths_of(workspace)
    mapping, base = open_mapping(mapping_path)
    if mapping["total_vocab"] != config.vocab_size:
        raise InputError(
            f"{mapping_path} has total_vocab {mapping['total_vocab']}, the model {config.vocab_size} rows: "
            f"leave {named('vocab_size')} out, or run duckling-data build-vocab with other --live and --dead"
        )
    rows = _read_rows(dataset_path, mapping, config, reporter)
    mapping_sha256 = sha256_file(mapping_path)
    with reporter.bar(f"hash {DATASET}", len(rows), "rows") as bar:
        payload_sha256 = rows.rows.payload_sha256(bar.update)
    pack = _check_packed(workspace, dataset_path, "train", payload_sha256, rows.positions_sha256)
    if pack is not None and pack.inputs["mapping"] != mapping_sha256:
        raise InputError(f"{mapping_path} is not what {DATASET} was packed with: run duckling-data pack")
    return TrainingData(rows, mapping, payload_sha256, mapping_sha256, base)


def refuse_short(config: TrainConfig, data: TrainingData) -> None:
    """Raise InputError where a batch takes more rows than there are."""
    if config.batch_size > len(data.rows):
        raise InputError(
            f"{named('batch_size')} is {config.batch_size:,}, but {DATASET} has {len(data.rows):,} rows: "
            "give at most as many, or pack more stories"
        )


def open_validation(workspace: Path, config: TrainConfig, mapping: TokenMapping) -> PackedRows | None:
    """Open and check the validation rows; None where the workspace has none or `config` takes none of them.

    Raises InputError as `open_workspace` does, where the manifest lists rows that are not there, and where
    `config.eval_steps` asks for rows that the workspace does not have.
    """
    path = workspace / VALIDATION
    if config.eval_rows == 0:
        return None
    if not path.is_dir():
        packed = Manifest(workspace).figures(PACK.name, PackFigures)
        if packed is not None and "validation" in packed.splits:
            raise InputError(
                f"{path} is missing, though manifest.json lists it: run duckling-data pack to make it again, or give "
                f"{given('eval_rows', 0)} to train without evaluation"
            )
        if config.eval_steps:
            why = "the workspace has no rows to evaluate on" if packed is None else "its source has no validation split"
            asked = given("eval_steps", config.eval_steps)
            raise InputError(f"no {VALIDATION} in {workspace} for {asked}: {why}; leave it out")
        return None
    rows = _read_rows(path, mapping, config, SILENT)
    _check_packed(workspace, path, "validation", rows.rows.payload_sha256(), rows.positions_sha256)
    return rows


def _read_rows(path: Path, mapping: TokenMapping, config: TrainConfig, reporter: Reporter) -> PackedRows:
    """Open a directory of rows; InputError where it is empty, of another context, or holds an id that is not live."""
    rows = open_rows(path)
    if not len(rows):
        raise InputError(f"{path} holds no rows: run duckling-data pack on more stories")
    if any(chunk.shape[1] != config.n_positions for chunk in rows.chunks):
        raise InputError(
            f"{path} holds rows of {rows.ctx} tokens, expected {config.n_positions}: "
            f"leave {named('n_positions')} out, or run duckling-data pack --ctx {config.n_positions}"
        )
    with reporter.bar(f"read {path.name}", len(rows), "rows") as bar:
        highest, live = rows.max_id(bar.update), mapping["live_tokens"]
    if highest >= live:
        raise InputError(
            f"{path} holds id {highest}, but {MAPPING}'s live ids end at {live - 1}: run duckling-data pack"
        )
    if config.mask_across_stories and (rows.positions is None or not _are_positions(rows.positions)):
        held = "no positions" if rows.positions is None else "positions that neither follow one another nor are 0"
        needs = f"which {given('mask_across_stories', True)} needs"
        raise InputError(f"{path} holds {held}, {needs}: run duckling-data pack --positions")
    return PackedRows(rows, positions=config.mask_across_stories)


def _are_positions(positions: Column[np.uint32]) -> bool:
    """Return whether each token's position is 0 or one more than the one before it in its row."""
    return all(
        bool(((part[:, 1:] == 0) | (part[:, 1:] - 1 == part[:, :-1])).all())
        for chunk in positions.chunks
        for part in (chunk[start : start + 8192] for start in range(0, len(chunk), 8192))
    )


def _check_packed(workspace: Path, path: Path, split: str, payload: str, positions: str | None) -> StageRecord | None:
    """Return what the workspace's manifest says of packing, None where it has none: two files alone are accepted.

    Raises InputError unless `payload` and `positions` (None: unused) are the digests that it records of the split's.
    """
    manifest = Manifest(workspace)
    pack = manifest.stages.get(PACK.name)
    if pack is None:
        return None
    packed = manifest.figures(PACK.name, PackFigures)
    if packed is None:
        raise InputError(f"packing {path} was interrupted: run duckling-data pack")
    recorded = packed.splits.get(split)  # type: ignore[call-overload]  # any name: another split is refused here
    if recorded is None:
        raise InputError(f"{path} was not packed from this source, which has no {split} split: remove it")
    if payload != (expected := recorded.payload_sha256):
        raise InputError(
            f"{path} is not what was packed (payload {payload[:12]}, recorded {expected[:12]}): "
            "remove it and run duckling-data pack"
        )
    if positions not in (None, recorded.positions_sha256):
        raise InputError(f"{path} has other positions than were packed: remove it and run duckling-data pack")
    return pack
