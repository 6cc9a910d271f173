"""A finished run's files are the ones that it wrote, or refused: by their SHA-256 in the run's manifest."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes
from duckling_data.base.records import short
from duckling_data.base.strict_json import JSON_LIMIT, parse_json
from duckling_train.runs.layout import MANIFEST, MODEL, has_manifest


def written_files(run_dir: Path) -> dict[str, str] | None:
    """Return the SHA-256 of each file that a finished run wrote, by its path in the run; None for one still going on.

    Raises InputError for a manifest that is none, and as `has_manifest` does.
    """
    path = run_dir / MANIFEST
    if not has_manifest(run_dir):
        return None
    files = parse_object(path, read_bytes(path, JSON_LIMIT)).get("files")
    fine = isinstance(files, dict) and all(
        isinstance(described, dict) and isinstance(described.get("sha256"), str) for described in files.values()
    )
    if not isinstance(files, dict) or not fine:
        raise InputError(f"{path} has files {short(files)}; expected an object of digests")
    return {name: described["sha256"] for name, described in files.items()}


def check_written(path: Path, expected: str | None, found: str | None) -> None:
    """Raise InputError unless a finished run's file is the one that it wrote: by their SHA-256, None where none is."""
    run_dir = path.parent.parent if path.parent.name == MODEL else path.parent
    see = f"duckling-train verify {run_dir} checks the whole run"
    if found is None and expected is not None:
        raise InputError(f"{path} is missing: {see}")
    if expected is None and found is not None:
        raise InputError(f"{path} is not one that the run wrote ({MANIFEST} does not list it): {see}")
    if found != expected:
        raise InputError(f"{path} is not what the run wrote (another SHA-256): {see}")


def read_written(path: Path, limit: int, written: dict[str, str] | None) -> bytes | None:
    """Return a file's bytes, of a finished run (`written`) those that it wrote; None where there is no such file."""
    try:
        content = read_bytes(path, limit)
    except FileNotFoundError:
        content = None
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror})") from error
    if written is not None:
        found = hashlib.sha256(content).hexdigest() if content is not None else None
        check_written(path, written.get(path.name), found)
    return content


def parse_object(path: Path, json: bytes) -> dict[str, Any]:
    """Return the object in the JSON of a file. Raises InputError, which names `path`, where there is none."""
    try:
        content = parse_json(json)
    except ValueError as error:
        raise InputError(f"{path}: not JSON ({error})") from error
    if not isinstance(content, dict):
        raise InputError(f"{path} holds a JSON {type(content).__name__}; expected an object")
    return content
