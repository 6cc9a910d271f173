"""A package's public names, each imported when it is first used (PEP 562): importing the package costs nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

DISTRIBUTION = "duckling"


def lazy_names(
    package: str, names: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__all__`, `__getattr__` and `__dir__`, given the public names of each of its modules.

    `__version__` is the installed version of the distribution, one for both packages.
    """
    modules = {name: f"{package}.{module}" for module, exported in names.items() for name in exported}

    def get(name: str) -> Any:
        if name == "__version__":
            value = import_module("importlib.metadata").version(DISTRIBUTION)
        elif name in modules:
            _import_tqdm()
            value = getattr(import_module(modules[name]), name)
        else:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    return sorted(modules), get, lambda: sorted({*vars(sys.modules[package]), *modules, "__version__"})


def _import_tqdm() -> None:
    """Import `tqdm.auto` before transformers and datasets do, without its warning in a notebook that has no ipywidgets.

    Its bars are then plain text, which is all it warns of.
    """
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="IProgress not found")
        import_module("tqdm.auto")
