"""Says what was found in the files of a corpus and read otherwise than a user may expect: a line for each kind."""

from __future__ import annotations

from collections.abc import Sequence

from duckling_data.base.progress import Reporter
from duckling_data.corpus.files import CorpusFile

SHOWN = 3
"""Files that a line names, at most."""


def say_findings(files: Sequence[CorpusFile], reporter: Reporter) -> None:
    """Say once, of all files together, what was dropped and what is one story."""
    files = list({file.path: file for file in files}.values())  # one may be in both splits, in parts
    for what, named in {
        "begins with a byte order mark, which is dropped (--newline keep keeps it)": [
            file for file in files if file.found.byte_order_mark
        ],
        "has CRLF, which is read as a line end (--newline keep keeps it)": [file for file in files if file.found.crlf],
        "has no <|endoftext|> and is read as one story": [file for file in files if file.found.no_separator],
    }.items():
        if named:
            names = ", ".join(str(file.path) for file in named[:SHOWN])
            more = f" and {len(named) - SHOWN:,} more, each" if len(named) > SHOWN else ", each" if named[1:] else ""
            reporter.say(f"source       {names}{more}: {what}")
    for file in files:
        if file.found.skipped:
            reporter.say(
                f"source       {file.path}: {file.found.skipped:,} bad lines are left out (--on-bad-line skip)"
            )
            for line in file.found.bad_lines:
                reporter.say(f"{'':<12} {line}")
            if file.found.skipped > len(file.found.bad_lines):
                reporter.say(f"{'':<12} and {file.found.skipped - len(file.found.bad_lines):,} more")
