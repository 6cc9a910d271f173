"""`dynamics.jsonl`: each column by its definition in float64, on both engines; and where a run's figures are shown."""

from __future__ import annotations

import dataclasses
import json
import math
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_data.base.records import decode
from duckling_data.rows.read import Rows
from duckling_train.compare.table import figures, table
from duckling_train.data import PackedRows
from duckling_train.engines import load_engine
from duckling_train.engines.base import HIDDEN, Hook, Job, StepView
from duckling_train.recording.light import DynamicsWriter, coherence, isotropy, moved
from duckling_train.runs import layout
from duckling_train.runs.checkpoint import Checkpoints
from duckling_train.runs.read import read_run
from duckling_train.runs.resume import read_config, resume
from duckling_train.runs.verify import verify_run
from tests.support.seen import LIVE, SMALL, VOCABULARY, numbers
from tests.support.train import TINY_SHAPE, Ran, duckling_train

CONFIG = dataclasses.replace(SMALL, steps=20, logging_steps=2)
Matrix = npt.NDArray[np.float64]


class Watcher(Hook):
    """Keeps W from the first on, and the final hidden states and the softmax matrix that they were multiplied by."""

    needs = frozenset({HIDDEN})

    def __init__(self) -> None:
        self.matrices: list[Matrix] = []
        self.softmax: list[Matrix] = []
        self.hidden: list[Matrix] = []

    def begin(self, view: StepView) -> None:
        self._keep(view)

    def step(self, view: StepView) -> None:
        assert view.hidden is not None
        self.hidden.append(view.hidden[:, :-1].flatten(0, 1).double().numpy())
        self._keep(view)

    def _keep(self, view: StepView) -> None:
        self.matrices.append(view.W.double().numpy().copy())
        self.softmax.append(view.model.lm_head.weight.detach().double().numpy().copy())


def restated(seen: Watcher, step: int, live: int) -> dict[str, float]:
    """A line by its definitions, all pairs where they are about pairs."""
    first, before, w = seen.matrices[0], seen.matrices[step - 1], seen.matrices[step]
    dead, move = w[live:], (w - before)[live:]
    centre, norm = dead.mean(0), np.linalg.norm
    units = np.array([d / norm(d) for d in move if d.any()])
    cosines = (units @ units.T)[np.triu_indices(len(units), 1)]
    along = w @ np.linalg.eigh(w.T @ w)[1]
    z = np.exp(np.concatenate([along, -along], axis=1)).sum(0)
    logits = seen.hidden[step - 1] @ seen.softmax[step - 1].T
    p = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    displacement = norm(w - first, axis=1)
    return {
        "step": step, "centroid_norm": norm(centre), "centroid_moved": norm(centre - first[live:].mean(0)),
        "radius_mean": norm(dead - centre, axis=1).mean(), "radius_max": norm(dead - centre, axis=1).max(),
        "velocity": norm(centre - before[live:].mean(0)), "coherence": float(np.mean(cosines)),
        "displacement_dead": displacement[live:].mean(), "displacement_live": displacement[:live].mean(),
        "dead_mass": p[:, live:].sum(1).mean(), "isotropy": z.min() / z.max(), "mean_shift": norm(w.mean(0)),
    }  # fmt: skip


def watched(engine: str, count: int = 1, live: int = LIVE, **settings: Any) -> list[tuple[Watcher, list[Any]]]:
    """Train runs together. Returns what was seen of each, and its lines."""
    torch.set_num_threads(1)
    made = load_engine(engine)
    config = made.checked(dataclasses.replace(CONFIG, engine=engine, **settings))
    jobs, kept, hooks = [], [], []
    for seed in range(count):
        own = dataclasses.replace(config, seed=seed)
        model = made.build(own)
        jobs.append(Job(own, model, PackedRows(Rows([numbers()])), Path("unused")))
        kept.append((Watcher(), list[Any]()))
        writer = DynamicsWriter(kept[-1][1].append, model.transformer.wte.weight, live, own.logging_steps)
        hooks.append([kept[-1][0], writer])
    assert made.fit(jobs, hooks) == [None] * count
    return kept


@pytest.mark.parametrize("engine", ["fast", "reference"])
@pytest.mark.parametrize(
    "settings",
    [{}, {"tied": False}, {"precision": "bf16-mixed"}, {"precision": "bf16-pure"}, {"optimizer": "sgd"}],
    ids=str,
)
def test_each_column_is_its_definition_in_float64(engine: str, settings: dict[str, Any]) -> None:
    """At step 1 and every 2 steps; the isotropy at step 1 and every 20."""
    (seen, lines) = watched(engine, **settings)[0]
    assert [line["step"] for line in lines] == [1, *range(2, 21, 2)]
    assert [line["isotropy"] is not None for line in lines] == [True, *[False] * 9, True]
    bf16 = settings.get("precision", "fp32") != "fp32"
    for line in (lines[0], lines[5], lines[-1]):
        expected = restated(seen, line["step"], LIVE)
        if line["isotropy"] is None:
            del line["isotropy"], expected["isotropy"]
        mass = line.pop("dead_mass"), expected.pop("dead_mass")
        assert line == pytest.approx(expected, rel=1e-5, abs=1e-9)
        assert mass[0] == pytest.approx(mass[1], rel=5e-3 if bf16 else 1e-5)


def test_of_runs_that_train_together_each_has_its_own_lines() -> None:
    for seen, lines in watched("fast", 3):
        for line in (lines[0], lines[-1]):
            expected = restated(seen, line["step"], LIVE)
            assert line == pytest.approx(expected, rel=1e-5, abs=1e-9)


def test_a_model_without_dead_rows_has_lines_without_them() -> None:
    (_seen, lines) = watched("fast", live=VOCABULARY)[0]
    for line in lines:
        known = {name for name, value in line.items() if value is not None} - {"isotropy"}
        assert known == {"step", "displacement_live", "mean_shift"}


def test_what_is_not_defined_is_not_a_number() -> None:
    w = torch.randn(6, 4)
    one = moved(w, w, w[5:].clone(), 5)
    assert math.isnan(one["coherence"])
    assert one["velocity"] == one["radius_max"] == one["displacement_dead"] == 0
    at_rest = torch.tensor([[0.0, 0.0], [1.0, 0.0], [0.0, 2.0], [0.0, 0.0]])
    assert coherence(at_rest) == 0.0
    assert coherence(torch.tensor([[1e-30, 0.0], [-3.0, 0.0]])) == -1.0
    assert isotropy(torch.full((3, 2), 200.0)) == pytest.approx(0.0)  # exp(200) is beyond float32
    assert math.isnan(isotropy(torch.full((3, 2), math.inf)))


@pytest.fixture(scope="module")
def ran(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    settings = ("--steps", "25", "--logging-steps", "2", "--checkpoint-steps", "10", "--keep-checkpoints")
    done = duckling_train(tmp_path_factory.mktemp("logged") / "run", "-w", tiny_workspace, *TINY_SHAPE, *settings)
    assert done.status == 0, done.stderr
    return done


def test_the_last_values_are_in_the_summary_the_last_line_and_the_tables(ran: Ran) -> None:
    lines = [json.loads(line) for line in (ran.run_dir / "dynamics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [line["step"] for line in ran.metrics]
    last = {**lines[-1], "isotropy": lines[10]["isotropy"]}
    assert None not in last.values()
    assert ran.json("summary.json")["dynamics"] == last
    told = f"moved {last['centroid_moved']:.3g}, coherence {last['coherence']:.3g}, mass {last['dead_mass']:.3g}"
    assert ran.stdout.splitlines()[-1].endswith(f"; dead rows: {told}")
    record = read_run(ran.run_dir)
    assert figures([record])[0]["dynamics"] == last
    head, row = table([record]).splitlines()[:2]
    for heading, name in (("centroid", "centroid_norm"), ("radius", "radius_mean"), ("dead mass", "dead_mass")):
        assert heading in head
        assert f"{last[name]:.4g}" in row


@pytest.fixture
def earlier(ran: Ran, tmp_path: Path) -> Path:
    """The run as an earlier version left it: without the log, in its checkpoints, too."""
    run_dir = Path(shutil.copytree(ran.run_dir, tmp_path / "earlier"))
    (run_dir / "dynamics.jsonl").unlink()
    config, inputs = read_config(run_dir)
    checkpoints = Checkpoints(run_dir, config, inputs)
    for step in (10, 20, 25):
        path = run_dir / f"checkpoints/step-{step:08d}"
        state = decode(json.loads((path / "checkpoint.json").read_text())["state"], dict[str, Any], "", "")
        files = {name: (path / name).read_bytes() for name in ("weights.safetensors", "optimizer.safetensors")}
        shutil.copy(path / "metrics.jsonl", run_dir)
        shutil.rmtree(path)
        checkpoints.write(step, files, state)
    summary = json.loads((run_dir / "summary.json").read_text())
    del summary["dynamics"]
    (run_dir / "summary.json").write_text(json.dumps(summary))
    layout.write_manifest(run_dir, inputs)
    return run_dir


def test_a_run_of_an_earlier_version_is_read_compared_verified_and_resumed(
    earlier: Path, ran: Ran, tiny_workspace: Path
) -> None:
    assert list(verify_run(earlier, tiny_workspace))
    old, new = read_run(earlier), read_run(ran.run_dir)
    assert (old.dynamics, old.last_dynamics) == ([], None)
    assert "centroid" not in table([old])
    assert table([old, new]).splitlines()[1].count(" - ") == 4
    resume(earlier, tiny_workspace, {}, quiet=True)
    (earlier / "manifest.json").unlink()
    shutil.rmtree(earlier / "checkpoints/step-00000025")
    resume(earlier, tiny_workspace, {}, quiet=True)
    expected = (ran.run_dir / "dynamics.jsonl").read_text().splitlines()
    assert (earlier / "dynamics.jsonl").read_text().splitlines() == expected[-2:]
    assert list(verify_run(earlier, tiny_workspace))


@pytest.mark.parametrize("line", ['{"step": 26, "coherence": "high"}', '{"step": 2}', '{"coherence": 1}', "[]"])
def test_a_damaged_line_is_refused(ran: Ran, tmp_path: Path, line: str) -> None:
    run_dir = Path(shutil.copytree(ran.run_dir, tmp_path / "run"))
    with (run_dir / "dynamics.jsonl").open("a") as file:
        file.write(line + "\n")
    with pytest.raises(InputError, match=r"dynamics\.jsonl has "):
        read_run(run_dir)
    (run_dir / "manifest.json").unlink()
    with pytest.raises(InputError, match=r"dynamics\.jsonl, line 14: damaged; expected an object with numbers or null"):
        read_run(run_dir)


@pytest.mark.parametrize("value", ["high", 3, {"step": 1, "coherence": [1]}])
def test_a_summary_of_which_the_dynamics_are_none_is_refused(ran: Ran, tmp_path: Path, value: Any) -> None:
    run_dir = Path(shutil.copytree(ran.run_dir, tmp_path / "run"))
    (run_dir / "manifest.json").unlink()
    (run_dir / "summary.json").write_text(json.dumps({**ran.json("summary.json"), "dynamics": value}))
    with pytest.raises(InputError, match=r"summary\.json: .*\[\.\.\.\]"):
        read_run(run_dir)
