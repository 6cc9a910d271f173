"""A small dataset on a hub of our own, and how a process is made to take that hub for the hub."""

from __future__ import annotations

import io
import os
import subprocess
import sys
from collections.abc import Collection
from pathlib import Path
from types import MappingProxyType
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.base.errors import DucklingError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.hub import HubDataset, download, fetch
from tests.support import HANG
from tests.support.data import snapshot
from tests.support.hub.server import HubServer

REPO = "someone/Stories"
REVISION = "0123456789abcdef0123456789abcdef01234567"
TRIES = 3
WAYS_OUT = ("--source demo", "--offline", "--source PATH")


def parquet(first: int, stories: int, split: str = "train") -> bytes:
    file = io.BytesIO()
    pq.write_table(pa.table({"text": demo_stories(first, first + stories, split=split)}), file)
    return file.getvalue()


BODIES = {
    "data/train-00000-of-00002-2d5a.parquet": parquet(0, 30),
    "data/train-00001-of-00002-5852.parquet": parquet(30, 20),
    "data/validation-00000-of-00001-869c.parquet": parquet(0, 15, "validation"),
}
NAMES = list(BODIES)
SIZES = [(name, len(body)) for name, body in BODIES.items()]
DATASET = HubDataset(REPO, REVISION, MappingProxyType({"train": tuple(SIZES[:2]), "validation": tuple(SIZES[2:])}))


def served(dataset: HubDataset = DATASET, bodies: dict[str, bytes] = BODIES) -> dict[str, bytes]:
    return {f"{dataset.repo}/resolve/{dataset.revision}/{name}": body for name, body in bodies.items()}


def point_at(endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Do in this process what HF_ENDPOINT does when huggingface_hub is imported."""
    template = endpoint + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(huggingface_hub.constants, "ENDPOINT", endpoint)
    monkeypatch.setattr(huggingface_hub.constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", os.devnull)
    monkeypatch.setattr(huggingface_hub.constants, "HF_TOKEN_PATH", os.devnull)
    for name in ("HF_ENDPOINT", "HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setattr(download, "WAITS", (0.0,) * (TRIES - 1))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    huggingface_hub.close_session()  # the client reads the proxies' variables when it is made


def get(
    folder: Path,
    dataset: HubDataset = DATASET,
    *,
    offline: bool = False,
    quiet: bool = True,
    known: dict[str, str] | None = None,
) -> Any:
    return fetch(
        dataset, folder, offline=offline, reporter=Reporter(quiet), known=known or {}, learn=lambda name, sha256: None
    )


def files(folder: Path) -> dict[str, str]:
    """What a later run could take for a file of the corpus: all but the client's own notes."""
    return {name: digest for name, digest in snapshot(folder).items() if not name.startswith(".cache/")}


def refusal(
    kind: type[DucklingError],
    folder: Path,
    capfd: pytest.CaptureFixture[str],
    *,
    left: Collection[str] = (),
    gone: Collection[str] = (),
    **options: Any,
) -> str:
    """Return the one line that `fetch` fails with; it prints nothing of its own.

    Of the files in the folder those `gone` are gone, and `left` is what is new there.
    """
    before = files(folder)
    capfd.readouterr()
    with pytest.raises(DucklingError) as caught:
        get(folder, **options)
    assert type(caught.value) is kind, caught.value
    assert capfd.readouterr() == ("", "")
    assert files(folder).keys() == (before.keys() - set(gone)) | set(left)
    assert all(digest == before.get(name, digest) for name, digest in files(folder).items())
    assert "\n" not in str(caught.value)
    return str(caught.value)


def incomplete(folder: Path) -> dict[str, int]:
    """The incomplete files of a download: bytes by name."""
    return {path.name: path.stat().st_size for path in (folder / ".cache").rglob("*.incomplete")}


FETCH = f"""
import sys
from pathlib import Path
from duckling_data.corpus.hub import download
from duckling_data.base.errors import DucklingError
from duckling_data.corpus.hub import HubDataset, fetch
from duckling_data.base.progress import Reporter
download.WAITS = (0.0, 0.0)
dataset = HubDataset({REPO!r}, {REVISION!r}, {dict(DATASET.splits)!r})
quiet = sys.argv[2] == "quiet"
try:
    fetch(dataset, Path(sys.argv[1]), offline=False, reporter=Reporter(quiet), known={{}}, learn=lambda *_: None)
except DucklingError as error:
    print(error, file=sys.stderr)
    sys.exit(error.exit_status)
"""
"""A program that fetches the small dataset into a folder, as the command line would, with no wait between tries."""


def fetch_apart(
    server: HubServer, folder: Path, home: Path, quiet: str = "quiet", **variables: str
) -> subprocess.CompletedProcess[str]:
    """Run FETCH with these variables, which huggingface_hub reads when it is imported."""
    command = [sys.executable, "-c", FETCH, str(folder), quiet]
    env = environment(server, home) | variables
    return subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANG, check=False)


def environment(server: HubServer, home: Path) -> dict[str, str]:
    """An environment in which the hub is our server, and nothing of this machine's own settings for the hub counts."""
    own = {
        name: value
        for name, value in os.environ.items()
        if not name.upper().startswith(("HF_", "HUGGING", "TRANSFORMERS_")) and not name.lower().endswith("_proxy")
    }
    return own | {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home)}
