"""Run directories as they are read: found by name or path; a live run's torn last line is no damage, all else is."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest

from duckling_data.base.errors import InputError
from duckling_train.cli import main
from duckling_train.runs.layout import write_manifest
from duckling_train.runs.open import model_directory
from duckling_train.runs.read import find_run, read_run
from tests.support.train import Ran

LINES = [{"step": step, "loss": 9 - step / 10, "learning_rate": 1e-4, "grad_norm": None} for step in (1, 10, 20)]


def make_run(place: Path, *, finished: bool = True, torn: str = "") -> Path:
    """Write the records of a run of three logs, without a model. Returns its directory."""
    place.mkdir(parents=True)
    (place / "config.json").write_text(json.dumps({"steps": 20, "seed": 42, "inputs": {"mapping": {"sha256": "ab"}}}))
    (place / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES) + torn)
    if finished:
        (place / "summary.json").write_text(json.dumps({"parameters": 7}))
        write_manifest(place, {})
    return place


def test_a_run_is_found_by_name_and_by_path(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    named = make_run(tmp_path / "runs" / "one")
    elsewhere = make_run(tmp_path / "elsewhere")
    assert find_run(tmp_path, "one") == named
    assert find_run(tmp_path, str(named)) == find_run(tmp_path, f"{named}/") == named
    assert find_run(tmp_path, str(elsewhere)) == elsewhere
    monkeypatch.chdir(elsewhere)
    assert find_run(tmp_path, ".").resolve() == elsewhere
    monkeypatch.chdir(tmp_path)
    make_run(tmp_path / "one")
    assert find_run(tmp_path, "one") == named  # a name is the workspace's before it is a path


@pytest.mark.parametrize("run", ["two", "", "..", "runs", "runs/two", "one/model"])
def test_what_is_no_run_is_refused_with_the_names_there_are(tmp_path: Path, run: str) -> None:
    make_run(tmp_path / "runs" / "one")
    with pytest.raises(InputError, match=r"no run '.*': neither .* \(which holds one\)$"):
        find_run(tmp_path, run)
    with pytest.raises(InputError, match=r"\(which holds none\)$"):
        find_run(tmp_path / "empty", run)


def test_a_record_is_what_the_files_say(tmp_path: Path) -> None:
    record = read_run(make_run(tmp_path / "one"))
    assert (record.name, record.finished, record.summary) == ("one", True, {"parameters": 7})
    assert record.settings == {"steps": 20, "seed": 42}
    assert record.inputs == {"mapping": {"sha256": "ab"}}
    assert (record.steps, record.losses) == ([1, 10, 20], [8.9, 8.0, 7.0])
    assert record.evaluations == []


def test_evaluations_are_read_where_there_are_some(tmp_path: Path) -> None:
    place = make_run(tmp_path / "one")
    line = {"step": 20, "loss": 7.5, "perplexity": 1808.0, "loss_known": None, "rows": 4}
    (place / "evaluation.jsonl").write_text(json.dumps(line) + "\n")
    write_manifest(place, {})
    assert read_run(place).evaluations == [line]


@pytest.mark.parametrize("torn", ['{"st', '{"step": 30, "loss": 6.0}'])
def test_the_torn_last_line_of_a_live_run_is_left_out(tmp_path: Path, torn: str) -> None:
    record = read_run(make_run(tmp_path / "live", finished=False, torn=torn))
    assert (record.steps, record.finished, record.summary) == ([1, 10, 20], False, None)


def test_a_run_that_has_not_logged_yet_is_read(tmp_path: Path) -> None:
    place = make_run(tmp_path / "live", finished=False)
    (place / "metrics.jsonl").unlink()
    assert read_run(place).steps == []


@pytest.mark.parametrize(
    "bad",
    [
        "",
        "{",
        "[]",
        '{"step": 30}',
        '{"step": "30", "loss": 1}',
        '{"step": 20, "loss": 1}',
        '{"step": 30, "loss": "1"}',
    ],
)
@pytest.mark.parametrize("finished", [True, False])
def test_a_damaged_line_is_named(tmp_path: Path, bad: str, finished: bool) -> None:
    place = make_run(tmp_path / "one", finished=finished, torn=bad + "\n")
    with pytest.raises(InputError, match=rf"{place / 'metrics.jsonl'}, line 4: damaged"):
        read_run(place)


def test_a_finished_runs_torn_line_is_damage(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="line 4: damaged"):
        read_run(make_run(tmp_path / "one", torn='{"st'))


def test_a_config_that_is_no_object_is_refused(tmp_path: Path) -> None:
    place = make_run(tmp_path / "one")
    for content, message in (("[]", "Expected `object`, got `array`"), ("{", "not JSON")):
        (place / "config.json").write_text(content)
        write_manifest(place, {})
        with pytest.raises(InputError, match=message):
            read_run(place)


def test_an_unfinished_run_without_a_model_says_how_to_go_on(tmp_path: Path) -> None:
    place = make_run(tmp_path / "live", finished=False)
    with pytest.raises(InputError, match=rf"has no model yet, .*: duckling-train --resume {place}$"):
        model_directory(place)


# A finished run is what it wrote, or it is not shown


def digit_changed(path: Path) -> None:
    """Change the last digit in a file: it reads as well as before."""
    content = bytearray(path.read_bytes())
    place = max(index for index, byte in enumerate(content) if chr(byte).isdecimal())
    content[place] = ord("1") if content[place] != ord("1") else ord("2")
    path.write_bytes(content)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", "evaluation.jsonl"])
def test_a_changed_digit_in_a_finished_run_is_refused_by_name(tmp_path: Path, name: str) -> None:
    place = make_run(tmp_path / "one")
    (place / "evaluation.jsonl").write_text('{"step": 20, "loss": 7.5}\n')
    write_manifest(place, {})
    assert read_run(place).finished
    digit_changed(place / name)
    with pytest.raises(InputError, match=rf"^{place / name} has SHA-256 .*; duckling-train verify {place} checks"):
        read_run(place)


@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json"])
def test_a_removed_or_an_added_file_of_a_finished_run_is_refused_by_name(tmp_path: Path, name: str) -> None:
    place = make_run(tmp_path / "one")
    (place / name).rename(tmp_path / "aside")
    with pytest.raises(InputError, match=rf"^{place / name} is missing; duckling-train verify {place} "):
        read_run(place)
    (tmp_path / "aside").rename(place / name)
    manifest = json.loads((place / "manifest.json").read_text())
    del manifest["files"][name]
    (place / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InputError, match=rf"^{place / name} was added: manifest.json does not list it"):
        read_run(place)


@pytest.mark.parametrize(
    "files", [None, [], {"config.json": "ab"}, {"config.json": {"sha256": 7}}, {"config.json": {}}]
)
def test_a_manifest_that_lists_no_digests_is_refused(tmp_path: Path, files: object) -> None:
    place = make_run(tmp_path / "one")
    (place / "manifest.json").write_text(json.dumps({"format": 1, "files": files}))
    with pytest.raises(InputError, match=r"manifest.json: .*Expected|manifest.json: .*missing required field"):
        read_run(place)


@pytest.mark.parametrize("arguments", [["compare", "--out", "plot.png"], ["--resume"], ["generate"]])
def test_no_command_shows_a_finished_run_that_was_changed(
    run: Ran, tmp_path: Path, arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    copy = Path(shutil.copytree(run.run_dir, tmp_path / "run"))
    changed = copy / ("model/generation_config.json" if arguments == ["generate"] else "summary.json")
    digit_changed(changed)
    with pytest.raises(SystemExit) as end:
        main([*arguments, str(copy)])
    said = capsys.readouterr()
    assert (end.value.code, said.out) == (2, "")
    assert said.err.startswith(f"duckling-train: {changed} ")
    assert "SHA-256" in said.err
    assert len(said.err.splitlines()) == 1
