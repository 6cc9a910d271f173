"""The download: TinyStories from the Hugging Face hub, at one pinned revision, each file once and whole.

A file that is there is used as it is, without a request. One that is not is copied from huggingface_hub's own cache
(below HF_HOME) if that holds it, else downloaded. Its size is pinned in `dataset.py`; its SHA-256 is what the hub says,
which the caller keeps and compares from then on.

`dataset.py` says which files, `download.py` gets one of them, `client.py` asks huggingface_hub, `faults.py` says what
went wrong, `secrets.py` keeps tokens out of that, `place.py` knows where a file lies while it is not whole.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from duckling_data.base.disk import free_bytes, in_bytes
from duckling_data.base.errors import CheckFailed, InputError, OutsideError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub.dataset import TINYSTORIES, HubDataset, HubFile
from duckling_data.corpus.hub.place import begun_bytes, remove_leftovers, set_aside

__all__ = ["LONGEST_WAIT", "TINYSTORIES", "WAITS", "HubDataset", "HubFile", "fetch", "missing", "refuse"]

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries to get a file; after the last of them, with nothing new received, it is given up."""

LONGEST_WAIT = 300.0
"""Seconds that we wait at the most where the hub asks for a wait (`Retry-After`); its own limits last five minutes."""


def fetch(
    dataset: HubDataset,
    folder: Path,
    *,
    offline: bool,
    reporter: Reporter,
    known: Mapping[str, str],
    learn: Callable[[str, str], None],
) -> dict[str, list[Path]]:
    """Return the dataset's files in `folder` by split, getting those that are not there yet.

    `known` holds the SHA-256 of files by name, as it was learned before; `learn` is told (name, SHA-256) of each file
    that comes, before it is in its place. A file that was there already is not read: the caller hashes it.

    Raises InputError if `offline` and a file is missing, or if the user's settings (HF_ENDPOINT, HF_TOKEN, a proxy, …)
    keep the client from working; OutsideError if the disk has no room, or if the hub cannot be reached, answers with
    an error, or sends another file than the pinned one; CheckFailed for a file in its place that has another size.
    """
    paths: dict[str, list[Path]] = {}
    came = False
    if not offline:
        _refuse_without_room(dataset, folder)
    for split, file in dataset.files():
        path = folder / file.name
        if not path.is_file():
            if offline:
                raise InputError(
                    f"{path}: not there, and --offline forbids the download. "
                    "Run once without --offline, or use --source demo or --source PATH."
                )
            _get(file, folder, reporter, known.get(file.name), learn)
            came = True
        if path.stat().st_size != file.size:
            refuse(path, f"{path.stat().st_size:,} bytes, expected {file.size:,}", offline=offline)
        paths.setdefault(split, []).append(path)
    if came:
        remove_leftovers(folder, reporter)
    return paths


def missing(dataset: HubDataset, folder: Path) -> dict[str, int]:
    """Return the files that `fetch` would bring into `folder`: bytes by name."""
    return {file.name: file.size for _, file in dataset.files() if not (folder / file.name).is_file()}


def _refuse_without_room(dataset: HubDataset, folder: Path) -> None:
    """Raise OutsideError where the disk has no room for what `fetch` would bring: before the first byte, not the last.

    What an interrupted download left counts as there. A system that does not say what is free is taken at its word.
    """
    begun = sum(begun_bytes(folder, file) for _, file in dataset.files() if not (folder / file.name).is_file())
    needed, free = sum(missing(dataset, folder).values()) - begun, free_bytes(folder)
    if free is not None and free < needed:
        raise OutsideError(
            f"{folder}: the download needs {in_bytes(needed)} more, {in_bytes(free)} are free. "
            "Free some, or choose another --workspace."
        )


def refuse(path: Path, what: str, *, offline: bool) -> None:
    """Refuse a damaged file in its place, and keep it aside, so that the next download brings a good one.

    Offline nothing is moved: there nothing could take its place. Always raises CheckFailed.
    """
    if offline:
        raise CheckFailed(f"{path}: {what}. Move it away and run `duckling-data download` without --offline.")
    aside = set_aside(path, path)
    raise CheckFailed(f"{path}: {what}. It is kept as {aside.name}; run `duckling-data download` to get it again.")


def _get(file: HubFile, folder: Path, reporter: Reporter, known: str | None, learn: Callable[[str, str], None]) -> None:
    from duckling_data.corpus.hub.download import Patience, copy_from_cache, download

    reporter.say(f"download     {file.repo} {file.name} ({file.size / 1e6:,.1f} MB)")
    if not copy_from_cache(file, folder, known, learn, reporter):
        download(file, folder, known, learn, Patience(WAITS, LONGEST_WAIT, file, reporter), reporter)
