"""The public names of both packages: each is there, costs nothing until it is used, and does what its example says."""

from __future__ import annotations

import doctest
import subprocess
import sys
from collections.abc import Iterator
from importlib.metadata import version
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest

import duckling_data
import duckling_train
from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from tests.support.train import duckling_train as train

PACKAGES = (duckling_data, duckling_train)
NAMES = [(package, name) for package in PACKAGES for name in package.__all__]


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder whose `artifacts/` is a workspace of demo stories with a run of two steps, `first`."""
    folder = tmp_path_factory.mktemp("api")
    Pipeline(Request(folder / "artifacts", 2, ("demo:2000",)), Reporter(quiet=True)).make("pack")
    train(folder / "artifacts" / "runs" / "first", "--workspace", folder / "artifacts", "--steps", "2",
          "--precision", "fp32", "--logging-steps", "1", "--device", "cpu", "--eval-rows", "0")  # fmt: skip
    return folder


@pytest.fixture
def names(folder: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dict[str, Any]]:
    """What an example finds: the public names, an experiment, and `artifacts/` in the current folder."""
    from transformers import TrainerState

    monkeypatch.chdir(folder)
    experiment = duckling_train.duckling_ii("artifacts", precision="fp32", device="cpu")
    public = {name: getattr(package, name) for package, name in NAMES}
    return {**public, "experiment": experiment, "TrainerState": TrainerState}


@pytest.mark.parametrize(("package", "name"), NAMES, ids=[name for _, name in NAMES])
def test_every_public_names_example_is_true(package: ModuleType, name: str, names: dict[str, Any]) -> None:
    text = getattr(package, name).__doc__
    example = doctest.DocTestParser().get_doctest(text, names, name, None, None)
    assert 1 <= len(example.examples) <= 3
    assert any(part.want for part in example.examples)
    assert doctest.DocTestRunner(optionflags=doctest.ELLIPSIS).run(example).failed == 0


@pytest.mark.parametrize("package", PACKAGES)
def test_a_package_lists_its_names_and_no_others(package: ModuleType) -> None:
    assert package.__all__ == sorted(package.__all__)
    assert {*package.__all__, "__version__"} <= set(dir(package))
    assert package.__version__ == version("duckling")
    with pytest.raises(AttributeError, match=f"module '{package.__name__}' has no attribute 'nothing'"):
        package.nothing  # noqa: B018


@pytest.mark.parametrize("package", PACKAGES)
def test_importing_a_package_loads_nothing_but_the_standard_library(package: ModuleType) -> None:
    code = (
        f"import sys; before = set(sys.modules); import {package.__name__}\n"
        "new = {name.split('.')[0] for name in set(sys.modules) - before}\n"
        "print(sorted(new - set(sys.stdlib_module_names) - {'duckling_data', 'duckling_train'}))"
    )
    assert subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True).stdout == "[]\n"


def test_the_names_of_duckling_data_do_not_import_torch() -> None:
    code = "import sys; from duckling_data import *; print('DucklingTokenizer' in globals(), 'torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "True False\n"
