"""Damaged rows or a damaged mapping never train silently."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.cli import main as duckling_data
from duckling_train.config import TrainConfig
from duckling_train.data import open_validation, open_workspace
from duckling_train.runs.verify import verify_run
from tests.support.damage import flipped
from tests.support.train import TINY_SHAPE, duckling_train


def test_a_workspace_that_holds_other_data_is_named(tiny_workspace: Path, tmp_path: Path) -> None:
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "w"))
    ran = duckling_train(tmp_path / "run", "-w", workspace, *TINY_SHAPE, "--steps", "2")
    assert ran.status == 0, ran.stderr
    shard = next((workspace / "tokenized_dataset").glob("*.arrow"))
    content = bytearray(shard.read_bytes())
    content[len(content) // 2] ^= 1
    shard.write_bytes(content)
    with pytest.raises(CheckFailed, match=f"{workspace} has dataset "):
        list(verify_run(ran.run_dir, workspace))


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
        return data.record(), validation.rows.payload_sha256() if validation is not None else ""

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


def test_validation_rows_that_the_manifest_lists_and_are_gone_are_named_and_refused(
    packed: Path, tmp_path: Path
) -> None:
    workspace = Path(shutil.copytree(packed, tmp_path / "w"))
    shutil.rmtree(workspace / "tokenized_validation")
    mapping = open_workspace(workspace, SHAPE).mapping
    for config in (SHAPE, replace(SHAPE, eval_steps=2)):
        with pytest.raises(InputError, match=r"tokenized_validation is missing, though manifest\.json lists it: run"):
            open_validation(workspace, config, mapping)
    assert open_validation(workspace, replace(SHAPE, eval_rows=0), mapping) is None
    (workspace / "manifest.json").unlink()  # two files alone: nothing says that there are others
    assert open_validation(workspace, SHAPE, mapping) is None
    with pytest.raises(InputError, match="for eval_steps=2: the workspace has no rows to evaluate on"):
        open_validation(workspace, replace(SHAPE, eval_steps=2), mapping)
