"""The page of a run: what it holds, escaped, the same bytes each time; and the command that writes it."""

from __future__ import annotations

import base64
import hashlib
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_train import open_run
from duckling_train.report import page as pages
from duckling_train.report.blocks import Block, packed
from duckling_train.report.curves import CURVES, POINTS, thinned
from duckling_train.report.gather import Shown, gather
from duckling_train.runs.verify import verify_run
from tests.support.train import status_of

UPLOT = Path(pages.__file__).parent / "uplot"


@pytest.fixture(scope="module")
def shown(recorded: Path) -> Shown:
    return gather(open_run(recorded))


def element(content: str, name: str) -> str:
    found = re.search(rf'<script type="[a-z/]+" id="{name}">(.*?)</script>', content, re.DOTALL)
    assert found is not None
    return found[1]


def about(content: str) -> dict[str, Any]:
    return dict(json.loads(element(content, "about")))


def values(content: str, place: list[Any]) -> Any:
    kind, at, count = place
    return np.frombuffer(base64.b64decode(element(content, "data")), f"<{kind}", count, at)


def test_equal_runs_give_equal_bytes_without_a_path(recorded: Path, tmp_path: Path) -> None:
    other = tmp_path / "all"
    shutil.copytree(recorded, other)
    contents = []
    for run in (recorded, recorded, other):
        assert status_of("report", run, "-w", recorded.parent.parent, "-q") == 0
        contents.append((run / "report.html").read_bytes())
    assert contents[0] == contents[1] == contents[2]
    assert str(recorded.parent).encode() not in contents[0]
    assert list(verify_run(recorded, recorded.parent.parent))  # the page is no damage


def test_the_curves_are_the_measured_columns(shown: Shown) -> None:
    content = pages.page([shown]).decode()
    curves = about(content)["curves"]
    assert shown.steps is not None
    assert set(curves) == {plot.name for plot in CURVES} - {"auroc-64", "precision-64"}
    (coherence, _) = curves["coherence"]["series"]
    assert values(content, coherence["x"]).tolist() == [*range(1, 25)]  # not defined at step 0
    assert np.array_equal(values(content, coherence["y"]), shown.steps["coherence"][1:].astype(np.float32))
    (loss,) = curves["loss"]["series"]
    assert values(content, loss["y"]).tolist() == np.float32(shown.run.losses).tolist()


def test_points_are_coded_to_half_a_step_of_their_scale(shown: Shown) -> None:
    content = pages.page([shown]).decode()
    cloud = about(content)["cloud"]
    assert shown.cloud is not None
    for name, expected, live in (("pca", shown.cloud.pca, shown.cloud.live),
                                 ("tracer", shown.cloud.tracer, shown.cloud.live_tracer)):  # fmt: skip
        view = cloud["views"][name]
        for part, points in (("points", expected), ("live", live)):
            assert points is not None
            read = values(content, view[part]).reshape(points.shape) * view["scale"] + view["offset"]
            assert np.abs(read - points).max() <= view["scale"] * 0.501


def test_packed_regimes_are_read_as_the_script_reads_them() -> None:
    regimes = np.array([[0, 1, 2, 3, 3], [3, 2, 1, 0, 1]], np.uint8)
    bytes_ = packed(regimes)
    assert [[bytes_[row, c >> 2] >> (2 * (c & 3)) & 3 for c in range(5)] for row in range(2)] == regimes.tolist()


def test_arrays_begin_where_their_types_may() -> None:
    block = Block()
    places = [block.add(np.arange(3), "u1"), block.add(np.arange(3), "i2"), block.add(np.arange(2), "f4")]
    assert places == [("u1", 0, 3), ("i2", 4, 3), ("f4", 12, 2)]
    assert np.frombuffer(block.bytes(), "<f4", 2, 12).tolist() == [0, 1]


def test_a_long_curve_is_thinned_and_keeps_its_ends() -> None:
    x, y = thinned(np.arange(10_001), np.arange(10_001) / 2)
    assert (len(x), x[0], x[-1]) == (POINTS, 0, 10_000)
    assert (y == x / 2).all()
    assert set(np.diff(x)) == {5, 6}


def test_tokens_and_names_are_text_whatever_they_hold(shown: Shown) -> None:
    bad = "</script><script>alert(1)</script><!--"
    run = replace(shown.run, name=f"a{bad}b&c")
    content = pages.page([replace(shown, run=run, tokens=[bad, *shown.tokens[1:]])]).decode()
    assert "<script>alert" not in content
    assert "<!--" not in content
    assert about(content)["tokens"][0] == bad
    assert about(content)["runs"] == [run.name]
    assert "a&lt;/script&gt;" in content


def test_only_scripts_that_the_policy_names_by_their_hash_run(shown: Shown) -> None:
    content = pages.page([shown]).decode()
    policy = re.search(r'http-equiv="Content-Security-Policy" content="([^"]*)"', content)
    assert policy is not None
    named = re.findall(r"sha256-[^']*", policy[1].replace("&#39;", "'"))
    scripts = re.findall(r"<script>(.*?)</script>", content, re.DOTALL)
    digests = [base64.b64encode(hashlib.sha256(script.encode()).digest()).decode() for script in scripts]
    assert named == [f"sha256-{digest}" for digest in digests]
    assert "default-src 'none'" in policy[1].replace("&#39;", "'")
    assert "unsafe-eval" not in content
    assert not re.search(r'(src|href)="(?!#)', content)


def test_the_vendored_library_is_the_published_one() -> None:
    listed = dict(line.split("  ")[::-1] for line in (UPLOT / "SHA256SUMS").read_text().splitlines())
    assert listed == {
        "LICENSE": "8f989229699b4fe2f1a0432d0e9edc338a8a911e250e2d1b01ecd770a5f5b1bd",
        "uPlot.iife.min.js": "19c8d4c6ad88929a79f4ae49d6f7161566dfd0ba3d15cc495e974f787eb78f1f",
        "uPlot.min.css": "df630c6a8d6f8eeaff264b50f73ce5b114f646ffd9a0bb74f049b0a00135fa04",
    }
    assert {name: hashlib.sha256((UPLOT / name).read_bytes()).hexdigest() for name in listed} == listed
    assert "MIT" in (UPLOT / "LICENSE").read_text()


def test_a_run_without_a_record_has_a_report_of_what_it_has(bare: Path) -> None:
    content = pages.report([open_run(bare)]).decode()
    found = about(content)
    assert {"loss", "centroid", "radius", "velocity", "coherence", "start", "mass"} <= set(found["curves"])
    assert not {"survival", "spectrum"} & set(found["curves"])
    assert "cloud" not in found
    assert "motion" not in found
    assert "distance" in found
    assert "bare was trained without --record. With --record dead, and duckling-train measure" in content
    assert 'id="cloud"' not in content


def test_several_runs_share_curves_and_what_differs_is_a_table(recorded: Path, bare: Path, tmp_path: Path,
                                                               monkeypatch: pytest.MonkeyPatch) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    assert status_of("report", bare, recorded, "-w", recorded.parent.parent) == 0
    content = (tmp_path / "report.html").read_text()
    found = about(content)
    assert found["runs"] == ["bare", "all"]
    assert [series["run"] for series in found["curves"]["loss"]["series"]] == [0, 1]
    assert "What differs" in content
    assert "<td>0.0005</td>" in content
    assert "cloud" in found  # of the first that has one
    assert "all: Of 64 dead rows" in content
    assert "Of all alone." in content


def test_the_page_is_opened_in_the_users_browser(
    recorded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    program, seen = tmp_path / "browser", tmp_path / "seen"
    program.write_text(f'#!/bin/sh\nprintf %s "$1" > {seen}\n')
    program.chmod(0o755)
    monkeypatch.setattr("webbrowser._tryorder", None)  # it reads BROWSER when first used
    monkeypatch.setenv("BROWSER", f"{program} %s")
    out = tmp_path / "page.html"
    assert status_of("report", recorded, "--out", out, "--open") == 0
    assert seen.read_text() == out.as_uri()
    assert f"{out}: open it in a browser" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("out", "said"), [("page.png", "its name must end in .html"), ("none/page.html", "cannot be written")]
)
def test_a_page_that_cannot_be_is_refused_before_anything_is_read(
    recorded: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], out: str, said: str
) -> None:
    assert status_of("report", recorded, "--out", tmp_path / out) == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert said in line


def test_what_is_not_measured_or_recorded_is_said(shown: Shown) -> None:
    content = pages.page([replace(shown, steps=None, rows=None)]).decode()
    assert "all is not measured: duckling-train measure adds the curves of its record." in content
    assert "survival" not in about(content)["curves"]
    assert "cloud" in about(content)
    assert shown.cloud is not None
    none = np.empty(0, np.int64)
    dead_alone = replace(shown.cloud, live=None, live_tracer=None, live_ids=none, live_steps=none)
    settings = shown.run.settings | {"record": "dead", "record_tensors": "W,h_mean"}
    content = pages.page([replace(shown, cloud=dead_alone, run=replace(shown.run, settings=settings))]).decode()
    assert "all recorded a part of W: --record all adds live rows" in content
    assert "all recorded W without grad, exp_avg_sq, p_dead: --record-tensors" in content
    assert "adds gradients (grad), second moments (exp_avg_sq), dead mass at every step (p_dead)." in content


def test_a_canvas_is_there_for_all_that_the_script_draws_whatever_curves_there_are(shown: Shown) -> None:
    old = replace(shown, run=replace(shown.run, dynamics=[], steps=[], losses=[]), steps=None, rows=None)
    content = pages.page([old]).decode()
    assert about(content)["curves"] == {}
    for name in ("cloud", "motion", "distance"):
        assert name in about(content)
        assert f'<canvas id="{name}"' in content


def test_how_well_indicators_find_dead_rows_is_drawn_for_each_number_of_ids_that_was_measured(shown: Shown) -> None:
    assert shown.steps is not None
    content = pages.page([shown]).decode()
    curves = about(content)["curves"]
    assert {"indicators", "distances", "auroc-1", "auroc-8", "precision-1", "precision-8"} <= set(curves)
    assert "auroc-64" not in curves  # of 64 dead rows none would be left to find: the norm alone has no plot
    distance = curves["auroc-8"]["columns"].index("distance")
    (place,) = [each["y"] for each in curves["auroc-8"]["series"] if each["column"] == distance]
    expected = shown.steps["auroc_distance_8"]
    assert np.array_equal(values(content, place), expected[np.isfinite(expected)].astype(np.float32))
