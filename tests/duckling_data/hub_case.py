"""A small dataset on a hub of our own, and how a process is made to take that hub for the hub."""

from __future__ import annotations

import io
import os
from pathlib import Path
from types import MappingProxyType
from typing import Any

import huggingface_hub
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data import hub
from duckling_data.demo import demo_stories
from duckling_data.hub import HubDataset, fetch
from duckling_data.progress import Reporter
from tests.duckling_data.conftest import snapshot
from tests.duckling_data.hub_server import HubServer

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
    monkeypatch.setattr(hub, "WAITS", (0.0,) * (TRIES - 1))
    for name in ("http_proxy", "https_proxy", "all_proxy"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.upper(), raising=False)
    huggingface_hub.close_session()  # the client reads the proxies' variables when it is made


def get(folder: Path, dataset: HubDataset = DATASET, *, offline: bool = False, quiet: bool = True) -> Any:
    return fetch(dataset, folder, offline=offline, reporter=Reporter(quiet))


def files(folder: Path) -> dict[str, str]:
    """What a later run could take for a file of the corpus: all but the client's own notes."""
    return {name: digest for name, digest in snapshot(folder).items() if not name.startswith(".cache/")}


FETCH = f"""
import sys
from pathlib import Path
from duckling_data.hub import HubDataset, fetch
from duckling_data.progress import Reporter
dataset = HubDataset({REPO!r}, {REVISION!r}, {dict(DATASET.splits)!r})
fetch(dataset, Path(sys.argv[1]), offline=False, reporter=Reporter(quiet=True))
"""


def environment(server: HubServer, home: Path) -> dict[str, str]:
    """An environment in which the hub is our server, and nothing of this machine's own settings for the hub counts."""
    own = {name: value for name, value in os.environ.items() if not name.lower().endswith(("_proxy", "hf_token"))}
    return own | {"HF_ENDPOINT": server.endpoint, "HF_HOME": str(home), "HF_HUB_OFFLINE": "0"}
