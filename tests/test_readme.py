"""The README's tree names every file, and its commands exist."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_tree_names_every_file_of_the_packages_and_the_scripts() -> None:
    tree = README.split("## The tree")[1]
    named: set[str] = set()
    folder = ""
    for line in tree.splitlines():
        if found := re.match(r"    (\w+)/", line):
            folder = found[1]
        elif found := re.match(r"      (\S+)", line):
            named.add(f"{folder}/{found[1]}")
    quiet = {"__init__.py", "__main__.py", "py.typed"}
    there = {
        path.relative_to(ROOT).as_posix()
        for package in ("duckling_data", "duckling_train", "scripts")
        for path in (ROOT / package).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    unnamed = {name for name in there - named if Path(name).name not in quiet}
    assert unnamed == set()
    assert {name for name in named if not name.startswith("tests/") and not (ROOT / name).exists()} == set()


def test_the_make_targets_of_the_readme_exist() -> None:
    makefile = (ROOT / "Makefile").read_text()
    targets = re.findall(r"(?:^    |`)make (\w+)", README, flags=re.MULTILINE)
    assert {"demo", "test"} <= set(targets)
    for target in targets:
        assert re.search(rf"^{target}:", makefile, flags=re.MULTILINE), target
