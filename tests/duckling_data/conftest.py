"""Small corpora and the command line, for the tests of duckling_data."""

from __future__ import annotations

import hashlib
import json
import re
import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.base.errors import CheckFailed
from duckling_data.base.gpt2_files import gpt2_folder
from duckling_data.base.progress import Reporter
from duckling_data.cli import main
from duckling_data.corpus.demo import demo_stories
from duckling_data.pipeline import Pipeline, Request
from duckling_data.rows.read import read_rows
from duckling_data.verify import VerifyRequest, verify_workspace
from duckling_data.workspace.manifest import Manifest
from tests import reference_pipeline as reference
from tests.duckling_data.hub_server import HubServer

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


def stages_that(verb: str, result: Result) -> list[str]:
    """The stages of which the command said `made`, `would make` or `up to date`."""
    assert result.exit_code == 0, result.stderr
    return re.findall(rf"^(\S+) +{verb}\b", result.stderr, flags=re.MULTILINE)


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


def build(workspace: Path, *sources: object, workers: int = 2, mapping: Path | None = None, **given: Any) -> Manifest:
    """Bring a workspace's rows up to date, in this process; the settings by field name."""
    request = Request(workspace, workers, tuple(map(str, sources)), mapping=mapping, settings=given)
    return Pipeline(request, Reporter(quiet=True)).make("pack")


def rows_of(workspace: Path, name: str = "tokenized_dataset") -> np.ndarray:
    return np.concatenate(read_rows(workspace / name))


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


@pytest.fixture(scope="session")
def gpt2() -> Any:
    """transformers' own GPT-2 tokenizer."""
    return reference.load_gpt2(gpt2_folder())


@pytest.fixture(scope="session")
def packed_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("packed")
    write_jsonl(folder / "stories.jsonl", demo_stories(0, 40).to_pylist())
    build(folder / "w", folder / "stories.jsonl", sample="all", live=300, dead=20, ctx=32)
    return folder


@pytest.fixture
def made(packed_once: Path, tmp_path: Path) -> Path:
    """A workspace of one's own that is up to date: forty stories, packed with the settings SMALL."""
    shutil.copytree(packed_once / "w", tmp_path / "made")
    return tmp_path / "made"


@pytest.fixture(scope="session")
def demo_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    workspace = tmp_path_factory.mktemp("demo") / "w"
    build(workspace, "demo:200", sample="all", live=300, dead=20, ctx=32, group=30)
    Manifest(workspace).write_sums()
    return workspace


@pytest.fixture
def demo(demo_once: Path, tmp_path: Path) -> Path:
    """A workspace of one's own with a validation split."""
    return Path(shutil.copytree(demo_once, tmp_path / "demo"))


def verified(workspace: Path, **asked: Any) -> list[str]:
    """The lines of `verify`, in this process; raises CheckFailed where something does not hold."""
    return list(verify_workspace(VerifyRequest(workspace, **{"workers": 1} | asked), Reporter(quiet=True)))


def found(workspace: Path, *says: str, **asked: Any) -> str:
    """What the failed `verify` says, in which these words are."""
    with pytest.raises(CheckFailed) as failed:
        verified(workspace, **asked)
    for word in says:
        assert word in str(failed.value)
    return str(failed.value)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that serves a small dataset, and that this process takes for the hub."""
    import huggingface_hub

    from tests.duckling_data.hub_case import point_at, served

    with HubServer(served()) as running:
        point_at(running.endpoint, monkeypatch)
        yield running
    huggingface_hub.close_session()
