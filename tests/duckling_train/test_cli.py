"""What the user of `duckling-train` meets: help, one-line errors, exit statuses, silence, Ctrl-C."""

from __future__ import annotations

import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from duckling_data.rows.read import open_rows
from duckling_train.cli import cli, main
from tests.support.train import STEPS, TINY_SHAPE, Ran, duckling_train, environment

HEAVY = ("torch", "transformers", "datasets", "numpy", "pyarrow", "matplotlib")


def invoke(capsys: pytest.CaptureFixture[str], *arguments: str | Path) -> tuple[int, str, str]:
    """Run `main` here. Returns exit status, standard output, standard error."""
    with pytest.raises(SystemExit) as stop:
        main([str(argument) for argument in arguments])
    captured = capsys.readouterr()
    return int(stop.value.code or 0), captured.out, captured.err


def test_help_imports_little_and_nothing_heavy_and_shows_defaults() -> None:
    """It answers in a fraction of a second: of some 145 modules, numpy alone would make 250, torch over 1,100."""
    code = (
        "import sys\nfrom duckling_train.cli import main\ntry: main(['--help'])\nexcept SystemExit: pass\n"
        f"print('HEAVY', [name for name in {HEAVY!r} if name in sys.modules], len(sys.modules) < 200)"
    )
    text = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert text.endswith("HEAVY [] True\n")
    assert "[default: 10000]" in text
    assert "DUCKLING_WORKSPACE" in text


def test_every_option_has_help() -> None:
    assert [option.name for option in cli.params if not getattr(option, "help", None)] == []


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--steps", "0"], "--steps is 0"),
        (["--steps", "many"], "'many' is not a valid integer"),
        (["--batch-size", "-1"], "--batch-size is -1"),
        (["--learning-rate", "nan"], "--learning-rate is nan"),
        (["--seed", "-1"], "--seed is -1"),
        (["--device", "tpu"], "'tpu' is not one of 'auto', 'cpu', 'cuda', 'mps'"),
        (["--name", "../up"], "--name is '../up'"),
        (["--stepz", "3"], "No such option"),
        (["nonsense"], "No such command 'nonsense'"),
        (["-w", "no-such-place"], "no tokenized_dataset in no-such-place: run duckling-data pack"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], arguments: list[str], expected: str
) -> None:
    status, out, err = invoke(capsys, *arguments)
    assert (status, out) == (2, "")
    assert expected in err
    assert err.startswith("duckling-train: ")
    assert err.count("\n") == 1


def test_debug_adds_the_traceback(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = invoke(capsys, "--debug", "--steps", "0")
    assert status == 2
    assert "Traceback" in err
    assert err.splitlines()[-1] == "duckling-train: --steps is 0; it must be at least 1"


def test_dry_run_says_everything_and_writes_nothing(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    before = sorted(workspace.rglob("*"))
    status, out, err = invoke(capsys, "--dry-run", "-w", workspace, "--steps", "77", "--batch-size", "4")
    assert (status, err) == (0, "")
    assert '"steps": 77' in out
    assert '"precision": "bf16-mixed"' in out
    assert "parameters: 1,510,912" in out
    assert f"would write {workspace / 'runs' / 'steps-77-seed-42-batch-size-4'}: config.json, metrics.jsonl" in out
    assert sorted(workspace.rglob("*")) == before


@pytest.mark.parametrize("command", [[], ["sweep", "--layers", "1,2"]])
def test_context_and_vocabulary_are_by_default_the_workspaces_own(
    capsys: pytest.CaptureFixture[str], tiny_workspace: Path, command: list[str]
) -> None:
    status, out, _ = invoke(capsys, *command, "--dry-run", "-w", tiny_workspace)
    assert (status, "would be refused" in out) == (0, False)
    assert "ctx-64-vocab-size-512" in out


def test_dry_run_tells_what_would_be_refused(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    taken = tmp_path / "taken"
    taken.mkdir()
    (taken / "a file").touch()
    status, out, err = invoke(capsys, "--dry-run", "-w", tmp_path, "--out", taken)
    assert (status, err) == (2, "")
    assert out.splitlines()[:3] == [
        f"would be refused: {taken} exists and is not a run (no config.json): give another --name or --out",
        f"would be refused: no tokenized_dataset in {tmp_path}: run duckling-data pack",
        "dataset: none that fits",
    ]


def test_a_batch_of_more_rows_than_there_are_is_refused(
    capsys: pytest.CaptureFixture[str], tiny_workspace: Path, tmp_path: Path
) -> None:
    rows = len(open_rows(tiny_workspace / "tokenized_dataset"))
    given = ["-w", tiny_workspace, *TINY_SHAPE, "--steps", "1", "--out", tmp_path / "run", "--batch-size"]
    expected = f"--batch-size is {rows + 1}, but tokenized_dataset has {rows} rows: give at most as many"
    for more in ([], ["--dry-run"]):
        status, out, err = invoke(capsys, *given, str(rows + 1), *more)
        assert (status, expected in out + err) == (2, True)
    assert not (tmp_path / "run").exists()
    assert invoke(capsys, *given, str(rows), "--dry-run")[0] == 0


def test_without_steps_it_says_what_it_would_train_and_asks(
    capsys: pytest.CaptureFixture[str], tiny_workspace: Path, tmp_path: Path
) -> None:
    given = ["-w", tiny_workspace, *TINY_SHAPE, "--out", tmp_path / "run"]
    status, out, err = invoke(capsys, *given)
    assert (status, err) == (2, "duckling-train: Give --steps, or -y for these 10,000. See duckling-train --help.\n")
    assert out.startswith("would train 10,000 steps on ")
    assert out.endswith(f", and write {tmp_path / 'run'}\n")
    status, out, err = invoke(capsys, "sweep", *given)
    assert (status, "Give --steps, or -y" in err) == (2, True)
    assert not (tmp_path / "run").exists()
    settings = tmp_path / "settings.json"
    settings.write_text('{"steps": 10000, "batch_size": 65536}')
    for enough in (["-y"], ["--config", settings]):
        status, _, err = invoke(capsys, *given, *enough, "--batch-size", "65536")
        assert (status, "--batch-size is 65,536, but" in err) == (2, True), "the next thing that is wrong"


@pytest.mark.parametrize("arguments", [[], ["--steps", "3"], ["-w"], ["sweep"]])
def test_a_shell_that_completes_is_answered_and_nothing_is_trained(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("_DUCKLING_TRAIN_COMPLETE", "zsh_source")
    status, out, err = invoke(capsys, *arguments)
    assert (status, err) == (0, "")
    assert out.startswith("#compdef duckling-train\n")
    monkeypatch.setenv("_DUCKLING_TRAIN_COMPLETE", "fish_complete")
    monkeypatch.setenv("COMP_WORDS", " ".join(["duckling-train", *arguments]))
    monkeypatch.setenv("COMP_CWORD", "gen")
    status, out, err = invoke(capsys)
    assert (status, err) == (0, "")
    if not arguments:
        assert out == "plain,generate\tContinue a prompt with RUN's model.\n"
    monkeypatch.setenv("_DUCKLING_TRAIN_COMPLETE", "bash")
    status, out, err = invoke(capsys, *arguments)
    assert (status, out, err.count("\n"), "expected bash_source" in err) == (2, "", 1, True)


@pytest.mark.parametrize(
    ("preset", "parameters"),
    [("duckling-ii", "1,510,912"), ("duckling-ii-4l", "1,907,456"), ("duckling-ii-8l", "2,700,544")],
)
def test_dry_run_of_a_preset_counts_the_originals_parameters(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, preset: str, parameters: str
) -> None:
    _, out, _ = invoke(capsys, "-w", tmp_path, "--preset", preset, "--dry-run")
    assert f"parameters: {parameters}\n" in out


def test_an_option_before_a_subcommand_is_refused(capsys: pytest.CaptureFixture[str]) -> None:
    status, _, err = invoke(capsys, "--steps", "3", "compare", "x")
    assert (status, "--steps comes before compare; write it after it." in err) == (2, True)


@pytest.mark.parametrize("option", [["--out", "x"], ["--overwrite"], ["--dry-run"], ["--preset", "duckling-ii"]])
def test_resume_takes_no_option_that_would_be_ignored(capsys: pytest.CaptureFixture[str], option: list[str]) -> None:
    status, _, err = invoke(capsys, "--resume", "x", *option)
    assert (status, f"{option[0]} does not go with --resume" in err) == (2, True)


def test_a_reporter_that_is_not_installed_is_refused(capsys: pytest.CaptureFixture[str], workspace: Path) -> None:
    if importlib.util.find_spec("wandb"):
        pytest.skip("wandb is installed")
    status, _, err = invoke(capsys, "-w", workspace, "--report-to", "wandb", "--dry-run")
    assert (status, "--report-to is wandb, which is not installed: pip install wandb" in err) == (2, True)


def test_tensorboard_gets_the_losses(tiny_workspace: Path, tmp_path: Path) -> None:
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    run = duckling_train(
        tmp_path / "run", "-w", tiny_workspace, *TINY_SHAPE, "--steps", "3", "--logging-steps", "1",
        "--report-to", "tensorboard",
    )  # fmt: skip
    assert run.status == 0, run.stderr
    events = EventAccumulator(str(run.run_dir / "tensorboard"))
    events.Reload()
    losses = [event.value for event in events.Scalars("train/loss")]
    assert losses == pytest.approx([line["loss"] for line in run.metrics], rel=1e-6)
    assert not any(name.startswith("tensorboard") for name in run.json("manifest.json")["files"])


def test_workspace_comes_from_the_environment(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DUCKLING_WORKSPACE", str(tmp_path))
    status, _, err = invoke(capsys, "--steps", "1")
    assert status == 2
    assert str(tmp_path) in err


def test_version_is_the_packages(capsys: pytest.CaptureFixture[str]) -> None:
    from importlib.metadata import version

    assert invoke(capsys, "--version") == (0, f"duckling-train {version('duckling')}\n", "")


def test_normal_run_shows_a_bar_and_one_line_and_no_warning(run: Ran) -> None:
    assert (run.status, run.stdout.startswith(f"{run.run_dir}: loss ")) == (0, True)
    assert run.stdout.count("\n") == 1
    shown = [line for line in run.stderr.replace("\r", "\n").split("\n") if line]
    assert shown[0].partition(", ")[0] == "engine fast: it has every setting given; products in float32"
    assert all(line.startswith("training ") for line in shown[1:]), run.stderr
    assert f"{STEPS}/{STEPS}" in shown[-1]
    assert "steps/s, loss " in shown[-1]


def test_existing_run_is_refused(capsys: pytest.CaptureFixture[str], run: Ran, workspace: Path) -> None:
    before = (run.run_dir / "manifest.json").read_bytes()
    status, _, err = invoke(capsys, "--out", run.run_dir, "-w", workspace, "--steps", "1")
    assert status == 2
    assert "already holds a run" in err
    assert "--overwrite" in err
    assert (run.run_dir / "manifest.json").read_bytes() == before


def test_every_validation_row_can_be_asked_for(capsys: pytest.CaptureFixture[str], tmp_path: Path) -> None:
    _, out, _ = invoke(capsys, "-w", tmp_path, "--eval-rows", "all", "--dry-run")
    assert '"eval_rows": null' in out


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["--layers", "2,x"], "'x' is not a valid integer"),
        (["--layers", "2,,4"], "has an empty value"),
        (["--seeds", "1,1"], "has 1 twice"),
        (["--tied", "no"], "neither tied nor untied"),
        (["--betas", "0.9"], "not two numbers with a colon"),
        (["--schedule", "linear,steep"], "'steep' is not one of"),
        (["--width", "16", "--heads", "3,16"], "--width is 16 and --heads 3"),
        (["--jobs", "0"], "--jobs is 0"),
        (["--ctx", "64"], "holds rows of 512 tokens, expected 64"),
    ],
)
def test_bad_values_of_a_sweep_are_one_line_and_exit_2(
    capsys: pytest.CaptureFixture[str], workspace: Path, tmp_path: Path, arguments: list[str], expected: str
) -> None:
    status, out, err = invoke(capsys, "sweep", "-w", workspace, "--out", tmp_path / "bad", *arguments)
    assert (status, out, err.count("\n")) == (2, "", 1)
    assert expected in err
    assert not (tmp_path / "bad").exists()


def test_help_of_a_sweep_shows_every_setting_with_its_default_and_imports_nothing_heavy() -> None:
    code = (
        "import sys\nfrom duckling_train.cli import main\ntry: main(['sweep', '--help'])\nexcept SystemExit: pass\n"
        "print([name for name in ('torch', 'transformers', 'datasets', 'matplotlib') if name in sys.modules])"
    )
    shown = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert shown.endswith("[]\n")
    words = " ".join(shown.split())
    for expected in (
        "--layers N[,...] Transformer blocks. [default: 2]",
        "--seed, --seeds N[,...] Seed of the weights. [default: 42]",
        "[default: 0.0001]",
        "[default: 0.9:0.999]",
        "--tied tied|untied[,...]",
        "--eval-rows N|all[,...]",
        "[default: WORKSPACE/sweeps/NAME]",
        "duckling-train sweep --layers 2,4,8 --batch-size 16 --steps 2000",
    ):
        assert expected in words, expected


@pytest.mark.parametrize("command", ["dry-run", "generate"])
def test_a_quick_command_imports_no_trainer(command: str, run: Ran, workspace: Path, tmp_path: Path) -> None:
    """Each of these libraries takes a second or more to import. (`run` is trained anyway, for other tests.)"""
    unused = ["datasets", "matplotlib", "transformers.trainer", "transformers.training_args"]
    arguments = ["generate", str(run.run_dir), "--tokens", "5"]
    if command == "dry-run":
        unused += ["transformers", "accelerate", "sympy", "torch._dynamo"]
        arguments = ["--steps", "5", "-w", str(workspace), "--out", str(tmp_path / "run"), "--dry-run"]
    code = (
        "import sys\nfrom duckling_train.cli import main\n"
        f"try: main({arguments!r})\nexcept SystemExit as end: print(end.code)\n"
        f"print([name for name in {unused!r} if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment(), check=False)
    assert done.stdout.splitlines()[-2:] == ["0", "[]"], done.stdout + done.stderr
