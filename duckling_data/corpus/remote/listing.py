"""The files of stories that a URL leads to: a file, or a folder's by the rules of a folder on this machine.

A store has no links. A name that could lead out of a folder is refused.
"""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

from duckling_data.base.disk import check_utf8
from duckling_data.base.errors import InputError
from duckling_data.base.progress import Reporter
from duckling_data.base.strict_json import JSON_LIMIT
from duckling_data.corpus.folders import UNFINISHED, Files, Found, finished, listed
from duckling_data.corpus.readers import READABLE, file_format
from duckling_data.corpus.remote.store import Remote, described, get, opened, state_of
from duckling_data.corpus.remote.tries import retried
from duckling_data.workspace.source_record import SOURCE_RECORD

SPLITS_FILE, STATE_FILES = "dataset_dict.json", ("state.json", "dataset_info.json")


def remote_files(url: str, left_out: tuple[str, ...], reporter: Reporter) -> tuple[Files, bool]:
    """Return the files at a URL, and whether they are a folder's whose names may tell splits.

    `left_out` are URLs of files and folders that are not read. Raises InputError for a place that holds no stories,
    and as `tries.retried` does.
    """
    info = retried(lambda: described(url), url, "listed", reporter)
    if info["type"] != "directory":
        file = Remote(url, state_of(url, info))
        if file_format(file) is None:
            raise InputError(f"{url}: not a kind of file that holds stories ({READABLE}).")
        return [(file, file.name)], False
    found = retried(lambda: listing(url, info), url, "listed", reporter)
    files = {name: Remote(f"{url.rstrip('/')}/{name}", state_of(url, one)) for name, one in found.items()}
    if SPLITS_FILE in files:
        raise InputError(
            f"{url}: holds several splits, expected one; name one, --source {url.rstrip('/')}/train, and another with "
            "--validation."
        )
    if files.keys() >= {*STATE_FILES}:
        return _saved(url, files, reporter), False
    stories = _stories(url, files, left_out)
    if stories.not_read:
        reporter.say(f"source       {len(stories.not_read):,} not read in {url}: {listed(stories.not_read)}")
    return stories.files, True


def listing(url: str, info: dict[str, Any]) -> dict[str, dict[str, Any]]:
    """Return what a store says of each file in a folder, by its name in it. Raises InputError for an unusable name."""
    store, path = opened(url)
    store.invalidate_cache()
    found = {name: one for name, one in store.find(path, detail=True).items() if one["type"] == "file"}
    roots = [f"{root.rstrip('/')}/" for root in (str(info["name"]), path)]
    root = next((root for root in roots if all(name.startswith(root) for name in found)), None)
    names = {} if root is None else {name.removeprefix(root): one for name, one in found.items()}
    # Where a bucket has folders that were made by hand, each is an empty file whose name ends so.
    names = {name: one for name, one in names.items() if name and not (name.endswith("/") and not one.get("size"))}
    for name in names if root is not None else found:
        parts = name.split("/")
        check_utf8(f"{url}/{name}", "--source")
        if root is None or {"", ".", ".."} & {*parts} or "\0" in name:
            raise InputError(f"{url}: holds {name[:200]!r}, which is no name in a folder; expected others; name files.")
    return names


def _stories(url: str, files: dict[str, Remote], left_out: tuple[str, ...]) -> Found:
    """Return the files of stories, sorted by name, and what is not read, as `folders.story_files` does."""
    found = Found()
    workspaces = [name.removesuffix(SOURCE_RECORD) for name in files if name.endswith(f"/{SOURCE_RECORD}")]
    for name, file in files.items():
        *folders, last = name.split("/")
        above = ["/".join(folders[: number + 1]) + "/" for number in range(len(folders))]
        why = None if file_format(file) else ""
        if last.startswith("."):
            why = "hidden"
        if any(f"{file.url}/".startswith(f"{one.rstrip('/')}/") for one in left_out):
            why = "--validation"
        for folder, inside in reversed([*zip(above, folders, strict=True)]):
            reason = "hidden" if inside.startswith(".") else "unfinished" if inside == UNFINISHED else None
            if reason := "a workspace" if folder in workspaces and not reason else reason:
                name, why = folder, reason
        if why is None:
            found.files.append((file, name))
        else:
            found.not_read.append(name + f" ({why})" * bool(why))
    found.not_read = [*dict.fromkeys(found.not_read)]
    return finished(found, url)


def _saved(url: str, files: dict[str, Remote], reporter: Reporter) -> Files:
    """Return the files with the rows of a folder that `save_to_disk` of datasets wrote, in order."""
    from duckling_data.rows.read import shard_paths

    with tempfile.TemporaryDirectory() as folder:
        state = Path(folder) / STATE_FILES[0]
        if (size := files[state.name].state.size) > JSON_LIMIT:
            raise InputError(f"{url}/{state.name}: {size:,} bytes, expected at most {JSON_LIMIT:,}; name files in it.")
        get(files[state.name], state, reporter=reporter)
        try:
            names = [path.name for path in shard_paths(Path(folder), "save the data set again")]
        except InputError as error:
            raise InputError(str(error).replace(folder, url.rstrip("/"))) from error
    if missing := [name for name in names if name not in files]:
        raise InputError(f"{url}: lacks {listed(missing)}, which its state.json names; save the data set again.")
    return [(files[name], name) for name in names]
