"""The two studies: their measures, by hand on small arrays, and each script from its options to its table."""

from __future__ import annotations

import json
import math
import runpy
from pathlib import Path
from typing import Any

import numpy as np
import pytest

SCRIPTS = Path(__file__).parents[2] / "scripts"


@pytest.fixture(scope="module")
def coupled() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "study_coupled_adam.py"))


@pytest.fixture(scope="module")
def freezing() -> dict[str, Any]:
    return runpy.run_path(str(SCRIPTS / "study_freezing.py"))


@pytest.mark.parametrize("name", ["coupled", "freezing"])
def test_each_says_how_it_is_used_and_what_it_does_not_take(
    name: str, request: pytest.FixtureRequest, capsys: pytest.CaptureFixture[str]
) -> None:
    main = request.getfixturevalue(name)["main"]
    for arguments, status in ((["--help"], 0), (["--seeds", "0"], 2)):
        with pytest.raises(SystemExit) as end:
            main(arguments)
        assert end.value.code == status
    told = capsys.readouterr()
    assert "(default: artifacts/demo)" in told.out
    assert "--seeds" in told.err.splitlines()[-1]
    with pytest.raises(SystemExit) as end:
        main(["--workspace", "nowhere"])
    assert "no tokenized_dataset in nowhere" in str(end.value.code)


def test_the_measures_of_an_embedding_are_their_definitions(coupled: dict[str, Any]) -> None:
    w = np.random.default_rng(1).normal(size=(9, 4)) + 0.3
    found = coupled["embedding_measures"](w, 6)
    _, directions = np.linalg.eigh(w.T @ w)
    sums = [sum(math.exp(sign * row @ c) for row in w) for c in directions.T for sign in (1, -1)]
    assert found["isotropy"] == pytest.approx(min(sums) / max(sums))
    assert found["mean_shift"] == pytest.approx(np.linalg.norm(sum(w) / 9))
    assert found["centroid_norm"] == pytest.approx(np.linalg.norm((w[6] + w[7] + w[8]) / 3))


def test_differences_are_paired_by_seed(coupled: dict[str, Any]) -> None:
    """Seeds differ by far more than the optimizers: their interval is that of 0.1, 0.2 and 0.3 alone."""
    of_adam = [{5: {"loss": value}} for value in (1.0, 5.0, 9.0)]
    of_coupled = [{5: {"loss": value}} for value in (1.1, 5.2, 9.3)]
    line = coupled["table"]({"adamw": of_adam, "coupled-adam": of_coupled}).splitlines()[-1]
    half = 4.302653 * 0.1 / math.sqrt(3)  # Student's t at 97.5 % for two degrees of freedom
    assert line == f"| 5 | training loss | 5.0000 | 5.2000 | 0.2000 [{0.2 - half:.4f}, {0.2 + half:.4f}] | 0 of 3 |"


def test_coupled_adam_is_compared_at_each_step_asked_for(
    coupled: dict[str, Any], tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the same weights on the same rows: the first loss is the same, and coupling holds the mean back."""
    out = tmp_path / "found.json"
    coupled["main"](["-w", str(tiny_workspace), "--seeds", "2", "--at", "1", "4", "--last", "2", "--out", str(out)])
    found = json.loads(out.read_text())
    for adam, other in zip(found["adamw"], found["coupled-adam"], strict=True):
        assert adam.keys() == other.keys() == {"1", "4"}
        assert adam["1"]["loss"] == other["1"]["loss"]
        assert other["4"]["mean_shift"] < 0.7 * adam["4"]["mean_shift"]
    lines = capsys.readouterr().out.splitlines()
    assert [line.split(" | ")[0] for line in lines[2:]] == ["| 1"] * 4 + ["| 4"] * 4


def test_an_onset_is_the_last_change_and_its_silence_is_held_against_the_rate_before(freezing: dict[str, Any]) -> None:
    """Four rows: one moves always, one stops at step 20, one moves every tenth step, one never."""
    changed = np.zeros((40, 4), dtype=bool)
    changed[:, 0], changed[:20, 1], changed[9::10, 2] = True, True, True
    changed[39, 2] = False
    found = freezing["onsets"](changed, 10)
    assert found.last.tolist() == [40, 20, 30, 0]
    assert found.rate.tolist() == [1.0, 1.0, 0.1, 0.0]
    assert found.silent.tolist() == [0, 20, 10, 40]
    np.testing.assert_allclose(found.by_chance, [1, math.exp(-20), math.exp(-1), 1])
    curve = found.survival(1e-3)
    assert curve.evaluate([19, 20, 40]).tolist() == [1, pytest.approx(2 / 3), pytest.approx(2 / 3)]
    expected = [np.mean([1 - math.exp(-rate * (40 - step)) for rate in (1, 1, 0.1, 0)]) for step in (0, 30, 40)]
    np.testing.assert_allclose(found.null(np.array([0, 30, 40])), expected, atol=1e-15)


def test_rows_called_frozen_at_half_the_steps_are_counted_where_they_change_later(freezing: dict[str, Any]) -> None:
    changed = np.zeros((80, 3), dtype=bool)
    changed[:20], changed[60, 1], changed[:, 2] = True, True, True
    assert freezing["recanted"](changed, 10, 1e-3) == (2, 1)


def test_each_precision_and_schedule_has_its_lines_and_its_curves(
    freezing: dict[str, Any], tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """At a rate far below a ULP: float32 rows do what AdamW asks for and bf16 ones hardly anything."""
    figure = tmp_path / "freezing.png"
    given = ["-w", str(tiny_workspace), "--steps", "6", "--window", "3", "--learning-rate", "1e-7"]
    freezing["main"]([*given, "--figure", str(figure), "--precision", "fp32", "bf16-weights"])
    told = capsys.readouterr()
    cells = [[cell.strip() for cell in line.split("|")[1:-1]] for line in told.out.splitlines()[2:]]
    assert [row[:3] for row in cells] == [
        *(["fp32", schedule, view] for schedule in ("constant", "linear") for view in ("float32", "bf16")),
        *(["bf16-weights", schedule, "bf16"] for schedule in ("constant", "linear")),
    ]
    for precision, _, view, *figures in cells:
        taken, asked = map(float, figures[-2:])
        assert 8 < asked < math.sqrt(128) + 0.1  # at most the rate in each coordinate
        assert taken == pytest.approx(asked, rel=0.02) if precision == "fp32" else taken < asked
        assert figures[0] == "100.0%" if view == "float32" else float(figures[0].rstrip("%")) < 95
    assert told.err.splitlines()[-1] == "4 of 4: bf16-weights, linear, 6 steps"
    assert figure.read_bytes().startswith(b"\x89PNG")
