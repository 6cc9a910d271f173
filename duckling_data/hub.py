"""TinyStories on the Hugging Face hub: one pinned revision, its files and their sizes, and their download."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import MappingProxyType

from duckling_data.errors import CheckFailed, InputError, OutsideError
from duckling_data.progress import Reporter


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
                reporter.say(f"download: {dataset.repo} {name} ({size / 1e6:.0f} MB)")
                _download(dataset, name, folder, reporter)
            if path.stat().st_size != size:
                raise CheckFailed(
                    f"{path}: {path.stat().st_size:,} bytes, expected {size:,}. "
                    "Remove it and run `duckling-data download`."
                )
            paths.setdefault(split, []).append(path)
    return paths


def _download(dataset: HubDataset, name: str, folder: Path, reporter: Reporter) -> None:
    # The library prints its own bars and hints; one line of ours stands for them when nobody watches.
    if reporter.quiet:
        os.environ.setdefault("HF_HUB_DISABLE_PROGRESS_BARS", "1")
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import HfHubHTTPError, OfflineModeIsEnabled
    from huggingface_hub.utils import logging

    logging.set_verbosity_error()

    advice = "Try again; or use --source demo (no network), --source PATH, or --offline with files already there."
    try:
        hf_hub_download(
            dataset.repo, name, repo_type="dataset", revision=dataset.revision, local_dir=folder, etag_timeout=30
        )
    except OfflineModeIsEnabled as error:
        raise InputError(f"{dataset.repo}: HF_HUB_OFFLINE forbids the download of {name}. {advice}") from error
    except HfHubHTTPError as error:
        status = error.response.status_code if error.response is not None else "no answer"
        raise OutsideError(f"{dataset.repo}: the hub answered {status} for {name}. {advice}") from error
    except Exception as error:  # the client's transport errors have no common root
        reason = str(error).strip().split("\n")[0][:160] or type(error).__name__
        raise OutsideError(f"{dataset.repo}: {name} could not be downloaded ({reason}). {advice}") from error
