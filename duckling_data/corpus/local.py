"""The user's own files, told into train and validation: by what the user names, else by the files' names.

A clone of the hub's repository, or any other folder with `train` and `validation` in the names of its files, is not
one large training split: validation would leak into it.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Mapping
from pathlib import Path

from duckling_data.base.errors import InputError
from duckling_data.base.errors import SourceMissing as SourceMissing
from duckling_data.base.progress import Reporter
from duckling_data.corpus.folders import Files, Identity, identity, listed, story_files
from duckling_data.corpus.readers import READABLE, file_format, saved_dataset
from duckling_data.corpus.remote.listing import remote_files
from duckling_data.corpus.remote.store import Place, kind_of
from duckling_data.workspace.source_record import SourceRecord

NAMED = re.compile(
    r"(?P<set>tinystories(?:v2-gpt4)?-)?(?P<word>train|training|validation|valid|val|dev|test)(?:[-_.\d].*)?", re.I
)
"""The hub's own names, `train-00000-of-00004-….parquet` and `TinyStoriesV2-GPT4-valid.txt`, and others in use."""
SPLITS = {"train": "train", "training": "train", "test": "test"}
"""The split that a word stands for; every other one is validation."""
NAME_FILES = "name the files: --source FILE --validation FILE."

Splits = dict[str, Files]


def split_files(workspace: Path, wanted: SourceRecord, reporter: Reporter) -> Splits:
    """Return the files of each split that the sources give; what is not read, and why, is said.

    Raises InputError for paths that hold no stories, and for a folder in which the splits cannot be told apart.
    """
    known = {identity(workspace): "the workspace"} | {
        identity(Path(path)): "--validation" for path in wanted.validation if not kind_of(path)
    }
    left_out = {one: why for one, why in known.items() if one}
    by_hand = [_split_of(Path(source).name) for source in wanted.sources]
    told = _are_splits(by_hand)
    splits: Splits = {"train": []}
    for source, said in zip(wanted.sources, by_hand, strict=True):
        parts = _parts(source, wanted, workspace, left_out, reporter)
        if told and said and len(parts) == 1:
            parts = {said: parts["train"]}
        for split, files in parts.items():
            splits.setdefault(split, []).extend(files)
    if tests := splits.pop("test", []):
        reporter.say(f"source       {len(tests):,} not read of a test split: {listed([name for _, name in tests])}")
    if option := "--validation" if wanted.validation else "--validation-share" if wanted.validation_share else None:
        if "validation" in splits:
            held = listed([name for _, name in splits["validation"]])
            raise InputError(
                f"{option}: the source has a validation split, {held}; leave the option out, or {NAME_FILES}"
            )
    elif "validation" in splits:
        counts = ", ".join(f"{len(files):,} {split}" for split, files in splits.items())
        reporter.say(f"source       files by their names: {counts}")
    for path in wanted.validation:
        parts = _parts(path, None, workspace, {}, reporter)
        if len(parts) > 1:
            raise InputError(f"{path}: holds {' and '.join(parts)} files, expected validation alone; {NAME_FILES}")
        splits.setdefault("validation", []).extend(parts["train"])
    return splits


def _parts(
    place: str, wanted: SourceRecord | None, workspace: Path, left_out: Mapping[Identity, str], reporter: Reporter
) -> Splits:
    """Return the files of one path or URL, all as train where their names tell no splits.

    Of what is `wanted`, the validation split, and `left_out` of paths, is not read.
    """
    if kind_of(place):
        files, by_name = remote_files(place, tuple(wanted.validation) if wanted else (), reporter)
        return _by_name(place, files) if by_name else {"train": files}
    path = Path(place)
    if not path.is_dir():
        if not path.exists():
            raise SourceMissing(f"{path}: no such file or folder; expected a path, `tinystories` or `demo[:STORIES]`.")
        if file_format(path) is None:
            raise InputError(f"{path}: not a kind of file that holds stories ({READABLE}).")
        return {"train": [(path, path.name)]}
    if identity(path) == identity(workspace):
        raise InputError(
            f"{path}: the workspace itself; expected stories that are kept apart from what is made of them; "
            "name files in it or a folder in it, or another --workspace."
        )
    if (saved := saved_dataset(path)) is not None:
        return {"train": [(inside, inside.name) for inside in saved]}
    found = story_files(path, left_out)
    if found.not_read:
        reporter.say(f"source       {len(found.not_read):,} not read in {path}: {listed(found.not_read)}")
    if count := len(found.outside):
        links = f"{count:,} links lead out of {path} and are" if count > 1 else f"1 link leads out of {path} and is"
        reporter.say(f"source       {links} followed: {listed(found.outside)}")
    return _by_name(path, found.files)


def _by_name(folder: Path | str, files: Files) -> Splits:
    """Return a folder's files by the split in their names, or all as train. Raises InputError where that is unclear."""
    parts: dict[str | None, Files] = {}
    for file in files:
        parts.setdefault(_split_of(file[1]), []).append(file)
    for split in ("train", "validation"):
        kinds = {_kind(path): name for path, name in parts.get(split, []) if NAMED.fullmatch(path.name)}
        if len(kinds) > 1:
            raise InputError(
                f"{folder}: its {split} split is there in {len(kinds)} forms, {listed(list(kinds.values()))}; expected "
                f"one; name the folder that holds one alone, or {NAME_FILES}"
            )
    if not _are_splits(parts):
        return {"train": files}
    if neither := parts.pop(None, []):
        raise InputError(
            f"{folder}: the names of its files tell splits, but not of {listed([name for _, name in neither])}; "
            f"expected it of all; {NAME_FILES}"
        )
    return {split: part for split, part in parts.items() if split}


def _are_splits(found: Collection[str | None]) -> bool:
    """Return whether there is train and something that must not be mixed with it."""
    return "train" in found and ("validation" in found or "test" in found)


def _kind(path: Place) -> tuple[str, object]:
    """Return what tells a split's files in one form from those in another: the data set and the format."""
    named = NAMED.fullmatch(path.name)
    return (named["set"] or "").lower() if named else "", file_format(path)


def _split_of(name: str) -> str | None:
    """Return the split that a path's last telling part names, or None."""
    for part in reversed(name.split("/")):
        if named := NAMED.fullmatch(part):
            return SPLITS.get(named["word"].lower(), "validation")
    return None
