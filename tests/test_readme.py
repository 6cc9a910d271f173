"""The tree in docs/ is that of the files, and the README's commands exist."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import yaml

from duckling_data.corpus.demo import demo_stories
from tests.duckling_data.conftest import write_jsonl

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_in_the_docs_is_that_of_the_files() -> None:
    checked = subprocess.run([sys.executable, "scripts/tree.py", "--check"], cwd=ROOT, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target


def test_the_ci_recipe_passes_on_artifacts_that_come_out_the_same_and_fails_on_others(tmp_path: Path) -> None:
    workflow = yaml.safe_load(README.split("```yaml\n")[1].split("```")[0])
    steps = [step["run"] for step in workflow["jobs"]["artifacts"]["steps"] if "run" in step]
    commands = [step for step in steps if not step.startswith("pip ")]
    assert [command.split(" ")[1] for command in commands] == ["pack", "verify", "artifacts"]
    once = re.search(r"^    (duckling-data verify .*--write-golden.*)$", README, flags=re.MULTILINE)
    assert once
    stories = demo_stories(0, 3000).to_pylist()
    write_jsonl(_folder(tmp_path / "stories") / "a.jsonl", stories)
    assert [_shell(command, tmp_path) for command in (commands[0], once[1], *commands)] == [0] * 5
    write_jsonl(tmp_path / "stories" / "a.jsonl", stories[:-1])
    assert [_shell(command, tmp_path) for command in commands] == [0, 1, 0]


def test_the_workflow_s_commands_are_those_of_the_programs() -> None:
    workflow = yaml.safe_load((ROOT / ".github" / "workflows" / "artifacts.yml").read_text())
    job = workflow["jobs"]["golden"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {system.split("-")[0] for system in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos"}
    commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("duckling-data")]
    assert len(commands) == 2
    assert all(_shell(f"{command} --help", ROOT) == 0 for command in commands)


def _folder(place: Path) -> Path:
    place.mkdir()
    return place


def _shell(command: str, folder: Path) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, check=False).returncode
