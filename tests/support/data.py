"""Small corpora and workspaces, made, compared and verified by the tests of duckling_data."""

from __future__ import annotations

import hashlib
import json
import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.base.errors import CheckFailed
from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from duckling_data.rows.read import read_rows
from duckling_data.verify import VerifyRequest, verify_workspace
from duckling_data.workspace.manifest import Manifest

SMALL = ("--sample", "all", "--live", "300", "--dead", "20", "--ctx", "32")
"""Options that fit the small corpus below."""


@dataclass(frozen=True)
class Result:
    """How a command ended."""

    exit_code: int
    stdout: str
    stderr: str


Cli = Callable[..., Result]


def stages_that(verb: str, result: Result) -> list[str]:
    """The stages of which the command said `made`, `would make` or `up to date`."""
    assert result.exit_code == 0, result.stderr
    return re.findall(rf"^(\S+) +{verb}\b", result.stderr, flags=re.MULTILINE)


def write_jsonl(path: Path, texts: list[str]) -> None:
    path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts), encoding="utf-8")


def snapshot(folder: Path) -> dict[str, str]:
    """The SHA-256 of every file below a folder."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): hashlib.sha256(path.read_bytes()).hexdigest() for path in files}


def build(
    workspace: Path, *sources: object, workers: int = 2, mapping: Path | None = None, tokenizer: Path | None = None,
    **given: Any,
) -> Manifest:  # fmt: skip
    """Bring a workspace's rows up to date, in this process; the settings by field name."""
    base = None if tokenizer is None else str(tokenizer)
    request = Request(workspace, workers, tuple(map(str, sources)), mapping=mapping, tokenizer=base, settings=given)
    return Pipeline(request, Reporter(quiet=True)).make("pack")


def rows_of(workspace: Path, name: str = "tokenized_dataset") -> np.ndarray:
    return np.concatenate(read_rows(workspace / name))


def read_json(path: Path) -> Any:
    return json.loads(path.read_bytes())


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
