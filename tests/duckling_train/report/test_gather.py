"""What a report shows is what the run's files hold: points, regimes, distances, tokens."""

from __future__ import annotations

import itertools
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import InputError
from duckling_train import open_run
from duckling_train.cli import main
from duckling_train.dynamics.displacement import lattice_displacement, norms, regimes
from duckling_train.dynamics.shape import tracer_axes
from duckling_train.report.gather import Shown, gather
from duckling_train.report.movement import movement

LIVE, DEAD = 448, 64


@pytest.fixture(scope="module")
def shown(recorded: Path) -> Shown:
    return gather(open_run(recorded))


def test_the_cloud_is_the_rows_on_two_fixed_axes(shown: Shown) -> None:
    record, cloud = shown.run.record, shown.cloud
    assert cloud is not None
    assert cloud.live is not None
    assert cloud.tracer is not None
    assert cloud.live_tracer is not None
    w = record.W[:].astype(np.float64)
    dead = w[:, record.dead]
    assert cloud.steps.tolist() == record.steps.tolist() == [*range(25)]
    assert cloud.ids.tolist() == [*range(LIVE, LIVE + DEAD)]
    pooled = dead.reshape(-1, record.width)
    values = np.linalg.svd(pooled - pooled.mean(axis=0), compute_uv=False) ** 2
    assert np.allclose(cloud.pca_share, values[:2] / values.sum())
    spread = (cloud.pca.reshape(-1, 2) - cloud.pca.reshape(-1, 2).mean(axis=0)).astype(np.float64)
    assert np.allclose(spread.T @ spread, np.diag(values[:2]), atol=1e-5 * values[0])
    axes = tracer_axes(record["h_mean"][-1].astype(np.float64))
    assert np.allclose(cloud.tracer, dead @ axes.T, atol=1e-6)
    assert np.allclose(cloud.live_tracer, w[:, ~record.dead] @ axes.T, atol=1e-6)
    assert cloud.live_ids.tolist() == [*range(LIVE)]


def test_regimes_are_those_of_every_step_sorted_by_the_freeze_onset(shown: Shown) -> None:
    record, motion, rows = shown.run.record, shown.motion, shown.rows
    assert motion is not None
    assert rows is not None
    w = record.W[:][:, record.dead]
    moves = [norms(lattice_displacement(*pair)) for pair in itertools.pairwise(w)]
    expected = np.stack([regimes(move, record.width) for move in moves])
    assert (motion.regimes == expected.T[motion.order - LIVE]).all()
    assert motion.edges.tolist() == [*range(25)]
    onset = dict(zip(rows["id"].tolist(), rows["onset"].tolist(), strict=True))
    assert motion.onset.tolist() == sorted(onset[row] for row in range(LIVE, LIVE + DEAD))
    assert [onset[row] for row in motion.order.tolist()] == motion.onset.tolist()


def test_a_column_of_several_steps_shows_the_hottest_regime(shown: Shown, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("duckling_train.report.movement.COLUMNS", 5)
    monkeypatch.setattr("duckling_train.report.movement.FRAMES", 7)
    monkeypatch.setattr("duckling_train.report.movement.LIVE_FRAMES", 2)
    cloud, motion = movement(shown.run.record)
    assert cloud is not None
    assert motion is not None
    assert shown.cloud is not None
    assert shown.motion is not None
    assert motion.edges.tolist() == [0, 4, 9, 14, 19, 24]
    whole = shown.motion.regimes
    expected = [whole[:, a:b].max(axis=1) for a, b in zip(motion.edges[:-1], motion.edges[1:], strict=True)]
    assert np.array_equal(motion.regimes.T, expected)
    assert cloud.steps.tolist() == [0, 4, 8, 12, 16, 20, 24]
    assert cloud.live_steps.tolist() == [0, 24]


def test_distance_tokens_and_counts_are_of_all_rows(shown: Shown) -> None:
    record, dynamics = shown.run.record, shown.run.last_dynamics
    assert shown.distance is not None
    assert dynamics is not None
    w = record.W[:].astype(np.float64)
    assert np.allclose(shown.distance, np.linalg.norm(w[-1] - w[0], axis=1), rtol=1e-6)
    assert shown.dead.tolist() == [False] * LIVE + [True] * DEAD
    assert shown.counts[:3].tolist() == [440, 439, 438]
    assert np.isnan(shown.counts[LIVE:]).all()
    assert shown.tokens[LIVE:] == [None] * DEAD
    assert None not in shown.tokens[:LIVE]


def test_the_tables_are_those_that_measure_wrote(shown: Shown) -> None:
    assert shown.steps is not None
    table = pq.read_table(shown.run.directory / "measures.parquet")
    assert [*shown.steps] == table.column_names
    written = np.array(table.column("coherence").to_pylist(), float)
    assert np.array_equal(shown.steps["coherence"], written, equal_nan=True)
    assert shown.steps["eigenvalues"].shape == (25, 16)


def test_a_run_without_a_record_has_what_it_has(bare: Path) -> None:
    shown = gather(open_run(bare))
    assert (shown.steps, shown.rows, shown.cloud, shown.motion) == (None,) * 4
    assert shown.distance is not None
    assert shown.dead.sum() == DEAD
    assert shown.counts[0] == 440


def test_a_distance_from_another_start_is_not_shown(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(recorded, other, ignore=shutil.ignore_patterns("record.zarr"))
    assert gather(open_run(other)).distance is not None
    (other / "manifest.json").unlink()  # or its new settings are damage
    config = other / "config.json"
    config.write_text(config.read_text().replace('"seed": 42', '"seed": 43'))
    assert gather(open_run(other)).distance is None


@pytest.mark.parametrize(
    "columns",
    [
        {"step": ["a"] * 25},
        {"step": [[1]] * 25},
        {"eigenvalues": [[1.0], [1.0, 2.0], *[None] * 23]},
        {"eigenvalues": [["a"]] * 25},
        {"other": [1] * 25},
        {"step": [1]},
    ],
    ids=str,
)
def test_a_table_of_other_columns_is_refused_in_one_line(
    recorded: Path, tmp_path: Path, columns: dict[str, Any], capsys: pytest.CaptureFixture[str]
) -> None:
    run = tmp_path / "run"
    shutil.copytree(recorded, run)
    pq.write_table(pa.table(columns), run / "measures.parquet")
    with pytest.raises(SystemExit) as ended:
        main(["report", str(run), "-q"])
    said = capsys.readouterr().err
    assert ended.value.code == 2
    assert "measures.parquet" in said
    assert len(said.strip().splitlines()) == 1


def test_a_damaged_table_is_refused_in_one_line(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "other"
    shutil.copytree(recorded, other)
    (other / "measures.parquet").write_bytes(b"PAR1")
    with pytest.raises(InputError, match=r"measures.parquet is damaged \([^\n]*\); expected .* call it again$"):
        gather(open_run(other))
