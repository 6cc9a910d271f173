"""`duckling-train verify` finds damage to any file of a run and names it; damaged data never trains silently."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.cli import main as duckling_data
from duckling_data.workspace.manifest import describe_output
from duckling_train.cli import main
from duckling_train.config import TrainConfig
from duckling_train.data import open_validation, open_workspace
from duckling_train.runs.verify import verify_run
from tests.duckling_train.conftest import TINY_SHAPE, duckling_train

STEPS = 25
LAST = f"checkpoints/step-{STEPS:08d}"
FILES = [
    "config.json", "metrics.jsonl", "summary.json", "loss.png", "samples.txt", "model/model.safetensors",
    "model/config.json", "model/generation_config.json", "model/token_mapping.json", "model/tokenizer_config.json",
]  # fmt: skip
CHECKPOINT = [f"{LAST}/{name}" for name in ("weights.safetensors", "optimizer.safetensors", "trainer_state.json")]
FLIPS = 10


@pytest.fixture(scope="module")
def once(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A finished run in a workspace of its own, with the checkpoints of steps 10, 20 and 25."""
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path_factory.mktemp("verified") / "w"))
    settings = ("--steps", str(STEPS), "--checkpoint-steps", "10", "--keep-checkpoints")
    ran = duckling_train(workspace / "runs/good", "-w", workspace, *TINY_SHAPE, *settings)
    assert ran.status == 0, ran.stderr
    return ran.run_dir


@pytest.fixture(autouse=True)
def threads() -> Iterator[None]:
    """`--resume` takes the run's own number of CPU threads; the tests after have theirs again."""
    before = torch.get_num_threads()
    yield
    torch.set_num_threads(before)


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


def flipped(content: bytes) -> Iterator[bytes]:
    """The content with one bit flipped, at FLIPS places."""
    draw = random.Random(0)
    for place in (0, len(content) - 1, *(draw.randrange(len(content)) for _ in range(FLIPS - 2))):
        bad = bytearray(content)
        bad[place] ^= 1 << draw.randrange(8)
        yield bytes(bad)


def test_a_good_run_passes_by_name_with_its_workspaces_data(once: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as end:
        main(["verify", "good", "-w", str(once.parent.parent)])
    said = capsys.readouterr()
    assert (end.value.code, said.err) == (0, "")
    lines = dict(line.split(maxsplit=1) for line in said.out.splitlines())
    assert lines["files"] == "ok: 10 files, none missing, none added"
    assert lines["checkpoints"] == "ok: 3 whole"
    assert lines["logs"] == "ok: 3 losses, all finite"  # of steps 1, 10, 20
    assert lines["model"].endswith("64 of 512 embedding rows are dead")
    assert lines["data"].startswith("ok: ")


def test_a_run_away_from_its_workspace_passes_and_says_that_the_data_is_not_at_hand(run_dir: Path) -> None:
    assert any(line.startswith("data         not at hand") for line in verify_run(run_dir, run_dir))


def test_an_unfinished_run_passes_and_is_told_from_a_finished_one(unfinished: Path) -> None:
    lines = list(verify_run(unfinished, unfinished))
    assert lines[-1] == f"unfinished   go on with duckling-train --resume {unfinished}"


@pytest.mark.parametrize("name", [*FILES, *CHECKPOINT])
def test_one_flipped_bit_anywhere_is_found_and_named(run_dir: Path, name: str) -> None:
    for content in flipped((run_dir / name).read_bytes()):
        assert while_damaged(run_dir / name, content, lambda: fault(run_dir)).startswith(
            f"{run_dir / name} has sha256 "
        )


def test_one_flipped_bit_in_the_manifest_is_found(run_dir: Path) -> None:
    """It says of a file what is not so; which of the two is damaged, nobody can tell."""
    for content in flipped((run_dir / "manifest.json").read_bytes()):
        assert str(run_dir) in while_damaged(run_dir / "manifest.json", content, lambda: fault(run_dir))


@pytest.mark.parametrize("name", [*FILES, *CHECKPOINT, "manifest.json", f"{LAST}/checkpoint.json"])
def test_a_truncated_tail_is_found_and_named(run_dir: Path, name: str) -> None:
    good = (run_dir / name).read_bytes()
    for keep in (0, len(good) // 2, len(good) - 2):
        assert name in while_damaged(run_dir / name, good[:keep], lambda: fault(run_dir))


@pytest.mark.parametrize("name", [*FILES, *CHECKPOINT, f"{LAST}/checkpoint.json"])
def test_a_removed_file_is_found_and_named(run_dir: Path, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    (run_dir / name).unlink()
    with pytest.raises(SystemExit) as end:
        main(["verify", str(run_dir)])
    assert end.value.code == 1
    assert name in capsys.readouterr().err


def test_a_removed_manifest_is_found_where_no_checkpoint_is_left_to_go_on_from(run_dir: Path) -> None:
    shutil.rmtree(run_dir / "checkpoints")
    (run_dir / "manifest.json").unlink()
    assert fault(run_dir).startswith(f"{run_dir / 'manifest.json'} is missing")


@pytest.mark.parametrize("name", ["model/extra.safetensors", f"{LAST}/extra"])
def test_an_added_file_is_found_and_named(run_dir: Path, name: str) -> None:
    (run_dir / name).write_bytes(b"more")
    assert fault(run_dir) == f"{run_dir / name} was added: the run did not write it"


def test_what_a_user_puts_beside_the_runs_own_files_is_no_damage(run_dir: Path) -> None:
    (run_dir / "notes.txt").write_text("mine")
    list(verify_run(run_dir, run_dir))


@pytest.mark.parametrize("name", CHECKPOINT)
def test_a_flipped_bit_in_an_unfinished_runs_checkpoint_is_found(unfinished: Path, name: str) -> None:
    for content in flipped((unfinished / name).read_bytes()):
        assert name in while_damaged(unfinished / name, content, lambda: fault(unfinished))


def test_another_runs_checkpoint_is_found(unfinished: Path) -> None:
    config = json.loads((unfinished / "config.json").read_text())
    (unfinished / "config.json").write_text(json.dumps(config | {"seed": 43}))
    assert "checkpoint.json has config_sha256 " in fault(unfinished)


@pytest.mark.parametrize("key", ["running_loss", "seconds", "last_logged"])
def test_another_value_in_a_checkpoints_record_is_found(run_dir: Path, key: str) -> None:
    path = run_dir / LAST / "checkpoint.json"
    content = json.loads(path.read_text())
    content["state"][key] += 1
    path.write_text(json.dumps(content))
    assert "checkpoint.json is damaged (not its own SHA-256)" in fault(run_dir)


def test_a_flipped_bit_in_a_checkpoints_record_is_found_and_named(run_dir: Path) -> None:
    path = run_dir / LAST / "checkpoint.json"
    for content in flipped(path.read_bytes().rstrip()):
        assert LAST in while_damaged(path, content, lambda: fault(run_dir))


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
@pytest.mark.parametrize("name", [*FILES, *CHECKPOINT])
def test_what_stands_in_the_place_of_a_file_is_found_and_named(
    run_dir: Path, name: str, put: Callable[[Path], None]
) -> None:
    put(run_dir / name)
    assert Path(name).name in fault(run_dir)


@pytest.mark.parametrize("put", [pipe, directory, link_out, dangling_link])
@pytest.mark.parametrize("name", ["manifest.json", f"{LAST}/checkpoint.json"])
def test_what_stands_in_the_place_of_a_record_is_found_and_named(
    run_dir: Path, name: str, put: Callable[[Path], None]
) -> None:
    put(run_dir / name)
    assert name.split("/")[-1] in fault(run_dir)


def test_a_checkpoint_or_a_model_that_lies_elsewhere_is_found_and_named(run_dir: Path) -> None:
    for name in (LAST, "model"):
        elsewhere = run_dir.parent / f"elsewhere-{Path(name).name}"
        (run_dir / name).rename(elsewhere)
        (run_dir / name).symlink_to(elsewhere)
        assert name in fault(run_dir)
        (run_dir / name).unlink()
        elsewhere.rename(run_dir / name)
    list(verify_run(run_dir, run_dir))


def test_a_row_that_was_added_to_the_log_is_found_whatever_the_manifest_says(run_dir: Path) -> None:
    row = b'{"step": 25, "loss": 1.0, "learning_rate": 0.0, "grad_norm": 1.0}\n'
    good = (run_dir / "metrics.jsonl").read_bytes()
    (run_dir / "metrics.jsonl").write_bytes(good + row)
    assert f"{run_dir / 'metrics.jsonl'} has bytes " in fault(run_dir)
    assert "line 4 was added" in forge(run_dir, "metrics.jsonl", good + row)


def test_a_run_of_a_billion_steps_is_checked_as_far_as_it_came(unfinished: Path) -> None:
    config = json.loads((unfinished / "config.json").read_text())
    shutil.rmtree(unfinished / "checkpoints")
    config |= {"steps": 10**9, "logging_steps": 1, "checkpoint_steps": 0}
    (unfinished / "config.json").write_text(json.dumps(config))
    assert "metrics.jsonl, line 2: step 10, expected 2" in fault(unfinished)


# Nothing damaged is shown, gone on with, or spoken through


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
@pytest.mark.parametrize("name", [name for name in FILES if name.startswith("model/")])
def test_no_model_with_a_file_that_is_not_its_own_speaks(run_dir: Path, name: str, put: Callable[[Path], None]) -> None:
    put(run_dir / name)
    assert f"{run_dir / 'model'}/" in refused("generate", run_dir)


@pytest.mark.parametrize("put", PLACED)
@pytest.mark.parametrize(
    "name", ["weights.safetensors", "optimizer.safetensors", "trainer_state.json", "checkpoint.json"]
)
def test_no_run_goes_on_from_a_checkpoint_with_a_file_that_is_not_its_own(
    unfinished: Path, once: Path, name: str, put: Callable[[Path], None]
) -> None:
    before = (unfinished / "metrics.jsonl").read_bytes()
    put(unfinished / LAST / name)
    assert LAST in refused("--resume", unfinished, "-w", once.parent.parent)
    assert (unfinished / "metrics.jsonl").read_bytes() == before


# What fits every digest and is wrong all the same


def forge(run_dir: Path, name: str, content: bytes) -> str:
    """What is found where a file holds something else and the manifest says that this is right."""
    (run_dir / name).write_bytes(content)
    manifest = json.loads((run_dir / "manifest.json").read_text())
    manifest["files"][name] = describe_output(run_dir / name)
    (run_dir / "manifest.json").write_text(json.dumps(manifest))
    return fault(run_dir)


def edited_line(run_dir: Path, number: int, **values: Any) -> bytes:
    lines = [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]
    lines[number] |= values
    return "".join(json.dumps(line) + "\n" for line in lines).encode()


@pytest.mark.parametrize(
    ("number", "values", "says"),
    [
        (1, {"step": 11}, "line 2: step 11, expected 10"),
        (1, {"loss": float("nan")}, "line 2: "),
        (2, {"learning_rate": float("inf")}, "line 3: "),
        (0, {"extra": 1}, "line 1: has step, loss, learning_rate, grad_norm, extra"),
        (0, {"step": "1"}, "line 1: damaged"),
    ],
)
def test_a_wrong_line_of_the_log_is_named(run_dir: Path, number: int, values: dict[str, Any], says: str) -> None:
    assert says in forge(run_dir, "metrics.jsonl", edited_line(run_dir, number, **values))


def test_a_number_beyond_all_floats_is_named(run_dir: Path) -> None:
    good = (run_dir / "metrics.jsonl").read_text()
    said = forge(run_dir, "metrics.jsonl", good.replace('"learning_rate": 0.0001', '"learning_rate": 1e999').encode())
    assert f"{run_dir / 'metrics.jsonl'}, line 1: " in said


def test_a_log_that_ends_early_is_named(run_dir: Path) -> None:
    lines = (run_dir / "metrics.jsonl").read_bytes().splitlines(keepends=True)
    assert "ends at line 2, expected one more at step 20" in forge(run_dir, "metrics.jsonl", b"".join(lines[:2]))


@pytest.mark.parametrize("name", ["steps", "first_loss", "last_loss", "last_logged_step", "parameters", "validation"])
def test_a_wrong_figure_of_the_summary_is_named(run_dir: Path, name: str) -> None:
    summary = json.loads((run_dir / "summary.json").read_text())
    said = forge(run_dir, "summary.json", json.dumps(summary | {name: 7}).encode())
    assert f"summary.json has {name} 7, expected " in said


WEIGHT = "transformer.wte.weight"


@pytest.mark.parametrize(
    ("edit", "says"),
    [
        (lambda weight: weight[:-1].clone(), "is torch.float32 [511, 16], expected torch.float32 [512, 16]"),
        (lambda weight: weight.to(torch.bfloat16), "is torch.bfloat16 [512, 16], expected torch.float32 [512, 16]"),
        (lambda weight: torch.where(weight == weight.max(), torch.nan, weight), "holds a number that is not finite"),
        (lambda _weight: None, "is missing"),
    ],
)
def test_a_model_of_another_shape_is_named(
    run_dir: Path, edit: Callable[[torch.Tensor], torch.Tensor | None], says: str
) -> None:
    tensors = safetensors.torch.load_file(run_dir / "model/model.safetensors")
    weight = edit(tensors.pop(WEIGHT))
    content = safetensors.torch.save(tensors if weight is None else tensors | {WEIGHT: weight}, {"format": "pt"})
    said = forge(run_dir, "model/model.safetensors", content)
    assert said.startswith(f"{run_dir / 'model/model.safetensors'}: {WEIGHT} ")
    assert says in said


# The data


def test_a_workspace_that_holds_other_data_is_named(run_dir: Path, once: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(once.parent.parent, tmp_path / "w", ignore=shutil.ignore_patterns("runs")))
    shard = next((workspace / "tokenized_dataset").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    assert f"{workspace} has dataset " in fault(run_dir, workspace)


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A workspace that duckling-data made, with its manifest."""
    workspace = tmp_path_factory.mktemp("packed") / "w"
    sizes = ("--sample", "all", "--live", "448", "--dead", "64", "--ctx", "64")
    with pytest.raises(SystemExit) as end:
        duckling_data(["pack", "-q", "-w", str(workspace), "--source", "demo:300", *sizes])
    assert end.value.code == 0
    return workspace


SHAPE = TrainConfig(n_positions=64, vocab_size=512, n_embd=16)


@pytest.mark.parametrize(
    "name",
    [
        "token_mapping.json",
        "manifest.json",
        *(
            f"{folder}/{name}"
            for folder in ("tokenized_dataset", "tokenized_validation")
            for name in ("data-00000-of-00001.arrow", "dataset_info.json", "state.json")
        ),
    ],
)
def test_damaged_data_is_refused_or_gives_the_very_same_tokens(packed: Path, name: str) -> None:
    """A bit may fall where it says nothing about a token (a name, padding); no other token is ever trained on."""

    def opened() -> tuple[object, str]:
        data = open_workspace(packed, SHAPE)
        validation = open_validation(packed, SHAPE, data.mapping)
        return data.record(), validation.payload_digest() if validation is not None else ""

    right = opened()
    path = packed / name
    good = path.read_bytes()
    for content in (*flipped(good), good[:-1], good[: len(good) // 2], b""):
        path.write_bytes(content)
        try:
            assert opened() == right
        except InputError:
            pass  # refused
        finally:
            path.write_bytes(good)
