"""What a report and the plots of a run show: gathered once from the run's directory, as arrays."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.progress import SILENT, Reporter
from duckling_train.dynamics.columns import ROW_COLUMNS, STEP_COLUMNS, Column
from duckling_train.dynamics.rows import Float32
from duckling_train.opened import Run
from duckling_train.report.movement import Cloud, Motion, movement
from duckling_train.runs.layout import CONFIG, MEASURED_ROWS, MEASURES, MODEL, RECORD
from duckling_train.runs.measured import mapping_of, tokens_of
from duckling_train.runs.resume import read_config

Columns = dict[str, npt.NDArray[Any]]
CLOSE = 1e-5
"""How far, relatively, the rows' mean distance from a start may be from the logged one, which has 9 digits."""


@dataclass(frozen=True)
class Shown:
    """What a report shows of a run."""

    run: Run
    steps: Columns | None
    """`measures.parquet` by column, null as NaN; eigenvalues float64[n, width]. None where it is not measured."""
    rows: Columns | None
    """`rows.parquet` by column, null as NaN, of text as None; None likewise."""
    cloud: Cloud | None
    """None where no dead rows were recorded."""
    motion: Motion | None
    """None where no dead rows were recorded at two steps."""
    distance: Float32 | None
    """float32[vocabulary]: ‖W_i,T − W_i,0‖ of all rows. None where there is no model, or where the start that its
    settings draw on this machine is not the one that the run had."""
    dead: npt.NDArray[np.bool_]
    """bool[vocabulary]; all false where the run's mapping is not at hand."""
    tokens: list[str | None]
    """The text of each id; None for dead ones, and where the run's mapping is not at hand."""
    counts: npt.NDArray[np.float64]
    """float64[vocabulary]: how often each id's token was counted; NaN for dead ids, and where it is not known."""


def gather(run: Run, reporter: Reporter = SILENT, *, moved: bool = True) -> Shown:
    """Return what is shown of a run, finished or not. Raises InputError for a damaged one.

    Without `moved` the record is not read through, and there are no cloud and no motion.
    """
    config, inputs = read_config(run.directory)
    mapping, counted, base = mapping_of(run.directory, run.workspace, inputs)
    dead = np.zeros(config.vocab_size, np.bool_)
    dead[mapping["live_tokens"] if mapping is not None else len(dead) :] = True
    tokens = tokens_of(np.arange(len(dead)), mapping, counted, base)
    cloud, motion, start = None, None, None
    if config.record != "none" and (run.directory / RECORD).exists():
        record = run.record
        if mapping is None:
            dead[record.rows[record.dead]] = True
        if moved:
            with reporter.bar("read record", len(record.steps), "step") as bar:
                cloud, motion = movement(record, bar.update)
        start = (record.rows, record.W[0]) if len(record.steps) else None
    counts = [np.nan if each is None or dead[row] else each for row, each in enumerate(tokens["count"])]
    return Shown(
        run, _table(run.directory / MEASURES, STEP_COLUMNS), _table(run.directory / MEASURED_ROWS, ROW_COLUMNS),
        cloud, motion, _distance(run, dead, start), dead, tokens["token"], np.array(counts, np.float64),
    )  # fmt: skip


def _table(path: Path, columns: Sequence[Column]) -> Columns | None:
    """Return the numbers of a Parquet file by column, without its texts.

    Raises InputError for a damaged one, and where a column is missing: another version measured it.
    """
    import pyarrow as pa
    import pyarrow.parquet as pq

    if not path.is_file():
        return None
    try:
        fields = [field for field in pq.read_schema(path) if field.name != "token"]
        for field in fields:
            kind = field.type.value_type if field.name == "eigenvalues" and pa.types.is_list(field.type) else field.type
            if not (pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_boolean(kind)):
                raise ValueError(f"column {field.name} is {field.type}, no number")
        if missing := {column.name for column in columns} - {field.name for field in fields}:
            raise ValueError(f"column {min(missing)} is missing")
        table = pq.read_table(path, columns=[field.name for field in fields])
        return {name: _numbers(table.column(name)) for name in table.column_names}
    except (pa.ArrowException, OSError, ValueError) as error:
        reason = str(error).splitlines()[0][:200]
        raise InputError(
            f"{path} is damaged ({reason}); expected what duckling-train measure writes; call it again"
        ) from error


def _numbers(column: Any) -> npt.NDArray[Any]:
    import pyarrow as pa

    if pa.types.is_list(column.type):
        rows = column.to_pylist()
        width = max((len(row) for row in rows if row is not None), default=0)
        return np.array([[np.nan] * width if row is None else row for row in rows]).reshape(len(rows), width)
    made: npt.NDArray[Any] = column.to_numpy()
    return made


def _distance(run: Run, dead: npt.NDArray[np.bool_], start: tuple[Any, Any] | None) -> Float32 | None:
    """Return ‖W_T − W_0‖ of all rows, W_0 drawn again as the engine drew it; None where that is another start."""
    if not (run.directory / MODEL / CONFIG).is_file():
        return None
    import torch

    from duckling_train.embedding.tensors import find
    from duckling_train.gpt2 import Gpt2
    from duckling_train.runs.open import model_directory

    config, _ = read_config(run.directory)
    last = find(model_directory(run.directory)).input
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        first = Gpt2(config).transformer.wte.weight.detach().float().numpy()
    if first.shape != last.shape or (start is not None and not np.array_equal(first[start[0]], start[1])):
        return None
    found = np.linalg.norm(last[:].astype(np.float64) - first, axis=1)
    logged = run.dynamics[-1] if run.dynamics else {}
    known = logged.get("displacement_dead") if logged.get("step") == config.steps else None
    if known is not None and dead.any() and abs(found[dead].mean() - known) > CLOSE * known:
        return None
    return np.asarray(found, np.float32)
