"""Settings: Duckling II's by default, named readably, refused when out of range."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_data.base.strict_json import digest_json
from duckling_train.cli import cli, main
from duckling_train.config import ADDED, LIMITS, WITHOUT_A_FLAG, TrainConfig, named, naming_flags
from duckling_train.model import build_model, model_config, resolve_device
from duckling_train.processes import is_main_process, process_count


def test_default_name_is_steps_and_seed_and_what_differs() -> None:
    assert TrainConfig().run_name() == "steps-10000-seed-42"
    assert TrainConfig(steps=200, device="cpu").run_name() == "steps-200-seed-42"
    changed = TrainConfig(steps=5, seed=7, batch_size=16, learning_rate=3e-4, logging_steps=1)
    assert changed.run_name() == "steps-5-seed-7-batch-size-16-learning-rate-0.0003-logging-steps-1"


@pytest.mark.parametrize(
    "bad",
    [{"steps": 0}, {"batch_size": 0}, {"logging_steps": 0}, {"learning_rate": 0.0}, {"learning_rate": float("inf")},
     {"seed": -1}, {"seed": 2**32}, {"device": "gpu"}, {"adam_epsilon": -1e-8}, {"adam_epsilon": float("nan")},
     {"dropout": 1.0}, {"dropout": -0.1}, {"init_std": 0.0}, {"activation": "swish"}, {"optimizer": "lion"}],
)  # fmt: skip
def test_values_out_of_range_are_refused(bad: dict[str, Any]) -> None:
    (name,) = bad
    with pytest.raises(InputError, match=f"^{name} is "):
        TrainConfig(**bad)
    with pytest.raises(InputError, match="^--" + name.replace("_", "-")), naming_flags():
        TrainConfig(**bad)


def test_every_setting_is_documented_and_resolved() -> None:
    config = TrainConfig(steps=3)
    resolved = config.resolved()
    for field in dataclasses.fields(config):
        if field.name in ADDED:
            assert field.name not in resolved
            continue
        assert resolved[field.name] == json.loads(json.dumps(getattr(config, field.name)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        config.steps = 4  # type: ignore[misc]


def test_every_setting_but_the_number_of_processes_is_a_flag() -> None:
    flags = {parameter.name for parameter in cli.params}
    assert {field.name for field in dataclasses.fields(TrainConfig)} - flags == set(WITHOUT_A_FLAG)
    with naming_flags():
        assert [named(name) for name in (*WITHOUT_A_FLAG, "n_positions")] == ["arithmetic", "processes", "--ctx"]


EARLIER = {
    "23f40c1af1fcfae8b96247e31cb9d878de90dee4dd0b5078b7381b44feedd80f": {},
    "33626fc39e2dd1b499b66d69a26690653c8ec08f6b4cfcb85e54dfcd66769f45": {
        "n_layer": 4, "betas": (0.8, 0.9), "tied": False,
    },
}  # fmt: skip
"""The SHA-256 of the settings of `config.json`, as version 0.1.0 with `engine` wrote it, and what was set."""


def test_a_config_has_the_bytes_that_it_had_before_there_were_more_settings() -> None:
    """Checkpoints name their run by this digest: those of earlier versions are resumed."""
    for digest, given in EARLIER.items():
        assert digest_json(TrainConfig(engine="reference", **given).resolved()) == digest
    assert TrainConfig(init_std=0.1).resolved()["init_std"] == 0.1


def test_what_sgd_has_not_is_refused_with_it() -> None:
    TrainConfig(optimizer="sgd", weight_decay=0.1)
    for name, value in {"betas": (0.8, 0.9), "adam_epsilon": 1e-6}.items():
        with pytest.raises(
            InputError, match=f"^{name} is .*; it must be left out with optimizer='sgd', which has none"
        ):
            TrainConfig(**{"optimizer": "sgd", name: value})


def test_the_model_has_the_settings_dropout_activation_and_spread() -> None:
    model = build_model(TrainConfig(dropout=0.25, activation="relu", init_std=0.5))
    assert {layer.p for layer in model.modules() if isinstance(layer, torch.nn.Dropout)} == {0.25}
    assert isinstance(model.transformer.h[0].mlp.act, torch.nn.ReLU)
    assert model.transformer.wte.weight.std().item() == pytest.approx(0.5, rel=0.01)


def test_model_config_is_the_seeds_but_for_the_special_tokens() -> None:
    from transformers import GPT2Config

    seed = GPT2Config(
        vocab_size=8192, n_embd=128, n_head=2, n_layer=2, n_positions=512, n_inner=512, activation_function="gelu",
        resid_pdrop=0.0, embd_pdrop=0.0, attn_pdrop=0.0, layer_norm_epsilon=1e-5, initializer_range=0.02,
        use_cache=False,
    ).to_dict()  # fmt: skip
    ours = model_config(TrainConfig()).to_dict()
    assert {name for name in seed if seed[name] != ours[name]} == {"bos_token_id", "eos_token_id"}
    assert ours["bos_token_id"] is ours["eos_token_id"] is None


def test_auto_takes_a_device_that_is_there_and_an_absent_one_is_refused() -> None:
    import torch

    assert resolve_device("cpu") == "cpu"
    assert resolve_device(resolve_device("auto")) == resolve_device("auto")
    present = {"cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    for device in [name for name, here in present.items() if not here]:
        with pytest.raises(InputError, match=f"device is {device}"):
            resolve_device(device)


@pytest.mark.parametrize("text", ["two", "", "0", "-1"])
def test_a_world_size_that_is_no_number_is_refused(monkeypatch: pytest.MonkeyPatch, text: str) -> None:
    monkeypatch.setenv("WORLD_SIZE", text)
    with pytest.raises(InputError, match="WORLD_SIZE"):
        process_count()
    assert is_main_process(), "one process says so"


def test_evaluating_never_every_few_steps_is_refused() -> None:
    with pytest.raises(InputError, match="eval_steps is 2 and eval_rows 0"):
        TrainConfig(eval_steps=2, eval_rows=0)


@pytest.mark.parametrize("sizes", [{}, {"n_layer": 8, "tied": False}, {"n_embd": 16, "n_positions": 64}, {"n_head": 4}])
def test_parameters_by_the_sizes_are_the_models(sizes: dict[str, Any]) -> None:
    config = TrainConfig(**sizes)
    assert config.parameters == build_model(config).num_parameters()


@pytest.mark.parametrize("name", LIMITS)
def test_a_number_beyond_its_limit_is_refused_at_once(name: str) -> None:
    for value in (LIMITS[name] + 1, 10**12, 2**63 - 1):
        with pytest.raises(InputError, match=rf"^{name} is {value}; it must be at most {LIMITS[name]:,}"):
            TrainConfig(**{name: value})


@pytest.mark.parametrize(
    ("field", "one", "other"),
    [
        ("data_seed", 1234567, 1234568),
        ("learning_rate", 0.00012345678, 0.00012345679),
        ("betas", (0.9, 0.9999999), (0.9, 0.99999999)),
        ("batch_size", 12345, 12346),
    ],
)
def test_two_settings_have_two_names(field: str, one: Any, other: Any) -> None:
    assert len({TrainConfig(**{field: value}).run_name() for value in (one, other)}) == 2


def test_a_model_of_too_many_parameters_is_refused_at_once() -> None:
    TrainConfig(n_layer=1024, n_embd=896)
    for sizes in ({"n_layer": 1024, "n_embd": 1024}, {"n_embd": 2**16}, {"n_embd": 2**16, "n_layer": 1}):
        with pytest.raises(InputError, match=r"make [0-9,]+ parameters; at most 10,000,000,000 are taken$"):
            TrainConfig(**sizes)


@pytest.mark.parametrize("sizes", [{"n_layer": 10**9}, {"n_layer": 1024, "n_embd": 8192}, {"batch_size": 10**12}])
@pytest.mark.parametrize("command", [["--dry-run"], [], ["sweep", "--dry-run"]])
def test_a_hostile_config_is_one_line_on_every_road(
    tmp_path: Path, sizes: dict[str, int], command: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "config.json"
    file.write_text(json.dumps(sizes))
    with pytest.raises(SystemExit) as end:
        main([*command, "--config", str(file), "-w", str(tmp_path)])
    assert end.value.code == 2
    assert "at most" in capsys.readouterr().err
