"""`duckling-train measure` on a run that was really recorded: its two tables, what it prints, and what it refuses."""

from __future__ import annotations

import json
import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow.parquet as pq
import pytest
import torch

from duckling_data import open_rows
from duckling_data.stages.counts import TokenCounts, write_counts
from duckling_data.tokens.mapping import read_mapping
from duckling_train import open_run
from duckling_train.cli import main
from duckling_train.dynamics.coherence import coherence
from duckling_train.dynamics.columns import ROW_COLUMNS, STEP_COLUMNS, TOKEN_COLUMNS
from duckling_train.runs.verify import verify_run
from tests.support.train import TINY_SHAPE

STEPS, LIVE, DEAD = 14, 448, 64
TABLES = {"measures.parquet": STEP_COLUMNS, "rows.parquet": (*ROW_COLUMNS, *TOKEN_COLUMNS)}


def duckling_train(*arguments: str | Path) -> int:
    with pytest.raises(SystemExit) as ended:
        main([*map(str, arguments)])
    return int(ended.value.code or 0)


@pytest.fixture(scope="module")
def run_dir(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A run with a record of all of W and all tensors, in a workspace of its own that has counts."""
    workspace = tmp_path_factory.mktemp("measured")
    for name in ("token_mapping.json", "tokenized_dataset"):
        (workspace / name).symlink_to(tiny_workspace / name)
    (workspace / "tokenized_validation").symlink_to(tiny_workspace / "tokenized_dataset")
    live = read_mapping(workspace / "token_mapping.json")["live_token_ids"]
    counted = live[: LIVE - 8]
    write_counts(workspace / "token_counts.parquet", TokenCounts(
        np.array(counted), np.arange(len(counted), 0, -1), np.arange(len(counted))))  # fmt: skip
    tensors = ("--record", "all", "--record-tensors", "W,grad,exp_avg_sq,h_mean,p_dead")
    given = (
        "-w",
        workspace,
        "--name",
        "all",
        "--steps",
        str(STEPS),
        "--learning-rate",
        "1e-3",
        *TINY_SHAPE,
        *tensors,
        "-q",
    )
    assert duckling_train(*given) == 0
    return workspace / "runs" / "all"


def tables(run_dir: Path) -> dict[str, Any]:
    return {name: pq.read_table(run_dir / name) for name in TABLES}


def test_the_tables_have_their_columns_and_no_clock_or_path(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    contents = []
    for _ in range(2):
        assert duckling_train("measure", run_dir) == 0
        contents.append({name: (run_dir / name).read_bytes() for name in TABLES})
    assert contents[0] == contents[1]
    assert str(run_dir).encode() not in b"".join(contents[0].values())
    for name, columns in TABLES.items():
        schema = pq.read_schema(run_dir / name)
        assert schema.names == [column.name for column in columns]
        assert [schema.field(column.name).metadata[b"meaning"].decode() for column in columns] == [
            c.meaning for c in columns
        ]
    said = capsys.readouterr()
    assert f"{STEPS + 1} steps up to {STEPS}, {DEAD} dead rows of {LIVE + DEAD}" in said.out
    assert "measures.parquet, rows.parquet" in said.err
    assert not list(run_dir.glob("*.partial"))
    assert list(verify_run(run_dir, run_dir.parent.parent))  # none of it is damage


def test_the_laws_hold_in_the_tables_of_a_real_run(run_dir: Path) -> None:
    assert duckling_train("measure", run_dir, "-q") == 0
    found = {name: np.array(column, float) for name, column in tables(run_dir)["measures.parquet"].to_pydict().items()
             if name != "eigenvalues"}  # fmt: skip
    assert found["step"].tolist() == [*range(STEPS + 1)]
    assert (found["grad_in_norm_dead"][1:] == 0).all()  # law 1
    assert found["dead_mass"][1] == pytest.approx(DEAD / (LIVE + DEAD), rel=0.01)  # law 4
    assert found["displacement_mean"][1] == pytest.approx(1e-3 * 4, rel=0.02)  # law 5: lr·√D
    assert (found["drift_against_h"][1:] > 0).all()  # law 16
    regimes = sum(found[f"{name}_fraction"][1:] for name in ("frozen", "late", "midlife", "early"))
    assert np.allclose(regimes, 1, rtol=1e-15)  # law 17
    assert (found["output_share_dead"][1:] == 1).all()
    assert found["coherence"][1] < found["coherence"][5]
    assert 0 < found["isotropy"].min() <= found["isotropy"].max() <= 1
    w = open_run(str(run_dir)).record.W[:].astype(float)
    assert found["coherence"][3] == coherence(w[3, LIVE:] - w[2, LIVE:])
    assert np.allclose(found["mean_shift"], np.linalg.norm(w.mean(axis=1), axis=1), rtol=1e-9)
    assert np.allclose(found["learning_rate"][1:], [1e-3 * (STEPS - t) / STEPS for t in range(STEPS)], rtol=1e-12)


def test_rows_have_their_tokens_and_counts(run_dir: Path) -> None:
    assert duckling_train("measure", run_dir, "-q") == 0
    rows = tables(run_dir)["rows.parquet"].to_pylist()
    mapping = read_mapping(run_dir.parent.parent / "token_mapping.json")
    assert [row["id"] for row in rows] == [*range(LIVE + DEAD)]
    assert [row["gpt2_id"] for row in rows] == [*mapping["live_token_ids"], *[None] * DEAD]
    assert [row["count"] for row in rows] == [*range(LIVE - 8, 0, -1), *[0] * (8 + DEAD)]
    assert " the" in [row["token"] for row in rows] or " saw" in [row["token"] for row in rows]
    assert {row["token"] for row in rows[LIVE:]} == {None}
    assert Counter(row["band"] for row in rows) == {1: 112, 2: 112, 3: 112, 4: 112, None: DEAD}


def test_json_is_the_summary_alone(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert duckling_train("measure", run_dir, "--json", "-q") == 0
    said = capsys.readouterr()
    figures = json.loads(said.out)
    last = tables(run_dir)["measures.parquet"].to_pylist()[-1]
    assert {name: last[name] for name in figures["last"]} == figures["last"]
    assert figures["freeze"]["surviving"] == last["surviving"]
    assert said.err == ""


def test_a_damaged_record_is_refused_and_measured_around_on_request(
    run_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "damaged"
    shutil.copytree(run_dir, other, ignore=shutil.ignore_patterns("*.parquet"))
    largest = max(
        (other / "record.zarr").rglob("W/residual/*"), key=lambda path: path.stat().st_size if path.is_file() else 0
    )
    with largest.open("r+b") as file:
        file.seek(largest.stat().st_size // 2)
        byte = file.read(1)
        file.seek(-1, 1)
        file.write(bytes([byte[0] ^ 1]))
    assert duckling_train("measure", other) == 2
    assert "damaged" in capsys.readouterr().err
    assert duckling_train("measure", other, "--around") == 2  # its only file: no step is left
    assert f"{other / 'record.zarr'}: the record holds 0 steps of 512 rows" in capsys.readouterr().err
    assert not list(other.glob("*.parquet"))


def test_a_run_without_a_record_is_refused_with_how_to_make_one(
    tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert duckling_train("-w", tiny_workspace, "--out", tmp_path / "bare", "--steps", "1", *TINY_SHAPE, "-q") == 0
    capsys.readouterr()
    assert duckling_train("measure", tmp_path / "bare") == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "has no record: train with --record dead" in line
    assert not list((tmp_path / "bare").glob("*.parquet"))


def test_training_over_a_run_removes_its_tables(tiny_workspace: Path, run_dir: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(run_dir, other)
    assert duckling_train("measure", other, "-q") == 0
    assert duckling_train("-w", tiny_workspace, "--out", other, "--overwrite", "--steps", "1", *TINY_SHAPE, "-q") == 0
    assert not list(other.glob("*.parquet"))


def test_a_run_that_goes_on_is_measured_and_drawn_again(tiny_workspace: Path, tmp_path: Path) -> None:
    run = tmp_path / "longer"
    given = ("--steps", "2", "--schedule", "constant", "--record", "dead", *TINY_SHAPE, "-q")
    assert duckling_train("-w", tiny_workspace, "--out", run, *given) == 0
    assert duckling_train("measure", run, "-q") == 0
    assert duckling_train("plots", run, "--only", "loss", "-q") == 0
    assert duckling_train("-w", tiny_workspace, "--resume", run, "--steps", "3", "-q") == 0
    assert not [*run.glob("*.parquet"), *run.glob("plots")]
    assert duckling_train("measure", run, "-q") == 0
    assert [table.num_rows for table in tables(run).values()] == [4, DEAD]
    assert tables(run)["measures.parquet"]["isotropy"].null_count == 4


def test_dead_rows_have_their_largest_probability_over_the_validation_rows(run_dir: Path, tmp_path: Path) -> None:
    """Against the model's own logits; null for live rows, and where the workspace's rows are others."""
    assert duckling_train("measure", run_dir, "-q") == 0
    found = pq.read_table(run_dir / "rows.parquet").to_pydict()
    run = open_run(run_dir)
    rows = open_rows(run.workspace / "tokenized_validation")
    ids = torch.from_numpy(np.stack([rows[number] for number in range(min(128, len(rows)))]).astype(np.int64))
    with torch.no_grad():
        p = torch.softmax(run.model().float()(ids).logits[:, :-1].double(), -1).flatten(0, 1)
    expected = p.amax(0)[LIVE:].numpy()
    assert found["largest_probability"][:LIVE] == [None] * LIVE
    assert np.array(found["largest_probability"][LIVE:]) == pytest.approx(expected, rel=1e-5)
    assert found["argmax_positions"][LIVE:] == torch.bincount(p.argmax(1), minlength=LIVE + DEAD)[LIVE:].tolist()
    shutil.copytree(run_dir, tmp_path / "alone")
    assert duckling_train("measure", tmp_path / "alone", "-q", "-w", tmp_path) == 0
    assert set(pq.read_table(tmp_path / "alone" / "rows.parquet").to_pydict()["largest_probability"]) == {None}
