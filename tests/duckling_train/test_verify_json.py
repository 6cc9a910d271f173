"""`duckling-train verify --json` is one JSON object, of a whole run and of a damaged one."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import CheckFailed
from duckling_train.cli import main
from duckling_train.runs.verify import verify_run
from tests.support.train import Ran


def test_json_has_what_the_lines_say_and_each_fault(
    run: Ran, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run_dir = Path(shutil.copytree(run.run_dir, tmp_path / "run"))

    def verified(status: int) -> dict[str, Any]:
        with pytest.raises(SystemExit) as stop:
            main(["verify", str(run_dir), "--json"])
        assert stop.value.code == status
        shown: dict[str, Any] = json.loads(capsys.readouterr().out)
        return shown

    whole = verified(0)
    assert (whole["ok"], whole["faults"]) == (True, [])
    assert [f"{check['name']:<12} {check['found']}" for check in whole["checks"]] == list(verify_run(run_dir, run_dir))
    (run_dir / "samples.txt").write_text("other")
    with pytest.raises(CheckFailed) as found:
        list(verify_run(run_dir, run_dir))
    damaged = verified(1)
    assert (damaged["ok"], damaged["checks"]) == (False, [])
    assert damaged["faults"] == [str(found.value)]
