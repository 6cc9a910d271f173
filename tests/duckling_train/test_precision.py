"""The laws of the five precisions: what is held in which dtype, and how a weight comes back to bf16."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import strategies as st
from transformers import GPT2LMHeadModel, Trainer, TrainerCallback, TrainingArguments, set_seed

from duckling_train.config import PRECISIONS, TrainConfig
from duckling_train.model import build_model
from duckling_train.optimizers import MOMENTS, OwnAdamW, optimizer_class
from duckling_train.precision import RECIPES, uses_autocast

BF16, FP32 = torch.bfloat16, torch.float32
TINY = TrainConfig(n_layer=1, n_embd=16, n_head=2, n_positions=32, vocab_size=64, device="cpu")
HALVES = torch.arange(1 << 16, dtype=torch.int32)
UINT32 = st.integers(0, 2**32 - 1)
EXPECTED = {  # weights and gradients, moments, logits
    "bf16-mixed": (FP32, FP32, BF16),
    "fp32": (FP32, FP32, FP32),
    "bf16-pure": (BF16, BF16, BF16),
    "bf16-weights": (BF16, FP32, BF16),
    "bf16-stochastic": (BF16, FP32, BF16),
}


def tiny_model(precision: str) -> GPT2LMHeadModel:
    set_seed(TINY.seed)
    return build_model(dataclasses.replace(TINY, precision=precision))


class Watcher(TrainerCallback):
    """Collects the dtypes seen at every step of a training."""

    def __init__(self, model: GPT2LMHeadModel) -> None:
        self.weights: set[torch.dtype] = set()
        self.gradients: set[torch.dtype] = set()
        self.moments: set[torch.dtype] = set()
        self.logits: set[torch.dtype] = set()
        self.updates = 0
        model.lm_head.register_forward_hook(lambda _module, _inputs, output: self.logits.add(output.dtype))

    def on_pre_optimizer_step(self, args: Any, state: Any, control: Any, model: Any = None, **kwargs: Any) -> None:
        self.weights |= {parameter.dtype for parameter in model.parameters()}
        self.gradients |= {parameter.grad.dtype for parameter in model.parameters()}

    def on_optimizer_step(
        self, args: Any, state: Any, control: Any, model: Any = None, optimizer: Any = None, **kwargs: Any
    ) -> None:
        self.updates += 1
        self.weights |= {parameter.dtype for parameter in model.parameters()}
        for parameter in model.parameters():
            self.moments |= {optimizer.state[parameter][name].dtype for name in MOMENTS}


def train_tiny(precision: str, folder: Path, steps: int = 3) -> tuple[GPT2LMHeadModel, Watcher, Trainer]:
    """Train the tiny model by the Trainer, with what `precision.py` gives for it."""
    model = tiny_model(precision)
    watcher = Watcher(model)
    row = torch.arange(TINY.n_positions) % TINY.vocab_size
    chosen = optimizer_class(precision, TINY.seed)
    if chosen is not None:
        chosen[1].update(lr=1e-3, betas=TINY.betas, eps=1e-8)
    trainer = Trainer(
        model=model,
        args=TrainingArguments(
            output_dir=str(folder), max_steps=steps, per_device_train_batch_size=2, learning_rate=1e-3,
            weight_decay=TINY.weight_decay, bf16=uses_autocast(precision), use_cpu=True, report_to="none",
            save_strategy="no", disable_tqdm=True, logging_strategy="no",
        ),
        train_dataset=[{"input_ids": row.roll(shift), "labels": row.roll(shift)} for shift in range(8)],
        callbacks=[watcher],
        optimizer_cls_and_kwargs=chosen,
    )  # fmt: skip
    trainer.train()
    return model, watcher, trainer


def test_every_precision_has_a_recipe() -> None:
    assert tuple(RECIPES) == PRECISIONS == tuple(EXPECTED)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_training_holds_what_the_precision_says(precision: str, tmp_path: Path) -> None:
    model, watcher, trainer = train_tiny(precision, tmp_path)
    weights, moments, logits = EXPECTED[precision]
    assert watcher.updates == 3
    assert watcher.weights == watcher.gradients == {weights}
    assert watcher.moments == {moments}
    assert watcher.logits == {logits}
    fresh = tiny_model(precision)
    assert not torch.equal(model.transformer.wte.weight, fresh.transformer.wte.weight)
    optimizer = trainer.optimizer.optimizer  # beneath accelerate's wrapper
    state_keys = {key for state in optimizer.state.values() for key in state}
    assert state_keys == {"step", *MOMENTS}, "no master copy"
    assert isinstance(optimizer, torch.optim.AdamW)
    assert isinstance(optimizer, OwnAdamW) == (precision in ("bf16-weights", "bf16-stochastic"))


def test_the_two_roundings_train_differently(tmp_path: Path) -> None:
    nearest, stochastic = (train_tiny(name, tmp_path)[0] for name in ("bf16-weights", "bf16-stochastic"))
    assert not torch.equal(nearest.transformer.wte.weight, stochastic.transformer.wte.weight)


@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_model_is_the_same_draw_rounded_to_nearest_and_stays_tied(precision: str) -> None:
    model, drawn = tiny_model(precision), dict(tiny_model("fp32").named_parameters())
    assert model.lm_head.weight is model.transformer.wte.weight
    for name, parameter in model.named_parameters():
        assert torch.equal(parameter, drawn[name].to(EXPECTED[precision][0]))


def test_a_draw_in_bf16_would_be_another_one() -> None:
    """Guards the test above: rounding the float32 draw is a choice, not the only way."""
    set_seed(TINY.seed)
    ours = tiny_model("bf16-weights").transformer.wte.weight
    set_seed(TINY.seed)
    assert not torch.equal(ours, torch.empty_like(ours).normal_(std=0.02))


def moments_after_zero_gradient(precision: str, second: torch.Tensor) -> torch.Tensor:
    """The second moments after one step of the precision's own AdamW on a gradient of 0."""
    weight = torch.nn.Parameter(torch.zeros(second.shape, dtype=RECIPES[precision].weights))
    cls, keywords = optimizer_class(precision, 5) or (torch.optim.AdamW, {})
    optimizer = cls([weight], lr=1e-4, betas=(0.9, 0.999), **keywords)
    weight.grad = torch.zeros_like(weight)
    optimizer.step()
    optimizer.state[weight]["exp_avg_sq"].copy_(second)
    optimizer.step()
    return optimizer.state[weight]["exp_avg_sq"]


def test_the_second_moment_never_falls_in_bf16_and_decays_in_float32() -> None:
    """Every finite bf16 value that is not negative: the ratchet of bf16-pure, and none of it in the others."""
    every = torch.arange(0x7F80, dtype=torch.int32).to(torch.int16).view(BF16)
    assert torch.equal(moments_after_zero_gradient("bf16-pure", every), every)
    normal = every[every >= torch.finfo(BF16).smallest_normal].float()
    for precision in PRECISIONS:
        if precision != "bf16-pure":
            torch.testing.assert_close(
                moments_after_zero_gradient(precision, normal), 0.999 * normal, rtol=1e-6, atol=1e-40
            )


def test_a_small_update_is_lost_to_nearest_and_kept_on_average_by_stochastic_rounding() -> None:
    """Weights of 1 pushed down by 1e-4 a step, a fortieth of the way to their neighbour, for 100 steps."""
    ends = {}
    for precision in ("bf16-weights", "bf16-stochastic"):
        weight = torch.nn.Parameter(torch.full((10_000,), 1.0, dtype=BF16))
        cls, keywords = optimizer_class(precision, 5) or (torch.optim.AdamW, {})
        optimizer = cls([weight], lr=1e-4, weight_decay=0.0, **keywords)
        for _ in range(100):
            weight.grad = torch.ones_like(weight)
            optimizer.step()
        ends[precision] = weight.detach().double().numpy()
    assert (ends["bf16-weights"] == 1.0).all()
    stochastic = ends["bf16-stochastic"]
    assert abs(stochastic.mean() - 0.99) < 4 * stochastic.std() / 100
