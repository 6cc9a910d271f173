"""The fast engine trains as the reference engine does: losses, weights, gradients; alone and many at once."""

from __future__ import annotations

import copy
import dataclasses
import functools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_data.rows.read import Column, Rows
from duckling_train.config import CHOICES, PRECISIONS, TrainConfig
from duckling_train.data import PackedRows
from duckling_train.engines import choose_engine, load_engine
from duckling_train.engines.base import Hook, Job, LogLine, StepView
from duckling_train.engines.fast import proof
from duckling_train.engines.fast.arithmetic import ARITHMETICS, EMULATED, FLOAT32, NATIVE
from duckling_train.engines.fast.compiled import usable
from duckling_train.engines.fast.order import Batches, learning_rate
from duckling_train.engines.fast.parameters import Parameters
from duckling_train.engines.fast.step import Step
from duckling_train.gpt2 import Gpt2
from duckling_train.runs.hooks import evaluate
from duckling_train.runs.train import train

CONTEXT, VOCABULARY, LIVE = 32, 256, 192
SMALL = TrainConfig(
    steps=60, batch_size=3, n_positions=CONTEXT, n_embd=16, vocab_size=VOCABULARY, precision="fp32",
    learning_rate=3e-4, logging_steps=7, device="cpu", threads=1, max_grad_norm=0.5,
)  # fmt: skip


def rows_of(count: int = 40, *, positions: bool = False, context: int = CONTEXT, live: int = LIVE) -> PackedRows:
    """Rows in which a token often follows from the one before it, so that there is something to learn."""
    tokens = np.cumsum(np.random.default_rng(3).integers(0, 7, (count, context)), axis=1) % live
    index = (np.arange(count * context).reshape(count, context) % 11).astype(np.uint32)
    return PackedRows(Rows([tokens.astype(np.uint16)], Column([index])), positions=positions)


class Kept(Hook):
    """Keeps the losses, the logs, and W after each step."""

    def __init__(self) -> None:
        self.losses: list[float] = []
        self.lines: list[LogLine] = []
        self.matrices: list[torch.Tensor] = []

    def log(self, line: LogLine) -> None:
        self.lines.append(line)

    def step(self, view: StepView) -> None:
        assert view.loss is not None
        self.losses.append(view.loss)
        self.matrices.append(view.W.clone())


def trained(
    engine: str, configs: Sequence[TrainConfig], rows: PackedRows, threads: int = 1
) -> list[tuple[Kept, dict[str, torch.Tensor]]]:
    """Train a model of each config, together. Returns what each hook kept and the final weights."""
    torch.set_num_threads(threads)
    made = load_engine(engine)
    configs = [made.checked(dataclasses.replace(config, engine=engine)) for config in configs]
    jobs = [Job(config, made.build(config), rows, Path("unused")) for config in configs]
    hooks = [Kept() for _ in jobs]
    assert made.fit(jobs, [[hook] for hook in hooks]) == [None] * len(jobs)
    weights = [{name: tensor.detach().clone() for name, tensor in job.model.named_parameters()} for job in jobs]
    return list(zip(hooks, weights, strict=True))


def assert_alike(ours: Any, theirs: Any, *, loss: float, weight: float) -> None:
    """Losses within `loss`, relative, weights within `weight`, absolute.

    But for the keys' biases: attention does not depend on them, and AdamW makes steps of their gradients' rounding.
    """
    np.testing.assert_allclose(ours[0].losses, theirs[0].losses, rtol=loss)
    for name, tensor in theirs[1].items():
        if not name.endswith("c_attn.bias"):
            difference = (ours[1][name] - tensor).abs().max()
            assert difference <= weight, f"{name}: {difference:.1e}"


VARIANTS: list[dict[str, Any]] = [
    {}, {"tied": False}, {"n_layer": 3, "n_head": 4}, {"schedule": "constant", "warmup_steps": 5},
    {"schedule": "cosine", "warmup_steps": 9}, {"schedule": "linear", "warmup_steps": 9}, {"max_grad_norm": 0.0},
    {"optimizer": "sgd", "learning_rate": 0.1}, {"optimizer": "coupled-adam"}, {"data_seed": 9}, {"weight_decay": 0.0},
    {"betas": (0.8, 0.95), "adam_epsilon": 1e-6}, {"init_std": 0.1}, {"mask_across_stories": True},
    {"n_positions": 30, "batch_size": 1},
    *({"activation": name} for name in CHOICES["activation"] if name != "gelu"),
]  # fmt: skip


@pytest.mark.parametrize("settings", VARIANTS, ids=str)
def test_in_float32_it_is_the_reference(settings: dict[str, Any]) -> None:
    """Over more than four epochs of 40 rows by 3: short last batches and new orders among them."""
    config = dataclasses.replace(SMALL, **settings)
    rows = rows_of(context=config.n_positions, positions=config.mask_across_stories)
    (ours,), (theirs,) = trained("fast", [config], rows), trained("reference", [config], rows)
    assert_alike(ours, theirs, loss=1e-5, weight=1e-5)
    for found, expected in zip(ours[0].lines, theirs[0].lines, strict=True):
        assert (found.step, found.learning_rate) == (expected.step, expected.learning_rate)
        assert found.loss == pytest.approx(expected.loss, rel=1e-5)
        assert found.grad_norm == pytest.approx(expected.grad_norm, rel=1e-4)


@pytest.mark.parametrize("precision", [name for name in PRECISIONS if name != "fp32"])
@pytest.mark.parametrize("arithmetic", [NATIVE, EMULATED])
@pytest.mark.parametrize("compiled", [False, True])
def test_in_bf16_it_is_close_to_the_reference(precision: str, arithmetic: str, *, compiled: bool) -> None:
    """The rounding of weights is the same, its random numbers too: a run would drift apart at once otherwise."""
    if compiled and not usable(arithmetic):
        pytest.skip("no compiler, or no bf16 by it")
    config = dataclasses.replace(
        SMALL, precision=precision, arithmetic=arithmetic, batch_size=2, compile="yes" if compiled else "no"
    )
    (ours,) = trained("fast", [config], rows_of())
    (theirs,) = trained("reference", [dataclasses.replace(config, arithmetic="auto", compile="auto")], rows_of())
    np.testing.assert_allclose(ours[0].losses, theirs[0].losses, rtol=3e-3)
    exact = theirs[1]["transformer.wte.weight"].float()
    moved = (exact - theirs[0].matrices[0].float()).norm()
    assert (ours[1]["transformer.wte.weight"].float() - exact).norm() <= 0.1 * moved


def test_at_the_default_size_it_is_the_reference() -> None:
    config = TrainConfig(steps=8, precision="fp32", device="cpu", logging_steps=1)
    rows = rows_of(context=512, live=6144)
    (ours,), (theirs,) = trained("fast", [config], rows), trained("reference", [config], rows)
    assert_alike(ours, theirs, loss=1e-6, weight=1e-5)


def test_the_first_gradients_are_those_of_float64() -> None:
    config = dataclasses.replace(SMALL, n_positions=128, n_embd=64, vocab_size=1024, arithmetic=FLOAT32)
    torch.manual_seed(5)
    model = Gpt2(config)
    torch.manual_seed(5)
    exact = Gpt2(config).double()
    ids = torch.randint(0, 700, (2, 128))
    logits = exact(ids).logits[:, :-1].flatten(0, 1)
    loss = torch.nn.functional.cross_entropy(logits, ids[:, 1:].flatten(), reduction="sum") / ids.numel()
    loss.backward()
    loss = loss.detach()
    parameters = Parameters([model], torch.device("cpu"))
    found = Step(parameters, config, ARITHMETICS[FLOAT32]).gradients(ids[None])
    assert float(found[0]) == pytest.approx(float(loss), rel=1e-6)
    gradients = parameters.of(parameters.gradients, 0)
    for name, parameter in exact.named_parameters():
        assert parameter.grad is not None
        assert float((gradients[name] - parameter.grad).norm() / parameter.grad.norm()) < 1e-6, name


@pytest.mark.parametrize("precision", PRECISIONS)
def test_many_at_once_are_each_alone(precision: str) -> None:
    """In what may differ: seed, order, learning rate, decay, clipping, betas and epsilon."""
    config = dataclasses.replace(SMALL, precision=precision, steps=100 if precision == "fp32" else 25)
    changes: list[dict[str, Any]] = [
        {}, {"seed": 1}, {"data_seed": 8}, {"learning_rate": 1e-4}, {"weight_decay": 0.3}, {"max_grad_norm": 0.0},
        {"betas": (0.5, 0.9)}, {"adam_epsilon": 1e-4},
    ]  # fmt: skip
    configs = [dataclasses.replace(config, **change) for change in changes]
    together = trained("fast", configs, rows_of(), threads=2)  # in two parts
    assert precision == "bf16-pure" or len({tuple(kept.losses) for kept, _ in together}) == len(configs)
    for each, alone in zip(together, configs, strict=True):
        (single,) = trained("fast", [alone], rows_of())
        if precision == "fp32":
            assert_alike(each, single, loss=1e-5, weight=1e-5)
        else:
            np.testing.assert_allclose(each[0].losses, single[0].losses, rtol=3e-3)


def test_jobs_of_two_shapes_train_in_one_fit() -> None:
    configs = [SMALL, dataclasses.replace(SMALL, n_layer=1), dataclasses.replace(SMALL, seed=1)]
    for each, alone in zip(trained("fast", configs, rows_of()), configs, strict=True):
        assert_alike(each, trained("fast", [alone], rows_of())[0], loss=1e-5, weight=1e-5)


def test_one_that_diverges_ends_alone() -> None:
    configs = [
        dataclasses.replace(SMALL, learning_rate=rate, optimizer="sgd", max_grad_norm=0.0) for rate in (0.1, 1e30, 0.2)
    ]
    engine = load_engine("fast")
    configs = [engine.checked(dataclasses.replace(config, engine="fast")) for config in configs]
    jobs = [Job(config, engine.build(config), rows_of(), Path("unused")) for config in configs]
    hooks = [Kept() for _ in jobs]
    ends = engine.fit(jobs, [[hook] for hook in hooks])
    assert [end is None for end in ends] == [True, False, True]
    assert "at step 2" in str(ends[1])
    for config, hook in ((configs[0], hooks[0]), (configs[2], hooks[2])):
        (single,) = trained("fast", [config], rows_of())
        np.testing.assert_allclose(hook.losses, single[0].losses, rtol=1e-5)


def test_each_row_comes_once_an_epoch_and_the_rate_falls_to_zero() -> None:
    batches = Batches(SMALL, rows_of(7))
    first = [batches.indices(step) for step in (1, 2, 3)]
    assert [len(batch) for batch in first] == [3, 3, 1]
    assert sorted(row for batch in first for row in batch) == list(range(7))
    assert batches.indices(4) != first[0]
    assert batches.indices(1) == first[0]
    assert learning_rate(SMALL, 1) == SMALL.learning_rate
    assert learning_rate(SMALL, SMALL.steps + 1) == 0


@pytest.mark.parametrize("settings", [{"dropout": 0.1}, {"report_to": "tensorboard"}, {"device": "mps"}], ids=str)
def test_what_it_does_not_have_is_refused_and_auto_takes_the_reference(settings: dict[str, Any]) -> None:
    (name, value), *_ = settings.items()
    config = dataclasses.replace(SMALL, **settings)
    with pytest.raises(InputError, match=rf"{name} is {value}, which the fast engine .*: give engine='reference'"):
        choose_engine(dataclasses.replace(config, engine="fast"))
    if name != "device":
        chosen, why = choose_engine(config)
        assert chosen.engine == "reference"
        assert why.startswith(f"{name} is {value}")


def test_the_models_are_left_with_memory_of_their_own(tmp_path: Path) -> None:
    """Also where a hook ends the training: they can be saved, and a second training starts from them."""

    class Ends(Hook):
        def step(self, view: StepView) -> None:
            raise InputError("the end")

    engine = load_engine("fast")
    config = engine.checked(dataclasses.replace(SMALL, engine="fast"))
    job = Job(config, engine.build(config), rows_of(), tmp_path)
    with pytest.raises(InputError, match="the end"):
        engine.fit([job], [[Ends()]])
    for parameter in job.model.parameters():
        assert parameter.untyped_storage().nbytes() == parameter.nbytes
        assert parameter.grad is None


def test_a_wrong_step_is_found_before_a_run(monkeypatch: pytest.MonkeyPatch) -> None:
    """The check at the start, on a step whose arithmetic is spoilt in one place."""
    config = load_engine("fast").checked(dataclasses.replace(SMALL, engine="fast"))
    ids = Batches(config, rows_of())(1)[0]
    proof.prove(config, ids)
    right = Step._embedding_gradients
    monkeypatch.setattr(Step, "_embedding_gradients", lambda self, ids, d_x: right(self, ids, 1.01 * d_x))
    with pytest.raises(InputError, match=r"does not compute this model here: .* give engine='reference'"):
        proof.prove(config, ids)


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("compiled", [False, True])
def test_it_evaluates_as_the_model_does(precision: str, *, masked: bool, compiled: bool) -> None:
    """Where bf16 is emulated: by rounded operands in float32, within the rounding of bf16 of torch's emulation."""
    arithmetic = FLOAT32 if precision == "fp32" else EMULATED
    if compiled and not usable(arithmetic):
        pytest.skip("no compiler")
    made = {"arithmetic": arithmetic, "compile": "yes" if compiled else "no"}
    config = dataclasses.replace(SMALL, precision=precision, init_std=0.2, **made)
    torch.manual_seed(1)
    models = [Gpt2(config), Gpt2(config)]
    plain = [copy.deepcopy(model) for model in models]
    step = Step(Parameters(models, torch.device("cpu")), config, ARITHMETICS[arithmetic])
    rows = rows_of(6, positions=masked)
    for number, model in enumerate(plain):
        autocast = precision == "bf16-mixed"
        expected = evaluate(model, rows, None, 0, autocast=autocast)
        found = evaluate(model, rows, None, 0, autocast=autocast, logits_of=functools.partial(step.logits, number))
        assert found["loss"] == pytest.approx(expected["loss"], rel=1e-6 if precision == "fp32" else 3e-3)


def test_auto_takes_the_reference_where_a_step_fails_or_is_wrong(
    monkeypatch: pytest.MonkeyPatch, tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def fails(self: Step, ids: torch.Tensor, d_x: torch.Tensor) -> None:
        raise RuntimeError("no such operation\non this device")

    monkeypatch.setattr(Step, "_embedding_gradients", fails)
    config = dataclasses.replace(SMALL, steps=2, n_positions=64, vocab_size=512, eval_rows=0)
    train(config, tiny_workspace, tmp_path / "run")
    told = capsys.readouterr().err
    assert "engine reference: the fast engine fails on this machine (no such operation)" in told
    assert '"engine": "reference"' in (tmp_path / "run" / "config.json").read_text()
    with pytest.raises(InputError, match="the fast engine fails on this machine"):
        train(dataclasses.replace(config, engine="fast"), tiny_workspace, tmp_path / "other")
    assert not (tmp_path / "other").exists()
