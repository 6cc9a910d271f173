"""The seed's own cells, unchanged, read what `duckling-data pack` makes of the demo's stories by default."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.tokens.tokenizer import DucklingTokenizer
from duckling_data.workspace.manifest import Manifest
from tests.support.data import build, read_json, rows_of
from tests.support.seed_cells import Namespace, run_data_cells

GOLDEN = Path(__file__).parents[2] / "artifacts" / "golden" / "demo.json"
TEXTS = [
    *demo_stories(0, 200).to_pylist(),
    *demo_stories(0, 20, split="validation").to_pylist(),
    "",
    "A zyzzyva said: “Žluťoučký kůň” 🦆\x07\n\nThe end.<|endoftext|>",
]


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The demo at its defaults."""
    workspace = tmp_path_factory.mktemp("demo")
    build(workspace, "demo")
    return workspace


@pytest.fixture(scope="module", params=["most-frequent", "reserved"])
def seed(
    request: pytest.FixtureRequest, demo: Path, tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Namespace]:
    """A folder with our two files alone, and what the seed's cells make of them."""
    workspace = demo
    if request.param != "most-frequent":
        workspace = tmp_path_factory.mktemp(request.param) / "w"
        shutil.copytree(demo, workspace)
        build(workspace, unk=request.param)
    folder = tmp_path_factory.mktemp("notebook")
    shutil.copy(workspace / "token_mapping.json", folder)
    shutil.copytree(workspace / "tokenized_dataset", folder / "tokenized_dataset")
    return folder, run_data_cells(folder)


def test_the_defaults_give_the_golden_digests(demo: Path) -> None:
    from duckling_data.verify import golden_digests

    assert golden_digests(Manifest(demo)) == read_json(GOLDEN)["digests"]


def test_the_seeds_dataset_is_our_rows(seed: tuple[Path, Namespace]) -> None:
    folder, cells = seed
    rows, dataset = rows_of(folder), cells["dataset"]
    assert len(dataset) == len(rows) > 9000
    assert dataset.column_names == ["input_ids"]
    np.testing.assert_array_equal(np.array(dataset.with_format("numpy")["input_ids"]), rows)
    assert rows.shape[1] == cells["N_POSITIONS"] == 512
    assert sorted(cells["dead_token_ids"]) == list(range(6144, 8192))
    assert int(rows.max()) < cells["LIVE_TOKENS"] == 6144


def test_the_seeds_collator_makes_batches_of_our_rows(seed: tuple[Path, Namespace]) -> None:
    folder, cells = seed
    batch = cells["collator"]([cells["dataset"][row] for row in (3, 0)])
    assert batch["input_ids"].tolist() == batch["labels"].tolist() == rows_of(folder)[[3, 0]].tolist()


def test_the_seeds_tokenizer_and_ours_encode_and_decode_alike(seed: tuple[Path, Namespace]) -> None:
    folder, cells = seed
    ours, theirs = DucklingTokenizer.from_mapping(folder / "token_mapping.json"), cells["tokenizer"]
    encoded = [theirs.encode(text) for text in TEXTS]
    assert [ours.encode(text) for text in TEXTS] == encoded
    assert any(ours.unk_id in ids for ids in encoded)
    for ids in [*encoded, *rows_of(folder)[:50].tolist(), [6143, 6144, 8191, 0]]:
        assert ours.decode(ids) == theirs.decode(ids)


def test_the_first_rows_are_the_first_stories_under_the_seeds_tokenizer(seed: tuple[Path, Namespace]) -> None:
    folder, cells = seed
    stream: list[Any] = [token for text in TEXTS[:200] for token in cells["tokenizer"].encode(text)]
    rows = rows_of(folder)[: len(stream) // 512]
    assert rows.ravel().tolist() == stream[: rows.size]
