"""The disturbances by name: each alone, for the long script, and joined into few processes, for the tests."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from tests.support.determinism.disturb import Disturbance

PLAIN = Disturbance("undisturbed", {"LC_ALL": "C.UTF-8"})

HIDDEN_C = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": "ascii"}
"""The C locale with everything off by which Python makes UTF-8 of it."""
UMLAUTS = "Ordner für Märchen"

ALONE = (
    *(replace(PLAIN, name=f"{n} workers", workers=n) for n in (1, 5)),
    *(Disturbance(f"PYTHONHASHSEED={seed}", {"PYTHONHASHSEED": seed}) for seed in ("0", "1", "random")),
    Disturbance("no locale"),
    Disturbance("the C locale", {"LC_ALL": "C"}),
    Disturbance("the C locale without UTF-8 mode", HIDDEN_C),
    *(Disturbance(f"PYTHONUTF8={mode}", {"LANG": "C.UTF-8", "PYTHONUTF8": mode}) for mode in ("0", "1")),
    Disturbance("ASCII streams", {"PYTHONIOENCODING": "ascii"}),
    *(Disturbance(f"TZ={zone}", {"TZ": zone}) for zone in ("Pacific/Kiritimati", "America/St_Johns")),
    *(replace(PLAIN, name=f"umask {mask:03o}", umask=mask) for mask in (0o000, 0o077)),
    *(replace(PLAIN, name=f"working directory {folder}", folder=folder) for folder in ("/", "w", UMLAUTS)),
    *(replace(PLAIN, name=f"relative to {folder}", folder=folder, relative=True) for folder in ("/", "w", UMLAUTS)),
    *(replace(PLAIN, name=f"{n} core", cores=n) for n in (1, 2)),
    replace(PLAIN, name="no standard input", no_stdin=True),
    Disturbance("TERM=dumb, 20 columns", {"TERM": "dumb", "COLUMNS": "20"}),
    Disturbance("no HOME", {"HOME": None}),
    *(Disturbance(f"MPLBACKEND={name}", {"MPLBACKEND": name}) for name in ("svg", "pdf")),
    Disturbance("numeric libraries' threads", {"OPENBLAS_NUM_THREADS": "5", "MKL_NUM_THREADS": "3"}),
)
"""One at a time: when a joined case fails, these say which of its parts does it."""


def joined(turkish: Mapping[str, str]) -> tuple[Disturbance, ...]:
    """Return cases of several independent disturbances each, which together are all of ALONE and the Turkish locale."""
    return (
        Disturbance(
            "C-locale, ASCII, hash seed 0, Kiritimati, umask 077, one worker, below /",
            {**HIDDEN_C, "PYTHONHASHSEED": "0", "TZ": "Pacific/Kiritimati"},
            umask=0o077, folder="/", relative=True, workers=1,
        ),
        Disturbance(
            "Turkish Latin-5, hash seed 1, St John's, umask 000, five workers, in the workspace",
            {**turkish, "PYTHONHASHSEED": "1", "TZ": "America/St_Johns", "MPLBACKEND": "svg"},
            umask=0o000, folder="w", relative=True, workers=5,
        ),
        Disturbance(
            "no locale, any hash seed, no HOME, no input, dumb terminal, one core, a matplotlibrc, umlauts in paths",
            {"HOME": None, "TERM": "dumb", "COLUMNS": "20", "PYTHONUTF8": "1", "OPENBLAS_NUM_THREADS": "5",
             "MKL_NUM_THREADS": "3", "PYTHONHASHSEED": "random"},
            folder=UMLAUTS, relative=True, cores=1, no_stdin=True,
        ),
    )  # fmt: skip
