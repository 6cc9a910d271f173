"""matplotlib as Duckling draws with it: under its default settings, so that no user's `matplotlibrc` moves a byte."""

from __future__ import annotations

import contextlib
import logging
from collections.abc import Iterator, Mapping
from importlib import import_module
from threading import Lock
from typing import Any

from duckling_data.base.errors import InputError

_ONE_AT_A_TIME = Lock()
"""matplotlib's settings belong to the process."""


def load() -> None:
    """Import matplotlib without a word of its own. Raises InputError where the user's configuration keeps it from that.

    It logs which keys of a `matplotlibrc` it does not know, and that it has no folder for its caches.
    """
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)
    try:
        import_module("matplotlib.font_manager")
    except ValueError as error:
        first = str(error).splitlines()[0][:120]
        raise InputError(f"matplotlib cannot start ({first}): correct MPLBACKEND or your matplotlibrc.") from error
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def default_settings(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw under matplotlib's default settings with `changes`; also a decorator of a function that draws.

    Raises InputError as `load` does.
    """
    load()
    import matplotlib.style

    with _ONE_AT_A_TIME, matplotlib.style.context(["default", dict(changes or {})]):
        yield
