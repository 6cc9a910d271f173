"""What ends a program or a call of the library ends it in one line: odd text, odd names, an odd interpreter, Ctrl-C."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from importlib import import_module
from pathlib import Path

import pytest
import torch

from duckling_data.base.errors import InputError
from duckling_data.tokens.tokenizer import DucklingTokenizer
from tests.support import HANG
from tests.support.train import TINY_SHAPE, make_workspace, sentences

ROOT = Path(__file__).parent.parent
LONE = "It is \udcff."
"""What the bytes b"It is \\xff." of a command line become."""


@pytest.fixture(scope="module")
def tiny(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_workspace(tmp_path_factory.mktemp("tiny"), sentences(30), live=448, dead=64, context=64)


def told(capsys: pytest.CaptureFixture[str], module: str, *arguments: str | Path) -> tuple[int, str]:
    """Run a program here. Returns its exit status and its one line."""
    threads = torch.get_num_threads()
    capsys.readouterr()
    with pytest.raises(SystemExit) as end:
        import_module(module).main([str(argument) for argument in arguments])
    torch.set_num_threads(threads)
    out, err = capsys.readouterr()
    assert (out, err.count("\n"), "Traceback" in err) == ("", 1, False), err
    return int(end.value.code or 0), err


@pytest.mark.parametrize("encoder", ["gigatoken", "tokenizers"])
def test_a_text_that_is_no_utf_8_has_no_tokens(tiny: Path, encoder: str) -> None:
    tokenizer = DucklingTokenizer(tiny / "token_mapping.json", encoder=encoder)
    expected = r"text 'It is \\udcff\.': character 6 is no character of UTF-8; remove it"
    for call in (tokenizer.encode, tokenizer.tokenize, tokenizer, lambda text: tokenizer([text, text])):
        with pytest.raises(InputError, match=expected):
            call(LONE)


def test_inspect_refuses_a_text_that_is_no_utf_8(capsys: pytest.CaptureFixture[str], tiny: Path) -> None:
    status, line = told(capsys, "duckling_data.cli", "inspect", "-w", tiny, "--text", LONE)
    assert (status, "character 6 is no character of UTF-8" in line) == (2, True)


@pytest.mark.parametrize("name", ["odd \udcff", "$odd^{$", "odd\n\x1b[31m", "_odd"])
def test_a_run_may_have_an_odd_name_or_is_told_in_one_line(
    capsys: pytest.CaptureFixture[str], tiny: Path, tmp_path: Path, name: str
) -> None:
    (run := tmp_path / name).mkdir()
    (run / "config.json").write_text("{}")
    (run / "metrics.jsonl").write_text('{"step": 1, "loss": 2.0}\n')
    out = tmp_path / f"{name}.png"
    with pytest.raises(SystemExit) as end:
        import_module("duckling_train.cli").main(["compare", str(run), str(run), "--out", str(out)])
    err = capsys.readouterr().err
    assert (err.count("\n"), "Traceback" in err) == (1, False), err
    assert (end.value.code == 0) == out.exists()


def test_an_interpreter_without_docstrings_is_refused() -> None:
    for module in ("duckling_data", "duckling_train"):
        done = subprocess.run(
            [sys.executable, "-OO", "-m", module, "--version"], capture_output=True, text=True, check=False, cwd=ROOT
        )
        said = done.stderr.removeprefix(f"{module.replace('_', '-')}: Python runs with PYTHONOPTIMIZE=2 or -OO")
        assert (done.returncode, done.stdout, said.count("\n"), said[:1]) == (2, "", 1, ",")


WANDB = """
class UsageError(Exception): ...
run = None
def init(*arguments, **settings): raise UsageError("api_key not configured (no-tty). call wandb.login\\nmore")
"""


def test_a_reporter_that_fails_is_told_and_the_run_goes_on_without_it(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tiny: Path, tmp_path: Path
) -> None:
    """wandb without a login, as its own error: the package itself is not needed here."""
    (tmp_path / "wandb" / "sdk" / "lib").mkdir(parents=True)
    (tmp_path / "wandb" / "__init__.py").write_text(WANDB)
    (tmp_path / "wandb" / "sdk" / "lib" / "config_util.py").write_text("class ConfigError(Exception): ...")
    (tmp_path / "wandb-0.dist-info").mkdir()
    (tmp_path / "wandb-0.dist-info" / "METADATA").write_text("Metadata-Version: 2.1\nName: wandb\nVersion: 0.20\n")
    monkeypatch.syspath_prepend(tmp_path)
    given = ("-w", tiny, *TINY_SHAPE, "--steps", "2", "--quiet", "--report-to", "wandb")
    status, line = told(capsys, "duckling_train.cli", "--out", tmp_path / "run", *given)
    for name in [name for name in sys.modules if name.split(".")[0] == "wandb"]:
        del sys.modules[name]
    assert status == 3
    assert "--report-to wandb failed: api_key not configured (no-tty). call wandb.login; " in line
    assert f"--resume {tmp_path / 'run'} --report-to none" in line


DEMO = """
import sys
sys.path.insert(0, "scripts")
from demo import command
command("python", "-c", sys.argv[1])
print("never printed")
"""
WRITES = """
import signal, sys, time
def end(*_): time.sleep(0.6); print("written", flush=True); sys.exit(130)
signal.signal(signal.SIGINT, end)
print("begun", flush=True)
time.sleep(600)
"""


def test_ctrl_c_in_the_demo_lets_the_command_end() -> None:
    demo = subprocess.Popen(
        [sys.executable, "-c", DEMO, WRITES], cwd=ROOT, start_new_session=True, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert demo.stdout is not None
    while demo.stdout.readline() != "begun\n":
        assert demo.poll() is None
    os.killpg(demo.pid, signal.SIGINT)
    assert (*demo.communicate(timeout=HANG), demo.returncode) == ("written\n", "", 130)
