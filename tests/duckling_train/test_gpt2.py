"""The model in plain torch is transformers' GPT2LMHeadModel: its weights, its logits, its continuations, to the bit."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from transformers import set_seed

from duckling_train.config import CHOICES, PRECISIONS, TrainConfig
from duckling_train.gpt2 import Gpt2, as_plain, save_pretrained
from duckling_train.model import build_model, story_mask
from duckling_train.runs.generate import Sampling, continued

SIZES: dict[str, Any] = {"vocab_size": 512, "n_positions": 64, "n_embd": 32, "device": "cpu"}
VARIANTS: list[dict[str, Any]] = [
    {"n_embd": 128, "vocab_size": 8192},
    {"tied": False, "n_layer": 3, "n_head": 4},
    {"init_std": 0.3},
    {"dropout": 0.1},
    *({"precision": precision} for precision in PRECISIONS),
    *({"activation": activation} for activation in CHOICES["activation"]),
]


def both(settings: dict[str, Any]) -> tuple[TrainConfig, Gpt2, Any]:
    config = TrainConfig(**{**SIZES, **settings})
    set_seed(7)
    theirs = build_model(config)
    torch.manual_seed(7)
    return config, Gpt2(config), theirs


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_weights_and_logits_are_those_of_transformers(settings: dict[str, Any]) -> None:
    config, ours, theirs = both(settings)
    named = dict(theirs.named_parameters())
    assert [name for name, _ in ours.named_parameters()] == list(named)
    for name, parameter in ours.named_parameters():
        assert parameter.dtype == named[name].dtype
        assert torch.equal(parameter, named[name]), name
    ids = torch.randint(0, 512, (2, 64), generator=torch.Generator().manual_seed(1))
    with torch.autocast("cpu", torch.bfloat16, enabled=config.precision == "bf16-mixed"):
        torch.manual_seed(2)
        expected = theirs(ids).logits
        torch.manual_seed(2)
        found = ours(ids).logits
    assert torch.equal(found, expected)


def test_stories_are_masked_as_in_transformers() -> None:
    _, ours, theirs = both({})
    positions = torch.arange(64).repeat(2, 1) % 20
    mask, ids = story_mask(positions.numpy()), torch.randint(0, 512, (2, 64))
    assert torch.equal(ours(ids, attention_mask=mask).logits, theirs(ids, attention_mask=mask).logits)


@pytest.mark.parametrize("settings", [*VARIANTS, {"init_std": 0.5}], ids=str)
@pytest.mark.parametrize("end", [None, 5])
def test_it_is_saved_as_transformers_saves_it(settings: dict[str, Any], end: int | None, tmp_path: Path) -> None:
    _, ours, theirs = both(settings)
    for kept in (theirs.config, theirs.generation_config):
        kept.use_cache, kept.eos_token_id, kept.pad_token_id = True, end, 511
    ours.end, ours.padding = end, 511
    for name, save in (("ours", lambda folder: save_pretrained(ours, folder)), ("theirs", theirs.save_pretrained)):
        (tmp_path / name).mkdir()
        save(tmp_path / name)
    files = sorted(path.name for path in (tmp_path / "theirs").iterdir())
    assert files == ["config.json", "generation_config.json", "model.safetensors"]
    assert sorted(path.name for path in (tmp_path / "ours").iterdir()) == files
    for name in files:
        assert (tmp_path / "ours" / name).read_bytes() == (tmp_path / "theirs" / name).read_bytes(), name


def test_as_plain_shares_the_weights() -> None:
    _, ours, theirs = both({"tied": False})
    for name, parameter in as_plain(theirs).named_parameters():
        assert parameter.data_ptr() == theirs.get_parameter(name).data_ptr()
    assert as_plain(ours) is ours


@pytest.mark.parametrize(
    "drawn",
    [{"greedy": True}, {"seed": 1}, {"seed": 2, "temperature": 0.7}, {"seed": 3, "top_k": 5, "temperature": 3.0},
     {"seed": 4, "top_k": 9999}],
    ids=str,
)  # fmt: skip
@pytest.mark.parametrize("precision", ["fp32", "bf16-weights"])
def test_a_continuation_is_that_of_transformers_generate(drawn: dict[str, Any], precision: str) -> None:
    _, ours, theirs = both({"precision": precision, "init_std": 0.3})
    ids = torch.tensor([[5, 9, 2, 77]])
    settings: dict[str, Any] = {"temperature": 1.0, "top_k": 0, **drawn}
    seed, greedy = settings.pop("seed", 0), settings.pop("greedy", False)
    torch.manual_seed(seed)
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    chosen = {"do_sample": False} if greedy else {"do_sample": True, **settings}
    expected = theirs.eval().generate(
        ids, attention_mask=torch.ones_like(ids), max_new_tokens=30, pad_token_id=0, use_cache=True, **chosen
    )
    torch.set_num_threads(threads)
    assert continued(ours, ids[0].tolist(), Sampling(tokens=30, **drawn)) == expected[0].tolist()
    ours.end = int(expected[0, 9])
    stopped = continued(ours, ids[0].tolist(), Sampling(tokens=30, **drawn))
    assert stopped == expected[0, : expected[0].tolist().index(ours.end, 4) + 1].tolist()
