"""`duckling-train verify` finds damage to any file of a run and names it; damaged data never trains silently."""

from __future__ import annotations

import contextlib
import io
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed
from duckling_train.cli import main
from duckling_train.runs.verify import verify_run
from tests.support.damage import flipped
from tests.support.train import TINY_SHAPE, duckling_train

STEPS = 25
LAST = f"checkpoints/step-{STEPS:08d}"
FILES = [
    "config.json", "metrics.jsonl", "dynamics.jsonl", "summary.json", "loss.png", "samples.txt",
    "model/model.safetensors", "model/config.json", "model/generation_config.json", "model/token_mapping.json",
    "model/tokenizer_config.json",
]  # fmt: skip
CHECKPOINT = [f"{LAST}/{name}" for name in ("weights.safetensors", "optimizer.safetensors")]


@pytest.fixture(scope="module")
def once(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a workspace of its own, with the checkpoints of steps 10, 20 and 25."""
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path_factory.mktemp("verified") / "w"))
    settings = ("--steps", str(STEPS), "--checkpoint-steps", "10", "--keep-checkpoints")
    ran = duckling_train(workspace / "runs/good", "-w", workspace, *TINY_SHAPE, *settings)
    assert ran.status == 0, ran.stderr
    return ran.run_dir


@pytest.fixture
def run_dir(once: Path, tmp_path: Path) -> Path:
    """A copy of the run, outside of its workspace."""
    return Path(shutil.copytree(once, tmp_path / "run"))


@pytest.fixture
def unfinished(run_dir: Path) -> Path:
    """The run as a kill after its last checkpoint leaves it, with a half-written line."""
    for name in ("manifest.json", "summary.json", "loss.png", "samples.txt"):
        (run_dir / name).unlink()
    shutil.rmtree(run_dir / "model")
    with (run_dir / "metrics.jsonl").open("a") as file:
        file.write('{"step": 2')
    return run_dir


def fault(run_dir: Path, workspace: Path | None = None) -> str:
    """What `verify` names; fails where it finds nothing."""
    with pytest.raises(CheckFailed) as found:
        list(verify_run(run_dir, workspace or run_dir))
    assert len(str(found.value).splitlines()) == 1
    return str(found.value)


def while_damaged(path: Path, content: bytes, then: Callable[[], str]) -> str:
    good = path.read_bytes()
    path.write_bytes(content)
    said = then()
    path.write_bytes(good)
    return said


def test_a_good_run_passes_by_name_with_its_workspaces_data(once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["verify", "good", "-w", str(once.parent.parent)])
    said = capsys.readouterr()
    assert (end.value.code, said.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    assert lines["files"] == "ok: 12 files, none missing, none added"
    assert lines["checkpoints"] == "ok: 3 whole"
    assert lines["logs"] == "ok: 3 losses, all finite"  # of steps 1, 10, 20
    assert lines["model"].endswith("64 of 512 embedding rows are dead")
    assert lines["data"].startswith("ok: ")


def test_a_run_away_from_its_workspace_passes_and_says_that_the_data_is_not_at_hand(run_dir: Path) -> None:
    assert any(line.startswith("data         not at hand") for line in verify_run(run_dir, run_dir))


def test_an_unfinished_run_passes_and_is_told_from_a_finished_one(unfinished: Path) -> None:
    lines = list(verify_run(unfinished, unfinished))
    assert lines[-1] == f"unfinished   resume with duckling-train --resume {unfinished}"


def test_a_flipped_bit_a_truncated_tail_and_a_removed_file_are_found_and_named(run_dir: Path) -> None:
    for name in (*FILES, *CHECKPOINT, "manifest.json", f"{LAST}/checkpoint.json"):
        good = (run_dir / name).read_bytes()
        for content in (next(flipped(good)), good[:-2], b""):
            assert Path(name).name in while_damaged(run_dir / name, content, lambda: fault(run_dir)), name
        if name != "manifest.json":  # without one the run is an unfinished one
            (run_dir / name).rename(run_dir / "aside")
            assert Path(name).name in fault(run_dir)
            (run_dir / "aside").rename(run_dir / name)


def test_every_bit_of_the_records_is_found_or_harmless(run_dir: Path) -> None:
    """Never a traceback: what a flipped bit leaves of a record is refused in one line, or says the same."""
    for name in ("manifest.json", f"{LAST}/checkpoint.json"):
        good = (run_dir / name).read_bytes()
        for place in range(0, len(good), 7):
            bad = bytearray(good)
            bad[place] ^= 1 << place % 8
            (run_dir / name).write_bytes(bad)
            with contextlib.suppress(CheckFailed):
                list(verify_run(run_dir, run_dir))
        (run_dir / name).write_bytes(good)


def test_the_command_names_a_removed_file_with_status_1(run_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / "samples.txt").unlink()
    with pytest.raises(SystemExit) as end:
        main(["verify", str(run_dir)])
    assert end.value.code == 1
    assert "samples.txt is missing" in capsys.readouterr().err


def test_a_removed_manifest_is_found_where_no_checkpoint_is_left_to_resume_from(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "manifest.json").unlink()
    assert fault(run_dir).startswith(f"{run_dir / 'manifest.json'} is missing")


@pytest.mark.parametrize("name", ["model/extra.safetensors", f"{LAST}/extra"])
def test_an_added_file_is_found_and_named(run_dir: Path, name: str) -> None:
    (run_dir / name).write_bytes(b"more")
    assert fault(run_dir).startswith(f"{run_dir / name} was added: ")


def test_what_a_user_puts_beside_the_runs_own_files_is_no_damage(run_dir: Path) -> None:
    (run_dir / "notes.txt").write_text("mine")
    list(verify_run(run_dir, run_dir))


def test_a_flipped_bit_in_an_unfinished_runs_checkpoint_is_found(unfinished: Path) -> None:
    for name in CHECKPOINT:
        content = next(flipped((unfinished / name).read_bytes()))
        assert Path(name).name in while_damaged(unfinished / name, content, lambda: fault(unfinished))


def test_another_runs_checkpoint_is_found(unfinished: Path) -> None:
    config = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(config | {"seed": 43}))
    assert "is from a run with other config_sha256: " in fault(unfinished)


def test_another_value_in_a_checkpoints_record_is_found(run_dir: Path) -> None:
    path = run_dir / LAST / "checkpoint.json"
    content = json.loads(path.read_text())
    content["state"]["running_loss"] += 1
    path.write_text(json.dumps(content))
    assert "checkpoint.json is damaged (not its own SHA-256)" in fault(run_dir)


def test_every_damaged_file_is_named(run_dir: Path) -> None:
    (run_dir / "samples.txt").unlink()
    (run_dir / "loss.png").write_bytes(b"another")
    (run_dir / "model/extra").write_bytes(b"more")
    said = fault(run_dir)
    assert all(name in said for name in ("samples.txt", "loss.png", "model/extra"))
    assert "metrics.jsonl" not in said


# What stands in the place of a file


def pipe(path: Path) -> None:
    path.unlink()
    os.mkfifo(path)


def directory(path: Path) -> None:
    path.unlink()
    path.mkdir()
    (path / "inside").write_bytes(b"x")


def link_out(path: Path) -> None:
    """The very same bytes, outside of the run."""
    elsewhere = path.parents[2] / f"elsewhere-{path.name}"
    path.rename(elsewhere)
    path.symlink_to(elsewhere)


def dangling_link(path: Path) -> None:
    path.unlink()
    path.symlink_to("nowhere")


def swapped(path: Path) -> None:
    """With another of the run's files: each is whole, neither is itself."""
    other = path.with_name({"metrics.jsonl": "summary.json"}.get(path.name, "metrics.jsonl"))
    if path.parent.name == "model" or "step-" in path.parent.name:
        other = next(
            each for each in sorted(path.parent.iterdir()) if each not in (path, path.parent / "checkpoint.json")
        )
    content = path.read_bytes()
    path.write_bytes(other.read_bytes())
    other.write_bytes(content)


PLACED = [pipe, directory, link_out, dangling_link, swapped]


@pytest.mark.parametrize("put", PLACED)
def test_what_stands_in_the_place_of_a_file_is_found_and_named(
    once: Path, tmp_path: Path, put: Callable[[Path], None]
) -> None:
    records = [] if put is swapped else ["manifest.json", f"{LAST}/checkpoint.json"]
    for number, name in enumerate((*FILES, *CHECKPOINT, *records)):
        copy = Path(shutil.copytree(once, tmp_path / str(number) / "run"))
        put(copy / name)
        assert Path(name).name in fault(copy)


def test_a_checkpoint_or_a_model_that_lies_elsewhere_is_found_and_named(run_dir: Path) -> None:
    for name in (LAST, "model"):
        elsewhere = run_dir.parent / f"elsewhere-{Path(name).name}"
        (run_dir / name).rename(elsewhere)
        (run_dir / name).symlink_to(elsewhere)
        assert name in fault(run_dir)
        (run_dir / name).unlink()
        elsewhere.rename(run_dir / name)
    list(verify_run(run_dir, run_dir))


def test_a_row_that_was_added_to_the_log_is_found(run_dir: Path) -> None:
    row = b'{"step": 25, "loss": 1.0, "learning_rate": 0.0, "grad_norm": 1.0}\n'
    with (run_dir / "metrics.jsonl").open("ab") as log:
        log.write(row)
    assert f"{run_dir / 'metrics.jsonl'} has " in fault(run_dir)


def test_a_damaged_line_of_an_unfinished_runs_log_is_found(unfinished: Path) -> None:
    log = unfinished / "metrics.jsonl"
    log.write_bytes(log.read_bytes().replace(b'"step": 10', b'"step": 1', 1))
    assert f"{log}, line 2: damaged" in fault(unfinished)


# Nothing damaged is shown, resumed or used


def refused(*arguments: str | Path) -> str:
    """What the command says in refusing; it must be one line and status 2 or 3."""
    with pytest.raises(SystemExit) as end, contextlib.redirect_stderr(io.StringIO()) as said:
        main([str(argument) for argument in arguments])
    assert end.value.code in (2, 3), said.getvalue()
    assert len(said.getvalue().splitlines()) == 1
    return said.getvalue()


@pytest.mark.parametrize("put", [pipe, directory, dangling_link, swapped])
@pytest.mark.parametrize("name", ["config.json", "metrics.jsonl", "summary.json", "manifest.json"])
def test_no_command_shows_a_run_with_a_record_that_is_not_its_own(
    run_dir: Path, tmp_path: Path, name: str, put: Callable[[Path], None]
) -> None:
    """A record that lies elsewhere is left out here: it is read only where its bytes are the run's own."""
    put(run_dir / name)
    for command in (("compare", run_dir, "--out", tmp_path / "plot.png"), ("--resume", run_dir)):
        assert str(run_dir) in refused(*command)
    assert not (tmp_path / "plot.png").exists()


@pytest.mark.parametrize("put", PLACED)
@pytest.mark.parametrize("name", ["model/model.safetensors", "model/token_mapping.json"])
def test_no_model_with_a_file_that_is_not_its_own_is_used(
    run_dir: Path, name: str, put: Callable[[Path], None]
) -> None:
    put(run_dir / name)
    assert f"{run_dir / 'model'}/" in refused("generate", run_dir)


@pytest.mark.parametrize("put", PLACED)
@pytest.mark.parametrize("name", ["weights.safetensors", "checkpoint.json"])
def test_no_run_resumes_from_a_checkpoint_with_a_file_that_is_not_its_own(
    unfinished: Path, once: Path, name: str, put: Callable[[Path], None]
) -> None:
    before = (unfinished / "metrics.jsonl").read_bytes()
    put(unfinished / LAST / name)
    assert LAST in refused("--resume", unfinished, "-w", once.parent.parent)
    assert (unfinished / "metrics.jsonl").read_bytes() == before
