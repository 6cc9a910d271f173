"""Progress is in MB, rows or stories, and reaches its end: whatever reads much says how far it is."""

from __future__ import annotations

import io
import sys
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.files import sha256_file
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.pipeline import Pipeline, Request
from duckling_data.stages.report import draw_report
from duckling_data.verify import VerifyRequest, verify_workspace
from duckling_data.workspace.manifest import Manifest
from duckling_train.config import TrainConfig
from duckling_train.data import open_workspace
from duckling_train.runs.hooks import Progress
from tests.support.data import write_jsonl


@dataclass(frozen=True)
class Recorder(Reporter):
    """Keeps each bar with its unit."""

    quiet: bool = True
    bars: dict[str, tuple[Any, str]] = field(default_factory=dict)

    def bar(self, what: str, total: int, unit: str) -> Any:
        self.bars[what] = Counting(total), unit
        return self.bars[what][0]


class Counting:
    """A bar that counts what it is told."""

    def __init__(self, total: int) -> None:
        self.total, self.done = total, [0]

    def __enter__(self) -> Counting:
        return self

    def __exit__(self, *_error: object) -> None:
        pass

    def update(self, amount: int = 1) -> None:
        self.done.append(amount)


def units(recorder: Recorder) -> dict[str, str]:
    """The unit of each bar. All are at their ends."""
    assert {what: sum(bar.done) for what, (bar, _) in recorder.bars.items()} == {
        what: bar.total for what, (bar, _) in recorder.bars.items()
    }
    return {what: unit for what, (_, unit) in recorder.bars.items()}


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Recorder]:
    folder = tmp_path_factory.mktemp("progress")
    write_jsonl(folder / "s.jsonl", demo_stories(0, 300).to_pylist())
    given = {"sample": 100, "live": 300, "dead": 20, "ctx": 32, "unk": "decompose"}
    request = Request(folder / "w", 2, (str(folder / "s.jsonl"),), validation_share=0.2, settings=given)
    Pipeline(request, recorder := Recorder()).make("pack")
    return folder / "w", recorder


def test_making_shows_bytes_where_files_are_read_and_else_stories(made: tuple[Path, Recorder]) -> None:
    assert units(made[1]) == {
        "hash": "B", "divide": "stories", "count": "stories", "scan": "stories", "pack train": "stories",
        "pack validation": "stories",
    }  # fmt: skip


def test_reporting_shows_the_rows_that_it_counts(made: tuple[Path, Recorder]) -> None:
    draw_report(made[0], Manifest(made[0]), recorder := Recorder())
    found = units(recorder)
    for name in ("tokenized_dataset", "tokenized_validation"):
        assert (found[f"hash {name}"], found[f"count {name}"]) == ("B", "rows")


def test_verifying_shows_all_that_it_reads(made: tuple[Path, Recorder]) -> None:
    list(verify_workspace(VerifyRequest(made[0], 2), recorder := Recorder()))
    found = units(recorder)
    for split in ("train", "validation"):
        assert found[f"verify {split} rows"] == found[f"verify {split} encoders"] == "stories"
        assert found[f"hash {split}"] == "rows"
    assert {found[f"verify {stage}"] for stage in ("count", "build-vocab", "pack")} == {"B"}


def test_opening_rows_to_train_on_shows_rows(made: tuple[Path, Recorder]) -> None:
    config = TrainConfig(n_positions=32, vocab_size=320, n_embd=16)
    open_workspace(made[0], config, recorder := Recorder())
    assert units(recorder) == {"read tokenized_dataset": "rows", "hash tokenized_dataset": "rows"}


def test_a_large_file_moves_its_bar_while_it_is_hashed(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(bytes(3_500_000))
    sha256_file(tmp_path / "file", (bar := Counting(3_500_000)).update)
    assert (sum(bar.done), len(bar.done) > 3) == (bar.total, True)


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


def test_bars_look_alike_in_both_programs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "stderr", Terminal())
    shown = []
    for total, unit in ((40_000_000, "B"), (40_000, "rows")):
        with Reporter().bar("read", total, unit) as bar:
            bar.update(total // 2)
            shown.append(str(bar))
    training = Progress(400, quiet=False)
    training._bar.update(200)
    shown.append(str(training._bar))
    training.close()
    assert ["".join(character for character in line.split("[")[0] if character not in "█# ") for line in shown] == [
        "read50%||20.0M/40.0MB", "read50%||20.0k/40.0krows", "training50%||200/400steps",
    ]  # fmt: skip
    assert [line.rstrip("]").split("/")[-1] for line in shown] == ["s", "s", "s"]
