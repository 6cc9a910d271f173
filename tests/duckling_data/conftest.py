"""Small corpora and the command line, for the tests of duckling_data."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import pytest

from duckling_data.cli import main
from duckling_data.demo import demo_stories

SMALL = ("--sample", "all", "--live", "300", "--dead", "20", "--ctx", "32")
"""Options that fit the small corpus below."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


Cli = Callable[..., Result]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str]) -> Cli:
    """Run `duckling-data` with these arguments, in this process."""

    def run(*args: object) -> Result:
        capsys.readouterr()
        with pytest.raises(SystemExit) as end:
            main([str(arg) for arg in args])
        said = capsys.readouterr()
        code = end.value.code
        assert isinstance(code, int)
        return Result(code, said.out, said.err)

    return run


@pytest.fixture
def stories(tmp_path: Path) -> Path:
    """A file of forty stories."""
    path = tmp_path / "stories.jsonl"
    write_jsonl(path, demo_stories(0, 40).to_pylist())
    return path


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def snapshot(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}
