"""Stores for tests: fsspec's memory, and a web server on 127.0.0.1 whose faults can be ordered."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import fsspec
import pytest

from duckling_data.corpus.remote import cache, store, tries
from tests.support.hub.case import parquet
from tests.support.hub.server import HubServer

KEY = "a/b/resolve/main/stories.parquet"


@pytest.fixture(autouse=True)
def quick_stores(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    """No wait between tries, and a cache of this test's own."""
    monkeypatch.setattr(tries, "WAITS", (0.0, 0.0))
    (tmp_path / "tmp").mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path / "tmp"))
    monkeypatch.setattr(cache, "_caches", {})
    monkeypatch.setattr(store, "_opened", {})
    yield
    fsspec.filesystem("memory").rm("/", recursive=True)


@pytest.fixture
def web() -> Iterator[HubServer]:
    with HubServer({KEY: parquet(0, 60)}, large=False) as running:
        yield running


def url_of(server: HubServer, key: str = KEY) -> str:
    return f"{server.endpoint}/datasets/{key}"


def fetched() -> list[Path]:
    return [path for path in Path(tempfile.gettempdir()).rglob("*") if path.is_file()]
