"""The command line: every option says its default, help is light, and Ctrl-C ends a command in one line."""

from __future__ import annotations

import importlib.metadata
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import click
import pytest

from duckling_data.cli import cli as group
from duckling_data.stages import STAGES
from duckling_data.workspace.settings import resolve
from tests.support import HANG
from tests.support.data import SMALL, Cli, snapshot

COMMANDS = [
    *("build-vocab", "count", "download", "inspect", "merge", "pack", "publish", "report", "run", "status", "verify"),
]
HEAVY = {"numpy", "pyarrow", "gigatoken", "tokenizers", "torch", "transformers", "datasets", "matplotlib", "tqdm"}


def options_of(command: str) -> list[click.Option]:
    return [option for option in group.commands[command].params if isinstance(option, click.Option)]


def help_of(command: str, option: click.Option) -> str:
    record = option.get_help_record(click.Context(group.commands[command]))
    assert record is not None
    return record[1]


def loaded_after(code: str) -> set[str]:
    """The modules that a fresh Python has loaded after this code."""
    done = subprocess.run(
        [sys.executable, "-c", f"{code}\nimport sys; print('LOADED', *sys.modules)"],
        capture_output=True,
        text=True,
        check=True,
    )
    return set(done.stdout.split("LOADED ")[1].split())


def test_the_commands_are_those_of_the_design() -> None:
    assert sorted(group.commands) == COMMANDS


@pytest.mark.parametrize("command", COMMANDS)
@pytest.mark.parametrize("flag", ["--help", "-h"])
def test_every_command_has_help(cli: Cli, command: str, flag: str) -> None:
    result = cli(command, flag)
    assert (result.exit_code, result.stderr) == (0, "")
    assert f"Usage: duckling-data {command} [OPTIONS]" in result.stdout
    for option in options_of(command):
        assert all(name in result.stdout for name in option.opts)


def test_the_program_has_help_that_names_every_command(cli: Cli) -> None:
    result = cli("--help")
    assert result.exit_code == 0
    assert all(re.search(rf"^  {command} ", result.stdout, flags=re.MULTILINE) for command in COMMANDS)


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_states_a_default(command: str) -> None:
    silent = [option.name for option in options_of(command) if "default: " not in help_of(command, option)]
    assert silent == []


def test_the_defaults_stated_are_the_settings_own() -> None:
    stated = {option.name: re.findall(r"default: ([^];]+)\]", help_of("pack", option)) for option in options_of("pack")}
    for stage in STAGES:
        for name, value in resolve(stage.settings, {}, {}).to_json().items():
            assert stated[name] == ["no-eos" if name == "eos" else str(value)]


@pytest.mark.parametrize("command", COMMANDS)
def test_nothing_heavy_is_loaded_for_help(command: str) -> None:
    code = f"import duckling_data.cli\ntry: duckling_data.cli.main(['{command}', '--help'])\nexcept SystemExit: pass"
    assert loaded_after(code) & HEAVY == set()


def test_no_module_of_the_package_loads_torch() -> None:
    loaded = loaded_after(
        "import duckling_data, importlib, pkgutil\n"
        "for module in pkgutil.walk_packages(duckling_data.__path__, 'duckling_data.'):\n"
        "    if module.name != 'duckling_data.__main__': importlib.import_module(module.name)"
    )
    deepest = {"duckling_data.tokens.tokenizer", "duckling_data.stages.pack", "duckling_data.stages.report.plots"}
    assert deepest <= loaded
    assert "torch" not in loaded
    assert not [name for name in loaded if name.startswith("duckling_train")]


def test_the_version_is_the_packages(cli: Cli) -> None:
    result = cli("--version")
    assert (result.exit_code, result.stdout) == (0, f"duckling-data {importlib.metadata.version('duckling')}\n")


def test_quiet_prints_nothing_on_success(cli: Cli, stories: Path, tmp_path: Path) -> None:
    for command in ("download", "count", "build-vocab", "pack", "pack", "verify"):
        source = ["--source", stories] if command == "download" else []
        settings = SMALL if command == "pack" else SMALL[:6] if command == "build-vocab" else []
        settings = SMALL[:2] if command == "count" else settings
        result = cli(command, "-w", tmp_path / "w", "-q", *source, *settings)
        assert (result.exit_code, result.stdout, result.stderr) == (0, "", ""), command


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["pack", "--ctxx", "3"], "No such option"),
        (["pakc"], "No such command"),
        (["pack", "--ctx", "many"], "'many' is not a valid integer"),
        (["pack", "--workers", "0"], "--workers"),
        (["pack", "extra"], "unexpected extra argument"),
    ],
)
def test_a_mistyped_command_line_gets_one_line_and_status_2(cli: Cli, arguments: list[str], says: str) -> None:
    result = cli(*arguments)
    assert (result.exit_code, result.stdout, len(result.stderr.splitlines())) == (2, "", 1)
    assert says in result.stderr


def test_the_module_is_the_program() -> None:
    command = [sys.executable, "-m", "duckling_data", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("duckling-data ")


def test_ctrl_c_ends_a_command_in_one_line_and_leaves_nothing_half_made(tmp_path: Path) -> None:
    arguments = ["count", "-w", str(tmp_path / "w"), "--source", "demo:400000"]
    process = subprocess.Popen(
        [sys.executable, "-m", "duckling_data", *arguments], stderr=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stderr is not None
    said = [process.stderr.readline(), process.stderr.readline()]
    assert said[1].startswith("count        sample 100000")  # it is at work now
    os.kill(process.pid, signal.SIGINT)
    out, err = process.communicate(timeout=HANG)
    assert process.returncode == 130, err
    assert out == ""
    assert len(err.splitlines()) == 1, err
    assert err.startswith("duckling-data: interrupted; the same command ")
    assert not (tmp_path / "w" / "token_counts.parquet").exists()
    assert not [name for name in snapshot(tmp_path) if "partial" in name]
