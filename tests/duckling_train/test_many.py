"""Many seeds at once by the command: each is the run that it would be alone, and a second call goes on."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from safetensors.torch import load_file

from duckling_train.cli import main
from duckling_train.runs.verify import verify_run
from tests.support.train import TINY_SHAPE, Ran, duckling_train

STEPS = ("--steps", "20", "--checkpoint-steps", "8", "--keep-checkpoints")


def train(run_dir: Path, workspace: Path, *more: str) -> Ran:
    return duckling_train(run_dir, "-w", workspace, *TINY_SHAPE, *STEPS, *more)


@pytest.fixture(scope="module")
def many(tiny_workspace: Path, tmp_path_factory: pytest.TempPathFactory) -> Ran:
    done = train(tmp_path_factory.mktemp("many") / "runs", tiny_workspace, "--seeds", "3:5,9")
    assert done.status == 0, done.stderr
    return done


def assert_alike(ours: Path, theirs: Path) -> None:
    """Logs and weights within what another order of sums makes."""
    for one, other in zip(
        *((place / "metrics.jsonl").read_text().splitlines() for place in (ours, theirs)), strict=True
    ):
        assert json.loads(one) == pytest.approx(json.loads(other), rel=1e-4)
    weights = load_file(theirs / "model" / "model.safetensors")
    for name, tensor in load_file(ours / "model" / "model.safetensors").items():
        if not name.endswith("c_attn.bias"):
            assert (tensor - weights[name]).abs().max() < 1e-5, name


def test_each_is_the_run_that_it_would_be_alone(many: Ran, tiny_workspace: Path, tmp_path: Path) -> None:
    assert sorted(path.name for path in many.run_dir.iterdir() if path.is_dir()) == ["seed-3", "seed-4", "seed-9"]
    assert [line.split(": ")[0] for line in many.stdout.splitlines()] == [
        str(many.run_dir / f"seed-{seed}") for seed in (3, 4, 9)
    ]
    assert "3 runs at once: 0 are finished, 3 from step 1" in many.stderr
    for seed in ("3", "9"):
        alone = train(tmp_path / seed, tiny_workspace, "--seed", seed)
        assert_alike(many.run_dir / f"seed-{seed}", alone.run_dir)
        ours, theirs = (json.loads((place / "config.json").read_text()) for place in
                        (many.run_dir / f"seed-{seed}", alone.run_dir))  # fmt: skip
        assert ours == theirs
        assert list(verify_run(many.run_dir / f"seed-{seed}", tiny_workspace))
    assert json.loads((many.run_dir / "seed-3" / "summary.json").read_text())["trained_together"] == 3


def test_a_second_call_goes_on_with_what_is_not_finished(many: Ran, tiny_workspace: Path, tmp_path: Path) -> None:
    place = tmp_path / "runs"
    shutil.copytree(many.run_dir, place)
    (place / "seed-4" / "manifest.json").unlink()
    shutil.rmtree(place / "seed-4" / "checkpoints" / "step-00000020")
    (place / "seed-9" / "manifest.json").unlink()
    shutil.rmtree(place / "seed-9" / "checkpoints")
    done = train(place, tiny_workspace, "--seeds", "3:5,9,11")
    assert done.status == 0, done.stderr
    assert "3 runs at once: 1 are finished, 2 from step 1, 1 from step 17" in done.stderr
    for seed in (4, 9):
        assert_alike(place / f"seed-{seed}", many.run_dir / f"seed-{seed}")
    assert (place / "seed-3" / "manifest.json").stat().st_mtime < (place / "seed-4" / "manifest.json").stat().st_mtime
    other = train(place, tiny_workspace, "--seeds", "3:5", "--learning-rate", "1e-3")
    assert (other.status, "seed-3 holds a run with another learning_rate: give --overwrite" in other.stderr) == (
        2,
        True,
    )


def test_one_that_diverges_ends_alone(tiny_workspace: Path, tmp_path: Path) -> None:
    """A rate at which every run diverges at once: each says so, and the command fails."""
    done = train(tmp_path / "runs", tiny_workspace, "--seeds", "1,2", "--learning-rate", "1e30", "--clip", "0")
    assert done.status == 2
    assert "2 of 2 runs ended early; the first: the " in done.stderr.splitlines()[-1]


@pytest.mark.parametrize(
    ("given", "message"),
    [
        (("--seeds", "5:5"), "for '--seeds': '5:5' is no range; expected FIRST:END with FIRST below END"),
        (("--seeds", "1:4,2"), "has 2 twice"),
        (("--seeds", "a:4"), "'a' is not a valid integer"),
        (("--seeds", "1:4", "--seed", "1"), "--seed does not go with --seeds"),
        (("--seeds", "1:4", "--dropout", "0.1"), "many runs at once need the fast engine, not reference"),
    ],
    ids=str,
)
def test_what_cannot_be_is_refused(tiny_workspace: Path, tmp_path: Path, given: tuple[str, ...], message: str) -> None:
    done = train(tmp_path / "runs", tiny_workspace, *given)
    assert (done.status, message in done.stderr) == (2, True), done.stderr
    assert not (tmp_path / "runs").exists()


def sweep(place: Path, workspace: Path) -> int:
    swept = ("--learning-rate", "1e-4,1e30", "--seeds", "1:4", "--clip", "0", "--engine", "fast")
    with pytest.raises(SystemExit) as stop:
        main(["sweep", "-w", str(workspace), "--out", str(place), *TINY_SHAPE, *STEPS, *swept])
    return int(stop.value.code or 0)


def test_a_sweep_on_the_fast_engine_trains_alike_runs_at_once(
    tiny_workspace: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Three of the six diverge; the others are what they are alone."""
    assert sweep(tmp_path / "sweep", tiny_workspace) == 2
    told = capsys.readouterr().err
    assert "3 of 6 runs failed" in told
    assert told.count("training 20 steps, 6 runs at once ...") == 1
    alone = train(tmp_path / "alone", tiny_workspace, "--seed", "2", "--clip", "0")
    runs = (tmp_path / "sweep" / "runs").iterdir()
    (ours,) = (path for path in runs if "seed-2" in path.name and "1e+30" not in path.name and path.is_dir())
    assert_alike(ours, alone.run_dir)
    assert sweep(tmp_path / "sweep", tiny_workspace) == 2
    assert "3 of 6 runs are finished already" in capsys.readouterr().err


def test_a_dry_run_says_what_would_be_done_with_each_and_writes_nothing(
    many: Ran, tiny_workspace: Path, tmp_path: Path
) -> None:
    place = tmp_path / "runs"
    shutil.copytree(many.run_dir, place)
    for name in ("manifest.json", "summary.json"):
        (place / "seed-4" / name).unlink()
    shutil.rmtree(place / "seed-4" / "checkpoints" / "step-00000020")
    before = sorted(place.rglob("*"))
    done = train(place, tiny_workspace, "--seeds", "3:6", "--dry-run")
    assert done.status == 0, done.stderr
    assert done.stdout.splitlines() == [
        f"{place / 'seed-3'}: is finished and stays as it is",
        f"{place / 'seed-4'}: would go on from step 17",
        f"{place / 'seed-5'}: would be trained from step 1",
    ]
    other = train(place, tiny_workspace, "--seeds", "3:6", "--dry-run", "--learning-rate", "0.5")
    assert other.status == 2
    assert "another learning_rate" in other.stderr
    assert sorted(place.rglob("*")) == before
