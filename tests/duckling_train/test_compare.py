"""`duckling-train compare`: the table shows what differs and nothing else, and never compares across data unsaid."""

from __future__ import annotations

import io
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from duckling_data.base.errors import InputError
from duckling_data.base.plotting import COLOURS
from duckling_train.cli import main
from duckling_train.compare.table import comparison, differing, plot_labels, table
from duckling_train.config import TrainConfig
from duckling_train.plot import LINES, Curve, overlay
from duckling_train.runs.layout import write_manifest
from duckling_train.runs.read import RunRecord, read_run, same_data
from tests.support.train import Ran, command, environment

PNG = b"\x89PNG\r\n\x1a\n"


def make_run(place: Path, *, finished: bool = True, data: str | None = "ab", logs: int = 3, **settings: Any) -> Path:
    """Write the records of a run whose logged losses are 9.5, 9.0, 8.5 and so on. Returns its directory."""
    place.mkdir(parents=True)
    config = TrainConfig(**{"steps": 1000, "device": "cpu", **settings}).resolved()
    inputs = {"inputs": {"dataset": {"payload_sha256": data * 32}}} if data else {}
    (place / "config.json").write_text(json.dumps({**config, **inputs}))
    metrics = [{"step": max(1, 10 * index), "loss": 9.5 - index / 2} for index in range(logs)]
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in metrics))
    if finished:
        summary = {"parameters": 1510912, "steps_per_second": 7.25, "tokens_per_second": 7421.6, "device_name": "a CPU"}
        (place / "summary.json").write_text(json.dumps(summary))
        write_manifest(place, {})
    return place


def cells(table: str) -> list[dict[str, str]]:
    """Return the table's rows by column head; columns are two spaces apart or more."""
    head, *rows = (re.split(" {2,}", line.strip()) for line in table.split("\n\n")[0].splitlines())
    return [dict(zip(head, row, strict=True)) for row in rows]


def compared(places: list[Path], out: Path) -> tuple[str, bool]:
    """The table of the runs, and whether they were plotted."""
    runs, plotted = comparison(places, out)
    return table(runs), plotted


def records(*places: Path) -> list[RunRecord]:
    return [read_run(place) for place in places]


def test_a_setting_that_a_run_leaves_out_at_its_default_is_shown_with_it(tmp_path: Path) -> None:
    places = [make_run(tmp_path / "a"), make_run(tmp_path / "b", init_std=0.1)]
    assert [row["init-std"] for row in cells(compared(places, tmp_path / "plot.png")[0])] == ["0.02", "0.1"]


def test_only_what_differs_has_a_column(tmp_path: Path) -> None:
    places = [
        make_run(tmp_path / "a", learning_rate=1e-3),
        make_run(tmp_path / "b", n_embd=256, steps=2000),
    ]
    assert differing(records(*places)) == ["learning_rate", "n_embd"]  # n_inner follows n_embd; steps has its own
    first, second = cells(compared(places, tmp_path / "plot.png")[0])
    assert first == {
        "run": "a", "learning-rate": "0.001", "width": "128", "parameters": "1,510,912", "steps": "1,000",
        "last loss": "8.5000", "last tenth": "8.5000", "steps/s": "7.2", "tokens/s": "7,422", "device": "a CPU",
    }  # fmt: skip
    assert (second["run"], second["learning-rate"], second["width"], second["steps"]) == ("b", "0.0001", "256", "2,000")


def test_a_setting_that_one_run_does_not_know_differs(tmp_path: Path) -> None:
    old = make_run(tmp_path / "old")
    config = json.loads((old / "config.json").read_text())
    del config["schedule"]
    (old / "config.json").write_text(json.dumps(config))
    write_manifest(old, {})
    rows = cells(compared([old, make_run(tmp_path / "new")], tmp_path / "plot.png")[0])
    assert [row["schedule"] for row in rows] == ["-", "linear"]


def test_columns_are_aligned(tmp_path: Path) -> None:
    shown, _ = compared([make_run(tmp_path / "a"), make_run(tmp_path / "a-longer-name", seed=7)], tmp_path / "p.png")
    heads, *rows = shown.splitlines()
    assert {line.index("a CPU") for line in rows} == {heads.index("device")}
    for head, cell in (("seed", " 42"), ("seed", " 7"), ("parameters", "1,510,912"), ("tokens/s", "7,422")):
        end = heads.index(head) + len(head)
        assert any(line[:end].endswith(cell) for line in rows)  # numbers end where their head does


def test_validation_losses_are_shown_where_there_are_some(tmp_path: Path) -> None:
    places = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    assert "validation loss" not in compared(places, tmp_path / "p.png")[0]
    lines = [{"step": step, "loss": loss} for step, loss in ((10, 8.1), (20, 7.9))]
    (places[0] / "evaluation.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write_manifest(places[0], {})
    rows = cells(compared(places, tmp_path / "p.png")[0])
    assert [row["validation loss"] for row in rows] == ["7.9000", "-"]


def test_different_data_is_said_clearly(tmp_path: Path) -> None:
    same = [make_run(tmp_path / "a"), make_run(tmp_path / "b")]
    shown, _ = compared(same, tmp_path / "p.png")
    assert "data" not in shown
    for name, data in (("c", "cd"), ("unsaid", None)):
        mixed = [*same, make_run(tmp_path / name, data=data)]
        assert not same_data(records(*mixed))
        shown, _ = compared(mixed, tmp_path / "p.png")
        assert "Attention: different data (column data): these losses are no comparison of the runs." in shown
        assert [row["data"] for row in cells(shown)] == ["abababab", "abababab", (data or "-") * (4 if data else 1)]


def test_an_unfinished_run_is_shown_as_such(tmp_path: Path) -> None:
    places = [make_run(tmp_path / "a"), make_run(tmp_path / "live", finished=False)]
    shown, plotted = compared(places, tmp_path / "plot.png")
    assert plotted
    live = cells(shown)[1]
    assert (live["steps"], live["parameters"], live["steps/s"], live["device"]) == ("20 of 1,000", "-", "-", "cpu")
    assert shown.endswith("\n\nNot finished: live.")


def test_a_run_without_a_loss_is_in_the_table_but_not_in_the_plot(tmp_path: Path) -> None:
    fresh = make_run(tmp_path / "fresh", finished=False, logs=0)
    shown, plotted = compared([fresh], tmp_path / "plot.png")
    assert (cells(shown)[0]["last loss"], plotted, (tmp_path / "plot.png").exists()) == ("-", False, False)
    assert compared([fresh, make_run(tmp_path / "a")], tmp_path / "plot.png")[1]


def test_runs_of_one_name_are_told_apart_by_their_paths(tmp_path: Path) -> None:
    places = [make_run(tmp_path / folder / "demo") for folder in ("x", "y")]
    rows = cells(compared(places, tmp_path / "plot.png")[0])
    assert [row["run"] for row in rows] == [str(place) for place in places]


def test_labels_are_the_names_and_what_differs_and_shapes_learning(tmp_path: Path) -> None:
    places = [make_run(tmp_path / "a", seed=1), make_run(tmp_path / "b", seed=2, steps=10)]
    twins = [make_run(tmp_path / "c", seed=3), make_run(tmp_path / "d", seed=3, finished=False)]
    assert plot_labels(records(*places)) == ["a: steps 1000, seed 1", "b: steps 10, seed 2"]
    assert plot_labels(records(places[0])) == ["a"]
    assert plot_labels(records(places[0], *twins)) == ["a: seed 1", "c: seed 3", "d: seed 3 (not finished)"]
    slow = make_run(tmp_path / "e", seed=1, threads=1, logging_steps=5, checkpoint_steps=2)
    assert plot_labels(records(places[0], slow)) == ["a", "e"]  # nothing that shapes what is learned differs


def test_equal_curves_are_both_seen() -> None:
    """The second is drawn over the first: were both solid, the picture would show one."""
    run = Curve(range(1, 11), [9.0 - step / 10 for step in range(10)])
    picture = np.asarray(Image.open(io.BytesIO(overlay([run, run], ["a", "b"], same_data=True))).convert("RGB"))
    drawn = picture[: int(0.8 * len(picture))].reshape(-1, 3)  # not the legend
    for colour in COLOURS[:2]:
        wanted = [int(colour[at : at + 2], 16) for at in (1, 3, 5)]
        assert np.all(drawn == wanted, axis=1).sum() > 100, colour


def test_the_plot_is_of_the_losses_and_labels_alone(recwarn: pytest.WarningsRecorder) -> None:
    runs = [Curve(range(1, 61), [9.5 - step / (9 + seed) for step in range(60)]) for seed in range(20)]
    labels = ["_hidden", "$x", "日本", *(f"seed {seed}" for seed in range(3, 20))]
    plot = overlay(runs, labels, same_data=True)
    assert plot.startswith(PNG)
    assert plot == overlay(runs, labels, same_data=True)
    assert plot != overlay(runs, labels, same_data=False)
    assert plot != overlay(runs, ["hidden", *labels[1:]], same_data=True)
    assert plot != overlay([*runs[:-1], Curve(runs[-1].steps, runs[-1].losses[::-1])], labels, same_data=True)
    assert len(COLOURS) * len(LINES) >= len(runs)  # each looks different
    assert not recwarn.list


@pytest.mark.parametrize("out", ["plot.pdf", "plot", ".", "nowhere/plot.png", "folder.png"])
def test_a_place_that_cannot_take_the_plot_is_refused(tmp_path: Path, out: str) -> None:
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="--out is"):
        compared([make_run(tmp_path / "a")], tmp_path / out)


def test_the_command_compares_a_run_with_another_of_the_workspace(run: Ran, tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "other", seed=7)
    done = subprocess.run(
        command("compare", run.run_dir, "other", "-w", tmp_path, "--out", tmp_path / "plot.png"),
        capture_output=True, text=True, env=environment(), check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, f"losses plotted in {tmp_path / 'plot.png'}\n")
    rows = cells(done.stdout.strip())
    assert [(row["run"], row["seed"], row["parameters"]) for row in rows] == [
        ("short", "42", "1,510,912"),
        ("other", "7", "1,510,912"),
    ]
    assert rows[0]["last loss"] == f"{run.json('summary.json')['last_loss']:.4f}"
    assert (tmp_path / "plot.png").read_bytes().startswith(PNG)


def test_json_has_what_the_table_says_of_each_run(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    places = [make_run(tmp_path / "a", learning_rate=1e-3), make_run(tmp_path / "live", finished=False, logs=0)]
    with pytest.raises(SystemExit) as stop:
        main(["compare", *map(str, places), "--out", str(tmp_path / "plot.png"), "--json"])
    first, live = json.loads(capsys.readouterr().out)
    assert (stop.value.code, first["run"], first["finished"], first["dataset"]) == (0, "a", True, "ab" * 32)
    assert first["settings"]["learning_rate"] == 0.001
    assert (first["last_loss"], first["last_tenth"], first["tokens_per_second"]) == (8.5, 8.5, 7421.6)
    assert (live["finished"], live["step"], live["last_loss"], live["device"]) == (False, None, None, "cpu")
