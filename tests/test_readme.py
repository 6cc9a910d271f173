"""What the README and docs/ name is there: commands, make targets, files, the tree. The CI recipe works."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from click.testing import CliRunner

from duckling_data.cli import cli as data_cli
from duckling_data.corpus.demo import demo_stories
from duckling_train.cli import cli as train_cli
from tests.support.data import write_jsonl

ROOT = Path(__file__).parent.parent
PAGES = [ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md")] + sorted(
    (ROOT / "docs").glob("*.md")
)
CI = (ROOT / "docs" / "ci.md").read_text(encoding="utf-8")
WORKFLOWS = ROOT / ".github" / "workflows"
LONGEST_README = 150


def test_the_readme_is_short() -> None:
    assert len((ROOT / "README.md").read_text(encoding="utf-8").splitlines()) <= LONGEST_README


def test_the_tree_in_the_docs_is_that_of_the_files() -> None:
    checked = subprocess.run([sys.executable, "scripts/tree.py", "--check"], cwd=ROOT, capture_output=True, check=False)
    assert checked.returncode == 0, checked.stderr.decode()


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_relative_link_leads_to_a_file_that_is_there(page: Path) -> None:
    targets = re.findall(r"\]\(([^)#\s]+)", page.read_text(encoding="utf-8"))
    relative = [target for target in targets if "://" not in target]
    assert [target for target in relative if not (page.parent / target).is_file()] == []


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.name)
def test_every_script_and_test_that_is_named_is_there(page: Path) -> None:
    named = re.findall(r"`((?:scripts|tests)/[\w./-]+)", page.read_text(encoding="utf-8"))
    assert [name for name in named if not (ROOT / name).exists()] == []


def test_every_page_is_linked_from_the_readme() -> None:
    links = re.findall(r"\]\((docs/[\w.]+\.md)\)", (ROOT / "README.md").read_text(encoding="utf-8"))
    assert sorted(set(links)) == sorted(f"docs/{page.name}" for page in PAGES if page.parent.name == "docs")


def test_the_make_targets_that_are_named_exist_and_make_help_lists_each() -> None:
    makefile = (ROOT / "Makefile").read_text()
    named = {
        target for page in PAGES for target in re.findall(r"(?:^    |`)make (\w+)", page.read_text(), re.MULTILINE)
    }
    assert {"demo", "test", "check", "setup"} <= named
    targets = set(re.findall(r"^(\w+):", makefile, flags=re.MULTILINE))
    assert named <= targets
    listed = subprocess.run(["make"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert set(re.findall(r"^make (\w+) ", listed, flags=re.MULTILINE)) == targets


def test_the_commands_that_are_named_exist_with_their_options() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES if page.name != "CHANGELOG.md")
    inline = re.findall(r"`(duckling-(?:data|train)[^`]*)`", text)
    lines = re.findall(r"^    (?:\.venv/bin/)?(duckling-(?:data|train).*?)(?:  +#.*)?$", text, flags=re.MULTILINE)
    assert len(inline) > 20
    assert len(lines) > 5
    for command in sorted({*inline, *lines}):
        program, *arguments = shlex.split(command)
        group = {"duckling-data": data_cli, "duckling-train": train_cli}[program]
        assert CliRunner().invoke(group, [*arguments, "--help"]).exit_code == 0, command


def test_the_names_that_are_imported_are_exported() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    imports = re.findall(r"^from duckling_(?:data|train) import [\w, ]+", text, flags=re.MULTILINE)
    assert len(imports) > 3
    exec("\n".join(imports), {})


def test_ray_takes_the_cluster_of_the_docs_and_kuberay_is_given_a_command() -> None:
    from ray.autoscaler._private.util import prepare_config, validate_config

    page = (ROOT / "docs" / "cluster.md").read_text(encoding="utf-8")
    up, job = (yaml.safe_load(block) for block in re.findall(r"```yaml\n(.*?)```", page, flags=re.DOTALL))
    validate_config(prepare_config(up))
    program, *arguments = shlex.split(job["spec"]["entrypoint"])
    assert program == "duckling-data"
    assert CliRunner().invoke(data_cli, [*arguments, "--help"]).exit_code == 0
    assert job["spec"]["rayClusterSpec"]["rayVersion"].startswith("2.60.")


def test_the_ci_recipe_passes_on_artifacts_that_come_out_the_same_and_fails_on_others(tmp_path: Path) -> None:
    workflow = yaml.safe_load(CI.split("```yaml\n")[1].split("```")[0])
    steps = [step["run"] for step in workflow["jobs"]["artifacts"]["steps"] if "run" in step]
    commands = [step for step in steps if not step.startswith("pip ")]
    assert [command.split(" ")[1] for command in commands] == ["pack", "verify", "artifacts"]
    once = re.search(r"^    (duckling-data verify .*--write-golden.*)$", CI, flags=re.MULTILINE)
    assert once
    stories = demo_stories(0, 3000).to_pylist()
    write_jsonl(_folder(tmp_path / "stories") / "a.jsonl", stories)
    assert [_shell(command, tmp_path) for command in (commands[0], once[1], *commands)] == [0] * 5
    write_jsonl(tmp_path / "stories" / "a.jsonl", stories[:-1])
    assert [_shell(command, tmp_path) for command in commands] == [0, 1, 0]


def test_the_artifacts_workflow_runs_on_each_system_and_python_with_the_programs_own_commands() -> None:
    workflow = yaml.safe_load((WORKFLOWS / "artifacts.yml").read_text())
    job = workflow["jobs"]["golden"]
    assert job["strategy"]["matrix"]["python"] == ["3.11", "3.12", "3.13", "3.14"]
    assert {system.split("-")[0] for system in job["strategy"]["matrix"]["os"]} == {"ubuntu", "macos"}
    commands = [step["run"] for step in job["steps"] if step.get("run", "").startswith("duckling-data")]
    assert len(commands) == 2
    assert all(_shell(f"{command} --help", ROOT) == 0 for command in commands)


def test_the_check_workflow_runs_the_checks_and_the_tests_on_the_oldest_python_and_the_newest() -> None:
    job = yaml.safe_load((WORKFLOWS / "check.yml").read_text())["jobs"]["check"]
    newest = yaml.safe_load((WORKFLOWS / "artifacts.yml").read_text())["jobs"]["golden"]["strategy"]["matrix"][
        "python"
    ][-1]
    assert job["strategy"]["matrix"]["python"] == ["3.11", newest]
    assert [step["run"] for step in job["steps"] if "run" in step][-2:] == ["make check", "make test"]


def test_the_hooks_before_a_commit_are_the_tools_of_make_check() -> None:
    (local,) = yaml.safe_load((ROOT / ".pre-commit-config.yaml").read_text())["repos"]
    recipe = (ROOT / "Makefile").read_text().split("\ncheck:")[1].split("\n\n")[0]
    tools = re.findall(r"\$\(BIN\)/(\w+(?: \w+)?)", recipe)
    assert [re.sub(r" --.*", "", hook["entry"]) for hook in local["hooks"]] == [f".venv/bin/{tool}" for tool in tools]


def _folder(place: Path) -> Path:
    place.mkdir()
    return place


def _shell(command: str, folder: Path) -> int:
    path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
    return subprocess.run(command, shell=True, cwd=folder, env=os.environ | {"PATH": path}, check=False).returncode
