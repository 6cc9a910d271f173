"""The script that measures sizes: what it watches is there, and its tables say what follows from the figures."""

from __future__ import annotations

import runpy
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pyarrow.parquet as pq
import pytest

from tests.support import HANG
from tests.support.scale_figures import FULL, Run, Step, grouped, growth, growth_table, overhead_table, plot, tables
from tests.support.watched import Watch, named

SCRIPT = Path(__file__).parents[2] / "scripts" / "scale.py"
MB = 10**6
WORKER = "x=$(head -c 60000000 /dev/zero | tr '\\0' x); read y"
CHILD = """
import subprocess, sys, tempfile
kept = bytearray(b"x") * 60_000_000
unnamed = tempfile.TemporaryFile(dir=sys.argv[1])
for file in (unnamed, open(sys.argv[1] + "/named", "wb")):
    file.write(bytes(4_000_000))
    file.flush()
subprocess.Popen(["ray::_call", "-c", sys.argv[2]], executable="/bin/sh").wait()
"""
"""It works in the folder, and a worker beside it holds memory; both end with their standard input."""


@pytest.fixture(scope="module")
def scale() -> dict[str, Any]:
    before = list(sys.path)
    namespace = runpy.run_path(str(SCRIPT))
    sys.path[:] = before
    return namespace


def test_memory_and_files_without_a_name_are_seen(tmp_path: Path) -> None:
    child = subprocess.Popen([sys.executable, "-c", CHILD, tmp_path, WORKER], stdin=subprocess.PIPE)
    watch = Watch(child.pid, tmp_path)
    try:
        until = time.monotonic() + HANG
        while time.monotonic() < until and not (watch.disk >= 8 * MB and min(watch.memory, watch.worker) >= 60 * MB):
            time.sleep(0.02)
    finally:
        watch.stop()
        child.communicate(timeout=HANG)
    assert min(watch.memory, watch.worker, watch.cluster) >= 60 * MB
    assert 8 * MB <= watch.disk < 9 * MB
    assert 4 * MB <= named(tmp_path) < 5 * MB


def test_sizes_lead_to_tinystories_and_beyond(scale: dict[str, Any]) -> None:
    sizes = scale["sizes"]
    assert sizes(FULL // 256, 10 * FULL) == [8280, 33120, 132480, 529920, FULL, 10 * FULL]
    assert sizes(10_000, FULL) == [10_000, 40_000, 160_000, 640_000, FULL]
    assert sizes(10, 100) == [10, 40, 100]


def test_every_stage_is_measured_once_and_every_way_makes_the_same(
    scale: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--folder", str(tmp_path), "--sizes", "40", "--live", "300"]
    scale["main"]([*given, "--only", "local"])
    scale["main"]([*given, "--only", "local,shards1"])
    assert [line.partition(",")[0] for line in capsys.readouterr().err.splitlines()] == [
        "making 40 stories", "local", "shards1",
    ]  # fmt: skip
    results = scale["Results"](tmp_path / "scale.json")
    local, shards = results.runs
    assert [step.stage for step in local.steps] == ["count", "build-vocab", "pack", "report"]
    assert [step.array for step in shards.steps] == [False, True, False, False, True, False]
    assert all(min(step.seconds, step.memory) > 0 for run in results.runs for step in run.steps)
    files = pq.read_table(tmp_path / "stories-40")["text"].to_pylist()
    assert local.text_bytes == sum(len(story.encode()) for story in files)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["scale.json", "scale.md", "scale.png", "stories-40"]
    with pytest.raises(SystemExit, match="40 stories: ray1 made"):
        results.add(Run("ray1", 40, 1, 1.0, [], local.digests | {"rows": "another"}))
    before = (tmp_path / "scale.md").read_text()
    (tmp_path / "scale.md").unlink()
    scale["main"]([*given, "--draw"])
    assert (tmp_path / "scale.md").read_text() == before


def test_growth_is_of_the_time_above_the_start() -> None:
    sizes = [FULL // 256, FULL // 64, FULL // 16, FULL // 4, FULL, 10 * FULL]
    linear = growth({size: 2 + 5e-6 * size for size in sizes})
    assert linear == pytest.approx((2, 1, 0), abs=1e-6)
    late = growth({size: 2 + 5e-6 * size * (1.2 if size > FULL else 1) for size in sizes})
    assert late is not None
    assert late[::2] == pytest.approx((2, 0.2))
    steep = growth({size: 2 + 5e-6 * size**1.1 for size in sizes})
    assert steep is not None
    assert steep.exponent == pytest.approx(1.1, abs=0.02)
    assert steep.spread > 0.15
    assert growth({1: 1.0, 2: 2.0}) is None


def run(way: str, stories: int, seconds: float, start: float = 0.0) -> Run:
    stages = (("count", True), ("count", True), ("count", False), ("build-vocab", False), ("pack", False))
    steps = [Step(stage, array and way == "shards2", seconds, 10 * MB, 0, 0, MB) for stage, array in stages]
    return Run(way, stories, 100 * stories, start, steps, {})


def test_the_tables_have_each_way_and_ray_beside_local() -> None:
    runs = [run(way, size, 1 + size / 1e6, 7.0 * (way != "local")) for size in (10, 1000, 10**5, 10**6)
            for way in ("local", "shards2")]  # fmt: skip
    runs += [run("ray2", 10**6, seconds, 7.0) for seconds in (2.4, 2.5, 9.0)]
    found = grouped(runs)
    assert overhead_table(found).splitlines()[2:] == [
        "| Ray, 2 nodes | local | 1,000,000 | +2.50 | +25% | 7.0 | +9.50 | +95% |"
    ]
    *rows, ray = growth_table(found).splitlines()[2:]
    assert ray.endswith("cannot be told |")
    assert [row.split(" | ")[0] for row in rows] == ["| local", "| 2 shards in turn"]
    assert all(row.endswith("| 5.00 | 1.000 | 0.0% | yes |") for row in rows)
    lines = tables(runs).splitlines()
    side = next(line for line in lines if line.startswith("| 2 shards side by side | 1,000,000"))
    assert side.split(" | ")[3:8] == ["4.00", "2.00", "2.00", "", "8.00"]  # one of the two tasks of an array
    picture = plot(runs, "a processor")
    assert picture.startswith(b"\x89PNG")
    assert picture == plot(runs, "a processor")
