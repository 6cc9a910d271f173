"""TinyStories from the Hugging Face hub, at one pinned revision: each file downloaded once, whole, and compared.

A file that is there is used without a request. Its size is pinned; its SHA-256 is what the hub says, which the caller
keeps and compares from then on.
"""

from __future__ import annotations

import glob
from collections.abc import Mapping
from pathlib import Path

from duckling_data.base.disk import check_room, disk_errors
from duckling_data.base.errors import CheckFailed, InputError
from duckling_data.base.files import first_link
from duckling_data.base.locks import remove_leftovers
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub.dataset import TINYSTORIES, HubDataset, HubFile
from duckling_data.corpus.hub.download import CACHE, INCOMPLETE, Learn, get_file, set_aside, size_of

__all__ = ["TINYSTORIES", "HubDataset", "HubFile", "fetch", "missing", "refuse"]


def fetch(
    dataset: HubDataset, folder: Path, *, offline: bool, reporter: Reporter, known: Mapping[str, str], learn: Learn
) -> dict[str, list[Path]]:
    """Return the dataset's files in `folder` by split, getting those that are not there yet. Call it under a lock.

    `known` holds the SHA-256 of files by name, as it was learned before; `learn` is called with (name, SHA-256) of each
    file before it is at its path. A file that was there already is not read: the caller hashes it.

    Raises InputError if `offline` and a file is missing, or if the user's settings (HF_ENDPOINT, HF_TOKEN, a proxy)
    keep the client from working; OutsideError if the disk has no room, or if the hub cannot be reached, fails, or sends
    another file than the pinned one; CheckFailed for a file at its path that has another size.
    """
    absent = missing(dataset, folder)
    if not offline:
        # What an interrupted download left needs no room again.
        needed = sum(absent.values())
        for name, size in absent.items():
            left = (folder / CACHE).glob(f"{glob.escape(name)}.*{INCOMPLETE}")
            needed -= min(size, max(map(size_of, left), default=0))
        check_room(folder, needed, "the download")
    paths: dict[str, list[Path]] = {}
    for split, file in dataset.files():
        path = folder / file.name
        if file.name in absent:
            if offline:
                raise InputError(
                    f"{path}: not there, and --offline forbids the download. "
                    "Run once without --offline, or use --source demo or --source PATH."
                )
            get_file(file, folder, reporter, known.get(file.name), learn)
        if (size := size_of(path)) != file.size:
            refuse(folder, file.name, f"{size:,} bytes, expected {file.size:,}", offline=offline)
        paths.setdefault(split, []).append(path)
    if absent:
        _remove_incomplete(dataset, folder, reporter)
    return paths


def missing(dataset: HubDataset, folder: Path) -> dict[str, int]:
    """Return the files that `fetch` would bring into `folder`: bytes by name."""
    return {file.name: file.size for _, file in dataset.files() if not (folder / file.name).is_file()}


def refuse(folder: Path, name: str, what: str, *, offline: bool) -> None:
    """Refuse a damaged file, and keep it as `NAME.refused`, so that the next download brings a good one.

    Offline nothing is moved, as nothing could replace it, and nothing behind a link. Always raises CheckFailed.
    """
    path = folder / name
    if offline or first_link(folder.parent, f"{folder.name}/{Path(name).parent}"):
        raise CheckFailed(f"{path}: {what}. Move it away and run `duckling-data download` without --offline.")
    aside = set_aside(path, path)
    raise CheckFailed(f"{path}: {what}. It is kept as {aside.name}; run `duckling-data download` to get it again.")


def _remove_incomplete(dataset: HubDataset, folder: Path, reporter: Reporter) -> None:
    """Remove what interrupted downloads left, once every file is there, and say so."""
    remove_leftovers(folder, (file.name for _, file in dataset.files()))
    if left := [path for path in (folder / CACHE).rglob("*" + INCOMPLETE) if path.is_file()]:
        size = sum(map(size_of, left))
        with disk_errors(folder):
            for path in left:
                path.unlink()
        files = f"{len(left)} incomplete file{'s' * (len(left) > 1)}"
        reporter.say(f"download     removed {files} of interrupted downloads ({size / 1e6:,.1f} MB)")
