"""`SHA256SUMS`: the manifest's digests as `sha256sum -c` reads them, for people without Duckling.

It lists the stages' outputs, the hub's files if the stories come from there, and `manifest.json`; it follows from the
manifest alone, so that no artifact is hashed again.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from duckling_data.base.disk import disk_errors
from duckling_data.base.files import sha256_file, write_bytes
from duckling_data.workspace.manifest import MANIFEST_NAME, Manifest

SUMS_NAME = "SHA256SUMS"
HUB_SOURCE = "tinystories"
"""The source whose files are in the workspace; those of other sources stay where they are and are not listed."""


def sums_bytes(manifest: Manifest) -> bytes:
    """Return what `SHA256SUMS` has to hold: a line `hex  path` a file, sorted by path."""
    digests = {name: made.sha256 for record in manifest.stages.values() for name, made in record.outputs.items()}
    if manifest.corpus is not None and manifest.corpus.source == HUB_SOURCE:
        files = (file for split in manifest.corpus.splits.values() for file in split.files)
        digests |= {f"corpus/{file.name}": file.sha256 for file in files}
    digests[MANIFEST_NAME] = sha256_file(manifest.path)
    return "".join(f"{digests[name]}  {name}\n" for name in sorted(digests)).encode()


def write_sums(workspace: Path) -> None:
    """Write `SHA256SUMS` from the manifest, unless it is as it should be."""
    expected, path = sums_bytes(Manifest(workspace)), workspace / SUMS_NAME
    if not path.is_file() or path.read_bytes() != expected:
        write_bytes(path, expected)


def remove_sums(workspace: Path) -> None:
    """Remove `SHA256SUMS`, if it is there: to be called before the manifest changes."""
    with disk_errors(workspace / SUMS_NAME):
        (workspace / SUMS_NAME).unlink(missing_ok=True)


def sums_faults(manifest: Manifest) -> Iterator[str]:
    """Yield the first line in which `SHA256SUMS`, if it is there, differs from what the manifest gives."""
    path = manifest.workspace / SUMS_NAME
    if not path.is_file():
        return
    expected = sums_bytes(manifest).decode().split("\n")
    found = path.read_bytes().decode(errors="replace").split("\n")
    # The manifest's own line last: a damaged manifest changes it and others, and the others say more.
    lines = [(n, e, f) for n, (e, f) in enumerate(zip(expected, found, strict=False), 1) if e != f]
    lines.sort(key=lambda line: line[1].endswith(f"  {MANIFEST_NAME}"))
    if lines:
        number, line, other = lines[0]
        yield f"{SUMS_NAME} line {number} is {other!r}, expected {line!r} from {MANIFEST_NAME}"
    elif found != expected:
        yield f"{SUMS_NAME} has {len(found) - 1} lines, expected {len(expected) - 1}"
