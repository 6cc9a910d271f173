"""What every plot shares: matplotlib under its default settings, whatever the user's are; colours; PNG files.

Equal figures give equal bytes: no clock and no version of a library is in a PNG.
"""

from __future__ import annotations

import contextlib
import io
import logging
import warnings
from collections.abc import Iterator, Mapping
from importlib import import_module
from threading import Lock
from typing import Any

from duckling_data.base.errors import InputError

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00", "#000000")
"""Colours that the colour-blind can tell apart (Okabe and Ito, 2008), without the yellow, which is faint on white."""

_ONE_AT_A_TIME = Lock()  # matplotlib's settings belong to the process


def load() -> None:
    """Import matplotlib. Raises InputError where the user's configuration prevents that."""
    logger = logging.getLogger("matplotlib")
    before = logger.level
    logger.setLevel(logging.ERROR)  # no lines about unknown keys in a matplotlibrc or a missing folder for caches
    try:
        import_module("matplotlib.font_manager")
    except ValueError as error:
        first = str(error).splitlines()[0][:120]
        raise InputError(f"matplotlib cannot start ({first}): correct MPLBACKEND or your matplotlibrc.") from error
    finally:
        logger.setLevel(before)


@contextlib.contextmanager
def default_settings(changes: Mapping[str, Any] | None = None) -> Iterator[None]:
    """Draw under matplotlib's default settings with `changes`; also a decorator. Raises InputError as `load` does."""
    load()
    import matplotlib.style

    with _ONE_AT_A_TIME, matplotlib.style.context(["default", dict(changes or {})]):
        yield


def png(figure: Any, *, warn: bool = True) -> bytes:
    """Return a figure's PNG; unless `warn` is false, Python warns of a character that the font has only a box for."""
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        if not warn:
            warnings.simplefilter("ignore")
        figure.savefig(buffer, format="png", metadata={"Software": None})
    return buffer.getvalue()
