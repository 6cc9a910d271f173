"""The interface between an engine and its hooks: what a hook sees of each step, and that seeing changes nothing."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch
from torch.nn.functional import cross_entropy
from transformers import GPT2LMHeadModel, Trainer, set_seed

from duckling_data.rows.layout import TokenIds
from duckling_data.rows.read import Rows
from duckling_train.config import TrainConfig
from duckling_train.data import COLUMN, PackedRows
from duckling_train.engines import load_engine
from duckling_train.engines.base import GRADIENT, HIDDEN, Hook, Job, LogLine, StepView
from duckling_train.engines.reference.engine import CausalLMCollator, arguments_of
from duckling_train.model import build_model
from duckling_train.recording.memory import WRecorder

STEPS, BATCH, CONTEXT, WIDTH, VOCABULARY = 6, 2, 16, 8, 64
CONFIG = TrainConfig(
    steps=STEPS, batch_size=BATCH, n_positions=CONTEXT, n_embd=WIDTH, vocab_size=VOCABULARY, precision="fp32",
    learning_rate=0.01, max_grad_norm=0.5, logging_steps=3, device="cpu", threads=1,
)  # fmt: skip
ROWS = PackedRows(Rows([np.random.default_rng(1).integers(0, 60, (8, CONTEXT)).astype(np.uint16)]))


class Watcher(Hook):
    """Keeps a copy of all that a view shows."""

    needs = frozenset({GRADIENT, HIDDEN})

    def __init__(self) -> None:
        self.events: list[tuple[str, int]] = []
        self.losses: list[float] = []
        self.lines: list[LogLine] = []
        self.seen: list[dict[str, torch.Tensor]] = []
        self.start = torch.empty(0)
        self.drawn: list[TokenIds] = []
        """The rows in the order that the engine took them."""

    def begin(self, view: StepView) -> None:
        self.events.append(("begin", view.step))
        self.start = view.W.clone()

    def log(self, line: LogLine) -> None:
        self.events.append(("log", line.step))
        self.lines.append(line)

    def step(self, view: StepView) -> None:
        self.events.append(("step", view.step))
        loss, gradient, moments, hidden = view.loss, view.gradient, view.moments, view.hidden
        assert loss is not None
        assert gradient is not None
        assert moments is not None
        assert hidden is not None
        self.losses.append(loss)
        shown = {"W": view.W, "gradient": gradient, "exp_avg": moments[0], "exp_avg_sq": moments[1], "hidden": hidden}
        self.seen.append({name: tensor.clone() for name, tensor in shown.items()})

    def end(self, view: StepView) -> None:
        self.events.append(("end", view.step))


class Drawn(PackedRows):
    """The rows, noting in `drawn` which are taken."""

    def __init__(self, drawn: list[TokenIds]) -> None:
        super().__init__(ROWS.rows)
        self.drawn = drawn

    def __getitem__(self, index: int) -> dict[str, TokenIds]:
        item = super().__getitem__(index)
        self.drawn.append(item[COLUMN])
        return item


def job(run_dir: Path, seed: int = 42, rows: PackedRows = ROWS) -> Job:
    set_seed(seed)
    config = TrainConfig(**{**vars(CONFIG), "seed": seed})
    return Job(config, build_model(config), rows, run_dir)


def fit(engine: str, jobs: Sequence[Job], hooks: Sequence[Sequence[Hook]]) -> list[GPT2LMHeadModel]:
    load_engine(engine).fit(jobs, hooks)
    return [each.model for each in jobs]


def assert_equal_weights(one: GPT2LMHeadModel, other: GPT2LMHeadModel, tolerance: float = 0.0) -> None:
    weights = other.state_dict()
    for name, tensor in one.state_dict().items():
        torch.testing.assert_close(tensor, weights[name], rtol=0, atol=tolerance)


@pytest.fixture(params=["fast", "reference"])
def engine(request: pytest.FixtureRequest) -> str:
    return str(request.param)


@pytest.fixture
def watched(engine: str, tmp_path: Path) -> tuple[Watcher, GPT2LMHeadModel]:
    watcher = Watcher()
    return watcher, fit(engine, [job(tmp_path, rows=Drawn(watcher.drawn))], [[watcher]])[0]


def test_a_hook_sees_every_step_its_logs_first(watched: tuple[Watcher, GPT2LMHeadModel]) -> None:
    watcher, model = watched
    events = [
        event
        for step in range(1, STEPS + 1)
        for event in ([("log", step)] if step in (1, 3, 6) else []) + [("step", step)]
    ]
    assert watcher.events == [("begin", 0), *events, ("end", STEPS)]
    assert torch.equal(watcher.seen[-1]["W"], model.transformer.wte.weight)
    means = [watcher.losses[0], sum(watcher.losses[1:3]) / 2, sum(watcher.losses[3:]) / 3]
    assert [line.loss for line in watcher.lines] == pytest.approx(means, abs=1e-5)


def test_the_gradient_and_the_moments_are_those_that_adamw_applied(watched: tuple[Watcher, GPT2LMHeadModel]) -> None:
    """After clipping: from the start, torch's own AdamW makes each W and each moment of the gradients alone."""
    watcher, _model = watched
    replayed = torch.nn.Parameter(watcher.start)
    optimizer = torch.optim.AdamW([replayed], betas=CONFIG.betas, eps=1e-8, weight_decay=CONFIG.weight_decay)
    clipped = [line.grad_norm for line in watcher.lines if line.grad_norm and line.grad_norm > CONFIG.max_grad_norm]
    assert clipped, "nothing was clipped"
    for done, seen in enumerate(watcher.seen):
        assert seen["gradient"].norm() <= CONFIG.max_grad_norm
        optimizer.param_groups[0]["lr"] = CONFIG.learning_rate * (STEPS - done) / STEPS
        replayed.grad = seen["gradient"]
        optimizer.step()
        state = optimizer.state[replayed]
        for name, expected in {
            "W": replayed.detach(),
            **{kind: state[kind] for kind in ("exp_avg", "exp_avg_sq")},
        }.items():
            torch.testing.assert_close(seen[name], expected, rtol=0, atol=1e-7)


def test_the_hidden_states_are_the_batchs_and_give_the_loss(watched: tuple[Watcher, GPT2LMHeadModel]) -> None:
    """Times the tied W before the step they are the logits of the rows drawn for it."""
    watcher, _model = watched
    drawn = torch.tensor(np.stack(watcher.drawn).astype(np.int64))
    weights = watcher.start
    for seen, batch, loss in zip(watcher.seen, drawn.split(BATCH), watcher.losses, strict=False):
        assert seen["hidden"].shape == (BATCH, CONTEXT, WIDTH)
        logits = (seen["hidden"] @ weights.T)[:, :-1].flatten(0, 1)
        expected = cross_entropy(logits, batch[:, 1:].flatten(), reduction="sum") / batch.numel()
        assert loss == pytest.approx(expected.item(), abs=1e-5)
        weights = seen["W"]


def test_two_jobs_in_one_fit_train_as_two_do(engine: str, tmp_path: Path) -> None:
    together = fit(engine, [job(tmp_path, 1), job(tmp_path, 2)], [[], []])
    for seed, model in zip((1, 2), together, strict=True):
        batched = 1e-5 if engine == "fast" else 0.0  # sums of several models at once are taken in another order
        assert_equal_weights(model, fit(engine, [job(tmp_path, seed)], [[]])[0], batched)


def test_a_hook_changes_no_bit_of_a_run(engine: str, watched: tuple[Watcher, GPT2LMHeadModel], tmp_path: Path) -> None:
    assert_equal_weights(watched[1], fit(engine, [job(tmp_path)], [[]])[0])


def test_the_recorder_is_a_hook_and_a_trainers_callback_alike(engine: str, tmp_path: Path) -> None:
    hook, callback = WRecorder(2), WRecorder(2)
    fit(engine, [job(tmp_path)], [[hook]])
    Trainer(
        model=job(tmp_path).model, args=arguments_of(CONFIG, tmp_path), train_dataset=ROWS,
        data_collator=CausalLMCollator(), callbacks=[callback],
    ).train()  # fmt: skip
    assert [step for step, _W in hook.snapshots] == [step for step, _W in callback.snapshots] == [2, 4, 6]
    for ours, theirs in zip(hook.snapshots, callback.snapshots, strict=True):
        torch.testing.assert_close(ours[1], theirs[1], rtol=0, atol=0 if engine == "reference" else 1e-5)
