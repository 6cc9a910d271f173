"""`duckling-train measure RUN`: what a run's record shows, as two tables in the run's directory."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from duckling_data.base.errors import InputError
from duckling_data.base.files import replacing, sha256_file
from duckling_data.base.progress import SILENT, Reporter
from duckling_data.stages.counts import COUNTS_NAME, read_counts
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, open_mapping
from duckling_train.config import TrainConfig
from duckling_train.data import VALIDATION
from duckling_train.dynamics.arrays import Integers
from duckling_train.dynamics.behaviour import behaviour
from duckling_train.dynamics.columns import ROW_COLUMNS, STEP_COLUMNS, TOKEN_COLUMNS, Column
from duckling_train.dynamics.measure import Measures, Training, measure
from duckling_train.dynamics.tables import Table
from duckling_train.recording.record import Record
from duckling_train.runs.layout import MEASURED_ROWS, MEASURES, MODEL, RECORD, read_manifest
from duckling_train.runs.recorded import open_record
from duckling_train.runs.resume import read_config

if TYPE_CHECKING:
    import pyarrow as pa


def training_of(config: TrainConfig, last: int) -> Training:
    """Return what a run's settings say about its first `last` steps."""
    from duckling_train.engines.fast.order import learning_rate  # imports torch

    rates = [learning_rate(config, step) for step in range(1, last + 1)]
    return Training(rates, config.weight_decay, config.betas[1], config.vocab_size)


def measure_run(run_dir: Path, workspace: Path, reporter: Reporter = SILENT, *, around: bool = False) -> Measures:
    """Measure a run's record and write MEASURES and MEASURED_ROWS into its directory; earlier ones are replaced.

    A run that still trains is measured as far as its record has come. Where `around`, steps whose files are missing or
    damaged are left out. Tokens have their text and count where the run's own mapping and its workspace are at hand.
    Raises InputError where the run has no record, a damaged one, or one that is not finite.
    """
    config, inputs = read_config(run_dir)
    record = open_record(run_dir, config, inputs, around=around)
    last = int(record.steps[-1]) if len(record.steps) else 0
    with reporter.bar("measure", len(record.steps), "step") as bar:
        try:
            found = measure(record, training_of(config, last), done=bar.update)
        except InputError as error:
            if str(run_dir) in str(error):  # damage, which names its file
                raise
            raise InputError(f"{run_dir / RECORD}: {error}") from error
    mapping, counts, base = mapping_of(run_dir, workspace, inputs)
    tokens = tokens_of(record.rows, mapping, counts, base)
    tokens |= _predicted(run_dir, workspace if mapping is not None else None, record, reporter)
    write_table(run_dir / MEASURES, found.steps, STEP_COLUMNS)
    write_table(run_dir / MEASURED_ROWS, found.rows | tokens, (*ROW_COLUMNS, *TOKEN_COLUMNS))
    return found


def write_table(path: Path, table: Table, columns: Sequence[Column]) -> None:
    """Write columns as Parquet, NaN as null; each column's unit and meaning are the metadata of its field."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    arrays = [_array(column.name, table[column.name]) for column in columns]
    fields = [
        pa.field(column.name, array.type, metadata={"unit": column.unit, "meaning": column.meaning})
        for column, array in zip(columns, arrays, strict=True)
    ]
    with replacing(path) as file:
        pq.write_table(pa.table(arrays, schema=pa.schema(fields)), file, compression="zstd")


def _array(name: str, values: Any) -> pa.Array:
    """Return a column; its type does not depend on which values are null."""
    import pyarrow as pa

    special = {"eigenvalues": pa.list_(pa.float64()), "band": pa.int8(), "gpt2_id": pa.int32(), "token": pa.string(),
               "count": pa.int64(), "largest_probability": pa.float64(), "argmax_positions": pa.int64()}  # fmt: skip
    if isinstance(values, list):
        return pa.array(values, special[name])
    array = pa.array(values, mask=np.isnan(values) if values.dtype.kind == "f" else None)
    return array.cast(special[name]) if name in special else array


def mapping_of(
    run_dir: Path, workspace: Path, inputs: dict[str, Any]
) -> tuple[TokenMapping | None, Path | None, BaseTokenizer]:
    """Return the run's own mapping, None where it is not at hand, its counts, likewise, and the base of its tokens."""
    expected = (inputs.get("mapping") or {}).get("sha256")
    for folder in (workspace, run_dir / MODEL):
        path = folder / MAPPING_FILE
        if path.is_file() and sha256_file(path) == expected:
            counts = folder / COUNTS_NAME
            mapping, base = open_mapping(path)
            return mapping, counts if folder == workspace and counts.is_file() else None, base
    return None, None, GPT2


def tokens_of(ids: Integers, mapping: TokenMapping | None, counts: Path | None, base: BaseTokenizer) -> Table:
    """Return the columns of TOKEN_COLUMNS."""
    live = mapping["live_token_ids"] if mapping is not None else []
    gpt2 = [live[row] if row < len(live) else None for row in ids.tolist()]
    counted: dict[int | None, int] | None = None
    if counts is not None:
        read = read_counts(counts, base)
        counted = dict(zip(read.gpt2_id.tolist(), read.count.tolist(), strict=True))
    return {
        "gpt2_id": gpt2,
        "token": [None if each is None else base.token_bytes(each).decode("utf-8", "replace") for each in gpt2],
        "count": [None if counted is None else counted.get(each, 0) for each in gpt2],
    }


def _predicted(run_dir: Path, workspace: Path | None, record: Record, reporter: Reporter) -> Table:
    """Return how the run's model predicts each recorded dead row on the run's own validation rows (measurement 18).

    None for live rows, and for all where the run has no model yet or the workspace does not hold those rows.
    """
    names, config, inputs = ("largest_probability", "argmax_positions"), *read_config(run_dir)
    unknown: Table = {name: [None] * len(record.rows) for name in names}
    expected = (inputs.get("validation") or {}).get("payload_sha256")
    if workspace is None or expected is None or read_manifest(run_dir) is None or not record.dead.any():
        return unknown
    if not (workspace / VALIDATION).is_dir():
        return unknown
    from duckling_train.runs.hidden import validation_states  # imports torch

    found = validation_states(run_dir, workspace, config, expected, reporter)
    if found is None:
        return unknown
    hidden, softmax = found
    dead = np.zeros(len(softmax), np.bool_)
    dead[record.rows[record.dead]] = True
    with reporter.bar("predict", len(hidden), "positions") as bar:
        values = behaviour(hidden, softmax, dead, bar.update)
    for name, column in zip(names, (values.largest_probability, values.argmax), strict=True):
        for place, value in zip(np.flatnonzero(record.dead), column.tolist(), strict=True):
            unknown[name][place] = value
    return unknown


def in_words(summary: dict[str, Any]) -> str:
    """Return the main figures of a record, for a person."""
    last, freeze = summary["last"], summary["freeze"]
    lines = [f"{summary['recorded_steps']:,} steps up to {summary['steps']:,}, {summary['dead_rows']:,} dead rows "
             f"of {summary['rows']:,}"]  # fmt: skip
    if freeze is not None:
        names = ("centroid_norm", "radius_mean", "velocity", "coherence", "frozen_fraction", "displacement_per_lr")
        lines.append("at the end: " + ", ".join(f"{name} {last[name]:.4g}" for name in names if last[name] is not None))
        median = freeze["median_onset"]
        half = f"half of them by step {median:,.0f}" if median is not None else "fewer than half of them"
        silent = f"silent for {freeze['silent_window_median']:,.0f} steps (median)"
        lines.append(f"frozen: {half}; {freeze['censored']:,} were not seen to freeze (censored); {silent}")
    return "\n".join(lines)
