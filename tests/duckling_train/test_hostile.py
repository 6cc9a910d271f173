"""Runs, checkpoints and datasets from anywhere are read or refused in one line; no pickle in them is opened."""

from __future__ import annotations

import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.strict_json import digest_json
from duckling_train.config import TrainConfig
from duckling_train.data import open_workspace
from duckling_train.runs.checkpoint import RECORD_DIGEST, Checkpoints
from duckling_train.runs.layout import write_manifest
from duckling_train.runs.open import model_directory
from duckling_train.runs.read import read_run
from duckling_train.settings import SETTINGS_LIMIT, make_config, read_settings

HOSTILE = [
    b'{"steps": 1e999}',
    b'{"steps": NaN}',
    b'{"steps": ' + b"9" * 10_000 + b"}",
    b'{"steps": 9223372036854775808}',
    b'{"steps": 1, "steps": 2}',
    b'{"steps": ' + b"[" * 100_000,
    b'\xef\xbb\xbf{"steps": 1}',
    b'{"steps": "\\ud800"}',
    b'{"device": "\xff"}',
    b'{"' + b"y" * 10_000 + b'": 1}',
    b'{"device": "' + b"y" * 10_000 + b'"}'.replace(b"}", b', "steps": true}'),
    b'{"betas": [0.9]}',
    b'{"n_inner": {"a": "' + b"y" * 10_000 + b'"}}',
]


def refused(call: Callable[..., object], *arguments: Any) -> str:
    with pytest.raises(InputError) as error:
        call(*arguments)
    line = str(error.value)
    assert "\n" not in line
    assert len(line) < 1000
    return line


@pytest.mark.parametrize("content", HOSTILE)
def test_hostile_settings_are_refused(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "config.json"
    path.write_bytes(content)
    assert str(path) in refused(read_settings, path)


def test_settings_of_a_gigabyte_or_in_a_pipe_are_refused_unread(tmp_path: Path) -> None:
    path = tmp_path / "config.json"
    with path.open("wb") as file:
        file.truncate(1 << 30)
    assert f"expected at most {SETTINGS_LIMIT:,}" in refused(lambda: make_config(file=path))
    path.unlink()
    os.mkfifo(path)
    assert "regular file" in refused(lambda: make_config(file=path))


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    """A finished run's records, without a model."""
    place = tmp_path / "run"
    place.mkdir()
    (place / "config.json").write_text(json.dumps({**TrainConfig().resolved(), "inputs": {}}))
    (place / "metrics.jsonl").write_text('{"step": 1, "loss": 9.0}\n{"step": 2, "loss": 8.5}\n')
    (place / "summary.json").write_text('{"parameters": 7}')
    write_manifest(place, {})
    return place


@pytest.mark.parametrize(
    ("name", "content"),
    [
        *(("config.json", content) for content in HOSTILE[:9]),
        ("config.json", b'{"inputs": []}'),
        ("config.json", b'{"engine": {"a": 1}}'),
        ("summary.json", b'{"parameters": "many"}'),
        ("summary.json", b'{"parameters": [1]}'),
        ("metrics.jsonl", b'{"step": 1, "loss": 1e999}\n'),
        ("metrics.jsonl", b'{"step": 1, "loss": NaN}\n'),
        ("metrics.jsonl", b'{"step": 1, "loss": 1, "loss": 2}\n'),
        ("metrics.jsonl", b'{"step": ' + b"1" * 5000 + b', "loss": 1}\n'),
        ("metrics.jsonl", b"[" * 100_000 + b"\n"),
        ("evaluation.jsonl", b'{"step": 1, "loss": "\xff"}\n'),
    ],
)
def test_hostile_records_of_a_run_are_refused(run_dir: Path, name: str, content: bytes) -> None:
    read_run(run_dir)
    (run_dir / name).write_bytes(content)
    write_manifest(run_dir, {})
    assert name in refused(read_run, run_dir)


class Bomb:
    """Makes a file where it is unpickled."""

    def __init__(self, place: Path) -> None:
        self.place = place

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.place,)


@pytest.mark.parametrize(
    "name",
    [
        "pytorch_model.bin",
        "model.pt",
        "modeling.py",
        "custom_generate",
        "adapter_config.json",
        "tokenizer.py",
        "x.json",
    ],
)
def test_a_model_directory_with_a_pickle_code_or_an_adapter_is_refused(run_dir: Path, name: str) -> None:
    model, sign = run_dir / "model", run_dir / "it ran"
    model.mkdir()
    assert model_directory(run_dir) == model
    (model / name).write_bytes(pickle.dumps(Bomb(sign)))
    assert "nothing that a run writes" in refused(model_directory, run_dir)
    assert not sign.exists()


def test_a_model_directory_that_links_elsewhere_is_refused(run_dir: Path) -> None:
    (run_dir / "model").mkdir()
    (run_dir / "elsewhere").write_bytes(b"w")
    (run_dir / "model" / "model.safetensors").symlink_to(run_dir / "elsewhere")
    assert "nothing that a run writes" in refused(model_directory, run_dir)


@pytest.mark.parametrize("sizes", [{"n_layer": 10**9}, {"n_embd": 10**6}, {"vocab_size": 10**12}, {"n_layer": "2"}])
def test_a_model_larger_than_its_weights_is_refused_before_it_is_built(run_dir: Path, sizes: dict[str, Any]) -> None:
    (run_dir / "model").mkdir()
    (run_dir / "model" / "model.safetensors").write_bytes(bytes(1 << 20))
    (run_dir / "model" / "config.json").write_text(json.dumps({"n_layer": 2, "n_embd": 128} | sizes))
    refused(model_directory, run_dir)


IDENTITY = Checkpoints(Path(), TrainConfig(), {}).identity
STATE = {"running_loss": 1.5, "last_logged": 10, "seconds": 2.0, "groups": [], "schedule": {}}


def put_checkpoint(run_dir: Path, **changes: Any) -> Path:
    """Write a checkpoint of step 10 whose record has `changes`."""
    place = run_dir / "checkpoints" / "step-00000010"
    place.mkdir(parents=True)
    files = {"weights.safetensors": b"w", "optimizer.safetensors": b"o", "trainer_state.json": b'{"global_step": 10}'}
    for name, content in files.items():
        (place / name).write_bytes(content)
    described = {name: described_as(content) for name, content in files.items()}
    record = {"format": 1, "step": 10, **IDENTITY, "files": described, "state": STATE}
    changes["files"] = described | changes.get("files", {})
    record |= changes
    (place / "checkpoint.json").write_text(json.dumps(record | {RECORD_DIGEST: digest_json(record)}))
    return place


def described_as(content: bytes) -> dict[str, Any]:
    return {"bytes": len(content), "sha256": hashlib.sha256(content).hexdigest()}


def newest(run_dir: Path) -> object:
    return Checkpoints(run_dir, TrainConfig(), {}).newest()


def test_a_whole_checkpoint_is_read(run_dir: Path) -> None:
    put_checkpoint(run_dir)
    assert newest(run_dir)


@pytest.mark.parametrize(
    "changes",
    [
        {"files": {"/etc/hostname": {}}},
        {"files": {"../../config.json": {}}},
        {"files": {"..": {}}},
        {"files": {"": {}}},
        {"files": {"a\0b": {}}},
        {"files": {"more": {"bytes": "1", "sha256": ""}}},
        {"state": None},
        {"state": []},
        {"inputs": {"dataset": "y" * 10_000}},
        {"config_sha256": [[]]},
    ],
)
def test_a_hostile_checkpoint_is_refused(run_dir: Path, changes: dict[str, Any]) -> None:
    put_checkpoint(run_dir, **changes)
    assert "step-00000010" in refused(newest, run_dir)


def test_a_log_that_the_checkpoint_does_not_list_or_that_links_elsewhere_is_refused(run_dir: Path) -> None:
    (run_dir / "secret").write_bytes(b"s")
    place = put_checkpoint(run_dir, files={"metrics.jsonl": described_as(b"s")})
    (place / "metrics.jsonl").symlink_to(run_dir / "secret")
    refused(newest, run_dir)
    shutil.rmtree(place)
    (put_checkpoint(run_dir) / "metrics.jsonl").write_bytes(b"s")
    assert "does not list it" in refused(newest, run_dir)


def test_nothing_in_a_dataset_is_run(tiny_workspace: Path, tmp_path: Path) -> None:
    sign = tmp_path / "it ran"
    workspace = Path(shutil.copytree(tiny_workspace, tmp_path / "w", ignore=shutil.ignore_patterns("gpt2")))
    rows = workspace / "tokenized_dataset"
    config = TrainConfig(n_positions=64, vocab_size=512)
    digest = open_workspace(workspace, config).payload_sha256
    (rows / "tokenized_dataset.py").write_text(f"import pathlib; pathlib.Path({str(sign)!r}).touch()")
    (rows / "dataset_info.json").write_text('{"features": {"input_ids": {"_type": "exec", "object": "1"}}}')
    (rows / "cache.pkl").write_bytes(pickle.dumps(Bomb(sign)))
    assert open_workspace(workspace, config).payload_sha256 == digest
    for shard in rows.glob("*.arrow"):
        shard.write_bytes(pickle.dumps(Bomb(sign)))
    assert "run duckling-data pack" in refused(open_workspace, workspace, config)
    assert not sign.exists()
