"""Imports lead from later folders to earlier ones, in no circle; files stay short; duckling_data knows no torch."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from graphlib import TopologicalSorter
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGES = ("duckling_data", "duckling_train")
ORDER = {
    "duckling_data": [
        *("base", "workspace", "rows", "corpus", "tokens", "stages"),
        *("verify", "inspect", "status", "publish", "pipeline", "options", "cli", "__main__"),
    ],
    "duckling_train": [
        *("ids", "config", "settings", "processes", "data", "precision", "optimizers", "model", "gpt2", "plot"),
        *("engines", "recording", "dynamics", "runs", "embedding", "compare", "sweep"),
        *("experiment", "opened", "report", "plots", "template", "options"),
        *("record_commands", "commands", "cli", "__main__"),
    ],
}
"""The folders and files at the top of each package, earlier ones first: an import leads to the same or an earlier one.
A new folder or file of a package's top gets its position here."""
LONGEST = 300
"""Lines of a Python file, at most."""


def sources() -> dict[str, Path]:
    """Every module of the two packages by its name."""
    files = [path for package in PACKAGES for path in sorted((ROOT / package).rglob("*.py"))]
    return {".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path for path in files}


def imported(path: Path, known: dict[str, Path]) -> Iterator[str]:
    """The modules of the two packages that a file imports, also inside its functions."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.module:
            below = [f"{node.module}.{alias.name}" for alias in node.names]
            names = [name if name in known else node.module for name in below]
        else:
            continue
        yield from (name for name in names if name in known)


def position(module: str) -> tuple[int, int]:
    package, *rest = module.split(".")
    return PACKAGES.index(package), ORDER[package].index(rest[0]) if rest else len(ORDER[package])


IMPORTS = {name: set(imported(path, sources())) - {name} for name, path in sources().items()}
LAZY = set(PACKAGES)
"""The packages' own `__init__` files import what they export when it is asked for."""


def test_every_import_leads_to_the_same_or_an_earlier_folder() -> None:
    wrong = [
        f"{module} imports {other}"
        for module, others in IMPORTS.items()
        for other in others
        if module not in LAZY and other not in LAZY and position(other) > position(module)
    ]
    assert wrong == []


def test_no_import_goes_in_a_circle() -> None:
    graph = {module: {other for other in others if other not in LAZY} for module, others in IMPORTS.items()}
    assert list(TopologicalSorter(graph).static_order())  # raises CycleError, which names the circle


@pytest.mark.parametrize("folder", [*PACKAGES, "scripts", "tests"])
def test_no_file_is_too_long(folder: str) -> None:
    lengths = {path: len(path.read_text(encoding="utf-8").splitlines()) for path in (ROOT / folder).rglob("*.py")}
    assert {str(path.relative_to(ROOT)): lines for path, lines in lengths.items() if lines > LONGEST} == {}


def test_duckling_data_never_imports_torch_or_the_trainer() -> None:
    for module, path in sources().items():
        if module.startswith("duckling_data"):
            tree = ast.parse(path.read_text(encoding="utf-8"))
            names = {alias.name for node in ast.walk(tree) if isinstance(node, ast.Import) for alias in node.names}
            names |= {str(node.module) for node in ast.walk(tree) if isinstance(node, ast.ImportFrom)}
            assert not [name for name in names if name.split(".")[0] in ("torch", "duckling_train")], module


def test_what_tests_and_scripts_share_is_in_one_folder() -> None:
    wrong = []
    for path in (path for top in ("tests", "scripts") for path in sorted((ROOT / top).rglob("*.py"))):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.ImportFrom) and node.module:
                wanted = [f"{node.module}.{alias.name}" for alias in node.names]
            else:
                wanted = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
            ours = [name for name in wanted if name.split(".")[0] in ("tests", "scripts")]
            wrong += [
                f"{path.relative_to(ROOT)} imports {name}" for name in ours if not name.startswith("tests.support.")
            ]
    assert wrong == []
