"""A package's public names, each imported when it is first used (PEP 562): importing the package costs nothing."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Callable, Mapping
from importlib import import_module
from typing import Any

from duckling_data.base.errors import STRIPPED, InputError


def lazy_names(
    package: str, names: Mapping[str, tuple[str, ...]]
) -> tuple[list[str], Callable[[str], Any], Callable[[], list[str]]]:
    """Return a package's `__all__`, `__getattr__` and `__dir__`, given the public names of each of its modules.

    A module that is given none is itself public, under its own name. `__version__` is the installed version
    of the distribution, one for both packages.
    """
    modules = {name: f"{package}.{module}" for module, exported in names.items() for name in exported or (module,)}

    def get(name: str) -> Any:
        if name == "__version__":
            return import_module("importlib.metadata").version("duckling")
        if name not in modules:
            raise AttributeError(f"module {package!r} has no attribute {name!r}")
        if sys.flags.optimize > 1:
            raise InputError(STRIPPED)
        with warnings.catch_warnings():
            # tqdm warns in a notebook without ipywidgets that its bars are plain text: transformers imports it.
            warnings.filterwarnings("ignore", message="IProgress not found")
            import_module("tqdm.auto")
        module = import_module(modules[name])
        value = getattr(module, name) if name not in names else module
        setattr(sys.modules[package], name, value)  # the next access does not come here
        return value

    return sorted(modules), get, lambda: sorted({*vars(sys.modules[package]), *modules, "__version__"})
