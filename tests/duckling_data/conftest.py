"""Small corpora and the command line, for the tests of duckling_data."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.gpt2_files import gpt2_folder
from duckling_data.cli import main
from duckling_data.corpus.demo import demo_stories
from duckling_data.workspace.manifest import Manifest
from tests.support import reference_pipeline as reference
from tests.support.data import Cli, Result, build, write_jsonl
from tests.support.hub.server import HubServer


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


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[HubServer]:
    """A hub that serves a small dataset, and that this process takes for the hub."""
    import huggingface_hub

    from tests.support.hub.case import point_at, served

    with HubServer(served()) as running:
        point_at(running.endpoint, monkeypatch)
        yield running
    huggingface_hub.close_session()
