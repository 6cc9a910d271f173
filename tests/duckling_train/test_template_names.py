"""The template in a workspace of any size: its text and its cells fit, and the original's examples run as pasted."""

from __future__ import annotations

import ast
import contextlib
import json
import re
from pathlib import Path
from typing import Any

import matplotlib as mpl
import matplotlib.pyplot as plt
import pytest
import torch

from duckling_train.template import write_template
from tests.support import seed_cells
from tests.support.train import with_validation

STEPS = 8
FAST = {"device": "cpu", "precision": "fp32", "threads": 1}
EXAMPLES = (seed_cells.BASIC_RUN, "Record W snapshots during training", "Extract dead token embeddings")


def cells_of(notebook: Path, kind: str) -> dict[str, str]:
    cells = json.loads(notebook.read_bytes())["cells"]
    return {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == kind}


def written(workspace: Path, folder: Path) -> Path:
    notebook = folder / "mine.ipynb"
    assert write_template(notebook, workspace) is None, "nothing is missing"
    return notebook


def run_cells(notebook: Path, *names: str) -> dict[str, Any]:
    """Run these code cells, all without any, as in a notebook of few steps. Returns the names afterwards."""
    mpl.use("Agg")
    space: dict[str, Any] = {}
    for name, code in cells_of(notebook, "code").items():
        if not names or name in names:
            if name == "parameters":
                code = re.sub("^STEPS = .*$", f"STEPS = {STEPS}", code, flags=re.MULTILINE) + f"\nSETTINGS |= {FAST}"
            with contextlib.chdir(notebook.parent):
                exec(compile(code, name, "exec"), space)
    return space


@pytest.fixture
def tiny(tiny_workspace: Path, tmp_path: Path) -> Path:
    return with_validation(tiny_workspace, tmp_path / "w")


def test_the_template_of_a_workspace_of_other_sizes_runs_and_tells_them(
    tiny: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    notebook = written(tiny, tmp_path)
    plt.close("all")
    run_cells(notebook)
    told_apart([plt.figure(number) for number in plt.get_fignums()[1:]])
    plt.close("all")
    assert re.search(r"^dead +0\.\d+", capsys.readouterr().out, flags=re.MULTILINE)
    text = "\n".join(cells_of(notebook, "markdown").values())
    for number in ("8,192", "8192", "6,144", "2,048", "1,510,912", "1,024 tokens"):
        assert number not in text
    assert "| vocabulary | 512 rows: 448 live, 64 dead |" in text
    assert "| context length | 64 tokens |" in text


def told_apart(figures: list[Any]) -> None:
    """Each figure's lines of live and of dead rows differ in colour and in dash or marker, for who sees no colours.

    The figures are how far each row moved, the record, which is of dead rows alone, and how far the rows moved.
    """
    distance, record, moved = figures
    assert [axes.get_title() or axes.get_xlabel() for axes in record.axes] == [
        "first principal component (units of W)", "optimizer step", "optimizer step"
    ]  # fmt: skip
    for figure, count in ((distance, 2), (moved, 4)):
        lines = {line.get_label(): line for line in figure.axes[0].lines if "rows" in line.get_label()}
        legend = figure.axes[0].get_legend()
        told = [text.get_text() for text in (legend.get_texts() if legend else figure.axes[0].texts)]
        assert len(lines) == count
        assert all(any(label in text for text in told) for label in lines)
        assert {label[:9] for label in lines} == {"live rows", "dead rows"}
        for look in (lambda line: line.get_color(), lambda line: (line.get_linestyle(), line.get_marker())):
            assert len({look(line) for line in lines.values()}) == len(lines)


def names_made(code: str) -> set[str]:
    """What a cell makes at its top: imports, classes, functions and assigned names."""
    made: set[str] = set()
    for node in ast.parse(code).body:
        if isinstance(node, ast.Import | ast.ImportFrom):
            made |= {alias.asname or alias.name for alias in node.names}
        elif isinstance(node, ast.ClassDef | ast.FunctionDef):
            made.add(node.name)
        elif isinstance(node, ast.Assign | ast.If):
            made |= {
                part.id for part in ast.walk(node) if isinstance(part, ast.Name) and isinstance(part.ctx, ast.Store)
            }
    return made


def test_every_name_of_the_original_is_there_after_the_cell_of_names(tiny: Path, tmp_path: Path) -> None:
    expected = set.union(*map(names_made, seed_cells.code_cells()))
    assert {"VOCAB_SIZE", "LIVE_TOKENS", "BATCH_SIZE", "device", "plt", "W", "LossTracker"} <= expected
    space = run_cells(written(tiny, tmp_path), "parameters", "open", "names")
    assert expected - {"p"} <= set(space)  # of a comprehension
    assert (space["VOCAB_SIZE"], space["LIVE_TOKENS"], space["N_POSITIONS"]) == (512, 448, 64)
    assert (Path(space["DATASET_PATH"]).is_absolute(), Path(space["DATASET_PATH"]).is_dir()) == (True, True)


def test_the_originals_examples_run_as_pasted_and_are_bitwise_its_own(workspace: Path, tmp_path: Path) -> None:
    """On Duckling II's sizes: every constant is the original's."""
    seed = seed_cells.run_all_cells(workspace, seed_cells.FP32)
    ours = run_cells(written(workspace, tmp_path), "parameters", "open", "names")
    constants = {name for name in seed if name.isupper() and len(name) > 1 and "PATH" not in name}
    assert len(constants) >= 13
    assert {name: ours[name] for name in constants} == {name: seed[name] for name in constants}
    for space in (seed, ours):
        for name in EXAMPLES:
            code = seed_cells.example(name)
            with contextlib.chdir(tmp_path):
                exec(code.replace("NUM_STEPS = 10_000", f"NUM_STEPS = {STEPS}"), space)
    assert ours["tracker"].losses == seed["tracker"].losses
    assert ours["NUM_STEPS"] == STEPS
    assert torch.equal(ours["W_dead"], seed["W_dead"])
