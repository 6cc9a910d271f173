"""The laws of the template: the same bytes always, never over another file, and a notebook that runs as it is."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import nbformat
import pytest
from jupyter_client.kernelspec import KernelSpecManager
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient

import duckling_train
from duckling_data.base.errors import InputError
from duckling_train.template import notebook_bytes, seen_from, write_template
from tests.support import HANG
from tests.support.train import command

TEMPLATE = Path(duckling_train.__file__).parent / "templates" / "experiment.ipynb"
STEPS = 8
PLOTS = {"loss", "distance", "record", "moved"}


def parameters(notebook: Any) -> Any:
    (cell,) = (cell for cell in notebook.cells if "parameters" in cell.metadata.get("tags", []))
    return cell


def assigned(source: str, name: str) -> Any:
    """Return the value of `name = literal` in a cell."""
    (value,) = (node.value for node in ast.parse(source).body if isinstance(node, ast.Assign)
                and isinstance(node.targets[0], ast.Name) and node.targets[0].id == name)  # fmt: skip
    return ast.literal_eval(value)


def test_the_written_notebook_is_the_template_byte_for_byte(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    write_template(Path("mine.ipynb"), Path("artifacts"))
    assert Path("mine.ipynb").read_bytes() == TEMPLATE.read_bytes()
    assert [path.name for path in tmp_path.iterdir()] == ["mine.ipynb"]


def test_the_template_is_a_valid_notebook_as_nbformat_writes_it_and_empty_of_results() -> None:
    text = TEMPLATE.read_text(encoding="utf-8")
    notebook = nbformat.reads(text, as_version=nbformat.NO_CONVERT)
    nbformat.validate(notebook)
    assert (notebook.nbformat, notebook.nbformat_minor) == (4, 5)
    assert nbformat.writes(notebook) + "\n" == text
    assert all(re.fullmatch("[a-z-]+", cell.id) for cell in notebook.cells)
    assert all(
        cell.outputs == [] and cell.execution_count is None for cell in notebook.cells if cell.cell_type == "code"
    )
    assert list(assigned(parameters(notebook).source, "SETTINGS")) == []
    first_code = next(cell for cell in notebook.cells if cell.cell_type == "code")
    assert first_code is parameters(notebook)


@pytest.mark.parametrize("workspace", ["artifacts/demo", "/data/a b", "Äpfel \"x\" 'y' \\n 🦆", "tab\there"])
def test_any_workspace_comes_out_as_it_went_in(workspace: str) -> None:
    notebook = nbformat.reads(notebook_bytes(workspace).decode(), as_version=4)
    assert assigned(parameters(notebook).source, "WORKSPACE") == workspace


def test_a_workspace_that_is_not_unicode_is_refused() -> None:
    with pytest.raises(InputError, match="is not Unicode"):
        notebook_bytes("\udcff")


def test_a_workspace_without_rows_is_told_and_the_notebook_written(tmp_path: Path) -> None:
    lacks = write_template(tmp_path / "mine.ipynb", tmp_path / "none")
    assert lacks == f"no tokenized_dataset in {tmp_path / 'none'}: run duckling-data pack"
    assert (tmp_path / "mine.ipynb").exists()


def test_a_relative_workspace_is_relative_to_the_notebook(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "notebooks").mkdir()
    assert seen_from(Path(), Path("artifacts/demo")) == "artifacts/demo"
    assert seen_from(Path("notebooks"), Path("artifacts/demo")) == "../artifacts/demo"
    assert seen_from(tmp_path / "notebooks", Path("notebooks/own")) == "own"
    assert seen_from(Path("notebooks"), Path("/data/artifacts")) == "/data/artifacts"


@pytest.mark.parametrize(
    ("name", "complaint"),
    [
        ("experiment.py", "does not end with .ipynb"),
        ("experiment", "does not end with .ipynb"),
        ("missing/experiment.ipynb", "is not a folder: make it first"),
        ("file.txt/experiment.ipynb", "is not a folder: make it first"),
        ("folder.ipynb", "is a folder: give the notebook another name"),
        ("there.ipynb", "exists: give the notebook another name, or --overwrite"),
    ],
)
def test_a_bad_place_is_refused_and_left_as_it_is(tmp_path: Path, name: str, complaint: str) -> None:
    (tmp_path / "folder.ipynb").mkdir()
    for existing in ("file.txt", "there.ipynb"):
        (tmp_path / existing).write_text("mine")
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(InputError) as caught:
        write_template(tmp_path / name, Path("artifacts"))
    assert complaint in str(caught.value)
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.ipynb").read_text() == "mine"


def test_overwrite_replaces_a_file_and_not_a_folder(tmp_path: Path) -> None:
    (tmp_path / "there.ipynb").write_text("mine")
    write_template(tmp_path / "there.ipynb", Path("/data"), overwrite=True)
    assert (tmp_path / "there.ipynb").read_bytes() == notebook_bytes("/data")
    (tmp_path / "folder.ipynb").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        write_template(tmp_path / "folder.ipynb", Path("/data"), overwrite=True)


def test_writing_needs_neither_jupyter_nor_torch(tmp_path: Path) -> None:
    script = """if True:
        import sys
        sys.modules.update(dict.fromkeys(["IPython", "ipykernel", "nbformat", "nbclient", "torch", "transformers"]))
        from duckling_train.cli import main
        main(["template", "mine.ipynb", "-w", "/data"])
    """
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=tmp_path, check=False)
    lacks = "the notebook does not run yet: no tokenized_dataset in /data: run duckling-data pack\n"
    assert (done.returncode, done.stderr) == (0, f"duckling-train: {lacks}")
    assert done.stdout.startswith("mine.ipynb: ")
    assert (tmp_path / "mine.ipynb").read_bytes() == notebook_bytes("/data")


def test_the_command_refuses_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "mine.ipynb").write_text("mine")
    done = subprocess.run(command("template", "mine.ipynb"), capture_output=True, text=True, cwd=tmp_path, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr == "duckling-train: mine.ipynb exists: give the notebook another name, or --overwrite\n"


def execute(notebook: Any, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Run every cell in place, in a kernel of this interpreter, whatever kernels are installed."""
    import matplotlib.font_manager  # noqa: F401  # makes the font cache, of which a first plot would speak

    monkeypatch.setenv("OMP_NUM_THREADS", "1")  # no bits are compared, and two threads beside another test are slower
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.delenv("MPLBACKEND", raising=False)
    kernel = AsyncKernelManager(kernel_spec_manager=KernelSpecManager(kernel_dirs=[]))
    NotebookClient(notebook, km=kernel, timeout=HANG, resources={"metadata": {"path": str(folder)}}).execute()


def test_the_notebook_runs_from_top_to_bottom(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pack = "from duckling_data.cli import main; main()"
    subprocess.run(
        [sys.executable, "-c", pack, "pack", "-w", "demo", "--source", "demo:2000", "--quiet"], cwd=tmp_path, check=True
    )
    subprocess.run(command("template", "mine.ipynb", "-w", "demo", "--quiet"), cwd=tmp_path, check=True)
    notebook = nbformat.read(tmp_path / "mine.ipynb", as_version=4)
    cell = parameters(notebook)
    cell.source, changed = re.subn("^STEPS = .*$", f"STEPS = {STEPS}", cell.source, flags=re.MULTILINE)
    assert changed == 1
    cell.source += '\nSETTINGS |= {"device": "cpu", "precision": "fp32"}'
    execute(notebook, tmp_path, monkeypatch)  # raises where a cell does

    cells = {cell.id: cell for cell in notebook.cells if cell.cell_type == "code"}
    outputs = [output for cell in cells.values() for output in cell.outputs]
    assert [output.text for output in outputs if output.get("name") == "stderr"] == []
    assert {
        name for name, cell in cells.items() if any("image/png" in o.get("data", {}) for o in cell.outputs)
    } == PLOTS
    losses = [float(loss) for loss in re.findall(r"loss (\d+\.\d+)", said(cells["training"]))]
    assert len(losses) == STEPS
    assert losses[-1] < losses[0]
    figures = {name: [float(number) for number in line.split()]
               for name, line in re.findall(r"^(live|dead)(.*)$", said(cells["dead"]), flags=re.MULTILINE)}  # fmt: skip
    distance, drift, coherence = figures["dead"]
    assert 0 < drift <= distance
    assert 0.9 < coherence <= 1  # law 15: 0.871 after one step, 0.99 after five
    assert figures["live"][2] < coherence


def said(cell: Any) -> str:
    """Return what a cell printed."""
    return "".join(output.text for output in cell.outputs if output.output_type == "stream")
