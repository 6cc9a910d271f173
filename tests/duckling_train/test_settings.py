"""Flags go before the file, the file before the preset; what is not a setting is refused by name."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_train.config import TrainConfig, word
from duckling_train.settings import FIELDS, PRESETS, make_config, read_settings


def written(path: Path, content: Any) -> Path:
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return path


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("duckling-ii", 1_510_912), ("duckling-ii-4l", 1_907_456), ("duckling-ii-8l", 2_700_544)],
)
def test_presets_are_the_originals_models(preset: str, parameters: int) -> None:
    assert make_config(preset=preset).parameters == parameters
    assert preset in PRESETS


def test_the_default_preset_is_the_default_config() -> None:
    assert make_config() == TrainConfig()


def test_flags_go_before_the_file_and_the_file_before_the_preset(tmp_path: Path) -> None:
    file = written(tmp_path / "c.json", {"n_layer": 3, "steps": 7})
    config = make_config({"steps": 9}, preset="duckling-ii-8l", file=file)
    assert (config.n_layer, config.steps, config.batch_size) == (3, 9, 2)


def test_a_runs_own_config_gives_the_same_run_again(tmp_path: Path) -> None:
    config = TrainConfig(steps=5, betas=(0.8, 0.95), data_seed=3, tied=False, eval_rows=None, threads=1)
    file = written(tmp_path / "config.json", {**config.resolved(), "inputs": {"dataset": {}}})
    assert make_config(file=file) == config


def test_a_file_may_name_every_setting_as_the_flag_does(tmp_path: Path) -> None:
    config = TrainConfig(
        n_layer=4, n_embd=32, n_head=4, n_positions=64, max_grad_norm=0.5, batch_size=3, vocab_size=256, tied=False,
        init_std=0.1, adam_epsilon=1e-6,
    )  # fmt: skip
    content = {word(name): value for name, value in config.resolved().items() if name in FIELDS}
    assert {"layers", "ctx", "clip", "batch-size", "adam-epsilon"} <= set(content)
    assert make_config(file=written(tmp_path / "c.json", content)) == config
    del content["tied"]
    assert make_config(file=written(tmp_path / "c.json", content | {"untied": True})) == config


def test_the_workspaces_sizes_come_last(tmp_path: Path) -> None:
    sizes = {"n_positions": 64, "vocab_size": 512}
    file = written(tmp_path / "c.json", {"ctx": 128})
    config = make_config({"vocab_size": 1024}, file=file, sizes=sizes)
    assert (config.n_positions, config.vocab_size) == (128, 1024)
    assert make_config(sizes=sizes) == TrainConfig(n_positions=64, vocab_size=512)


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ({"stepz": 5}, "stepz"),
        ({"steps": "5"}, "steps"),
        ({"steps": 5.5}, "steps"),
        ({"steps": True}, "steps"),
        ({"tied": 1}, "tied"),
        ({"steps": None}, "steps"),
        ({"betas": [0.9]}, "betas"),
        ({"betas": "0.9 0.99"}, "betas"),
        ({"optimizer": "lion"}, "optimizer"),
        ({"layers": 2, "n_layer": 2}, "both layers and n_layer"),
        ({"layers": "2"}, "n_layer is '2'"),
        ({"untied": True, "tied": True}, "untied"),
        ({"n_inner": 7}, "n_inner"),
        ({"steps": -1}, "steps is -1"),
        ([1, 2], "list"),
        ("{", "not JSON"),
        ("[" * 100_000, "not JSON"),
    ],
)
def test_a_file_that_is_no_config_is_refused_by_name(tmp_path: Path, content: Any, named: str) -> None:
    with pytest.raises(InputError, match=named) as caught:
        make_config(file=written(tmp_path / "c.json", content))
    assert "\n" not in str(caught.value)


def test_a_missing_file_and_an_unknown_preset_are_refused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"none\.json"):
        read_settings(tmp_path / "none.json")
    with pytest.raises(InputError, match="duckling-ii-4l"):
        make_config(preset="duckling-iii")
