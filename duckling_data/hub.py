"""TinyStories on the Hugging Face hub: one pinned revision, its files and their sizes, and their download.

The transfer is huggingface_hub's. Before it, the hub is asked for the file's size, so that nothing but the pinned file
is downloaded. What may pass by itself (no connection, an error of the server, a body cut short) is tried again here,
in the open: the library's own retries are silent, cover the first request only, and hide what went wrong.
"""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from duckling_data.errors import CheckFailed, DucklingError, InputError, OutsideError
from duckling_data.files import disk_errors
from duckling_data.progress import Reporter

WAITS = (1.0, 2.0, 4.0, 8.0)
"""Seconds between the tries to get a file; after the last of them the download is given up."""

HEAD_TIMEOUT = 30.0
"""Seconds that the hub has to answer the first question for a file."""

ADVICE = "Try again; or use --source demo (no network), --source PATH, or --offline with files already there."


@dataclass(frozen=True)
class HubDataset:
    """A dataset's Parquet files at one revision."""

    repo: str
    revision: str
    splits: Mapping[str, tuple[tuple[str, int], ...]]
    """(file name inside the repository, bytes) of each file, in order, by split."""


TINYSTORIES = HubDataset(
    repo="roneneldan/TinyStories",
    revision="f54c09fd23315a6f9c86f9dc80f725de7d8f9c64",
    splits=MappingProxyType(
        {
            "train": (
                ("data/train-00000-of-00004-2d5a1467fff1081b.parquet", 248_731_111),
                ("data/train-00001-of-00004-5852b56a2bd28fd9.parquet", 248_171_980),
                ("data/train-00002-of-00004-a26307300439e943.parquet", 245_894_874),
                ("data/train-00003-of-00004-d243063613e5a057.parquet", 247_988_350),
            ),
            "validation": (("data/validation-00000-of-00001-869c898b519ad725.parquet", 9_989_127),),
        }
    ),
)


def fetch(dataset: HubDataset, folder: Path, *, offline: bool, reporter: Reporter) -> dict[str, list[Path]]:
    """Return the dataset's files in `folder` by split, downloading those that are not there yet.

    Raises InputError if `offline` and a file is missing, OutsideError if the hub cannot be reached or answers with
    an error, CheckFailed for a file of another size than the pinned revision has.
    """
    paths: dict[str, list[Path]] = {}
    for split, files in dataset.splits.items():
        for name, size in files:
            path = folder / name
            if not path.is_file():
                if offline:
                    raise InputError(
                        f"{path}: not there, and --offline forbids the download. "
                        "Run once without --offline, or use --source demo or --source PATH."
                    )
                reporter.say(f"download     {dataset.repo} {name} ({size / 1e6:,.1f} MB)")
                _download(dataset, name, size, path, folder, reporter)
            if path.stat().st_size != size:
                raise CheckFailed(
                    f"{path}: {path.stat().st_size:,} bytes, expected {size:,}. "
                    "Remove it and run `duckling-data download`."
                )
            paths.setdefault(split, []).append(path)
    return paths


def missing(dataset: HubDataset, folder: Path) -> dict[str, int]:
    """Return the files that `fetch` would download into `folder`: bytes by name."""
    files = [file for split in dataset.splits.values() for file in split]
    return {name: size for name, size in files if not (folder / name).is_file()}


def _download(dataset: HubDataset, name: str, size: int, path: Path, folder: Path, reporter: Reporter) -> None:
    """Download one file, with as many tries as WAITS allows."""
    for wait in (*WAITS, None):
        try:
            _try_once(dataset, name, size, folder, reporter.quiet)
        except DucklingError:
            raise
        except Exception as error:
            # The client says why it gave up only in the cause, if it then looked for a local copy.
            error = error.__cause__ if _is_misleading(error) and isinstance(error.__cause__, Exception) else error
            if wait is None or not _may_pass(error):
                raise _explained(error, dataset, name, path) from error
            reporter.say(f"download     failed: {_reason(error)}; trying again in {wait:.0f} s")
            time.sleep(wait)
        else:
            break
    if path.stat().st_size != size:  # only where the hub did not say the size beforehand
        found = path.stat().st_size
        path.unlink()
        raise _another_file(dataset, name, size, found)


def _try_once(dataset: HubDataset, name: str, size: int, folder: Path, quiet: bool) -> None:
    from huggingface_hub import get_hf_file_metadata, hf_hub_download, hf_hub_url
    from huggingface_hub.errors import HfHubHTTPError
    from huggingface_hub.utils import disable_progress_bars, logging

    logging.set_verbosity_error()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of too little disk space: if it is so, writing fails and we say it
        if quiet:
            disable_progress_bars()
        url = hf_hub_url(dataset.repo, name, repo_type="dataset", revision=dataset.revision)
        try:
            found = get_hf_file_metadata(url, timeout=HEAD_TIMEOUT).size
        except HfHubHTTPError as error:
            if error.response is None or error.response.status_code != 429:
                raise
            found = None  # too many requests: the client below waits for as long as the hub asks
        if found not in (None, size):
            raise _another_file(dataset, name, size, found)
        hf_hub_download(
            dataset.repo,
            name,
            repo_type="dataset",
            revision=dataset.revision,
            local_dir=folder,
            etag_timeout=HEAD_TIMEOUT,
        )


def _status(error: Exception) -> int | None:
    """Return the HTTP status that the hub answered with, if it is one that went wrong."""
    response = getattr(error, "response", None)
    return None if response is None else int(response.status_code)


def _is_misleading(error: Exception) -> bool:
    from huggingface_hub.errors import LocalEntryNotFoundError

    return isinstance(error, LocalEntryNotFoundError)


def _of_the_disk(error: Exception) -> bool:
    """Return whether the operating system refused to write; the client's errors of the network carry no errno."""
    return isinstance(error, OSError) and not isinstance(error, ConnectionError | TimeoutError) and bool(error.errno)


def _may_pass(error: Exception) -> bool:
    """Return whether another try may succeed: there was no whole answer, or the server had an error."""
    from huggingface_hub.errors import FileMetadataError, HTTPError, OfflineModeIsEnabled

    status = _status(error)
    if status is not None:
        return status == 408 or status >= 500
    if isinstance(error, FileMetadataError | OfflineModeIsEnabled) or _of_the_disk(error):
        return False
    return isinstance(error, HTTPError | OSError)  # the root of the transport's errors; a body of the wrong length


def _reason(error: Exception) -> str:
    status = _status(error)
    if status is not None:
        return f"the hub answered {status}"
    return (str(error).strip().split("\n")[0][:160] or type(error).__name__).rstrip(".")


def _explained(error: Exception, dataset: HubDataset, name: str, path: Path) -> DucklingError:
    """Return the error as one of ours: what failed, of which file and from where, and the ways out."""
    from huggingface_hub import constants
    from huggingface_hub.errors import OfflineModeIsEnabled

    if isinstance(error, OfflineModeIsEnabled):
        return InputError(f"{dataset.repo}: HF_HUB_OFFLINE forbids the download of {name}. {ADVICE}")
    if _of_the_disk(error):
        try:
            with disk_errors(path):
                raise error
        except DucklingError as explained:
            return explained
    return OutsideError(
        f"{dataset.repo}: {name} could not be downloaded from {constants.ENDPOINT} ({_reason(error)}). {ADVICE}"
    )


def _another_file(dataset: HubDataset, name: str, size: int, found: int) -> CheckFailed:
    from huggingface_hub import constants

    return CheckFailed(
        f"{dataset.repo}: {name} has {found:,} bytes at {constants.ENDPOINT}, expected {size:,}. It is not the pinned "
        "file: check HF_ENDPOINT and proxies, or use --source demo or --source PATH."
    )
