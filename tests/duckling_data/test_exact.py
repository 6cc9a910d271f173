"""The pipeline gives the obvious way's bytes, whatever the corpus, the sample, the grouping and the batching."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from datasets import Dataset
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.base.gpt2_files import gpt2_folder
from duckling_data.base.progress import Reporter
from duckling_data.corpus import splits as corpus_module
from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.files import CorpusFile, file_state
from duckling_data.corpus.readers import ReadOptions
from duckling_data.corpus.readers import parquet as reader_parquet
from duckling_data.corpus.splits import FileSplit
from duckling_data.pipeline import Pipeline, Request
from duckling_data.rows.read import read_rows
from tests.support import reference_pipeline as reference

REAL = Path(__file__).parents[3] / "shared" / "data" / "tinystories"


@pytest.fixture(scope="module")
def gpt2() -> Any:
    return reference.load_gpt2(gpt2_folder())


def make(workspace: Path, sources: list[Path], workers: int = 2, encoder: str = "gigatoken", **given: Any) -> bytes:
    """Run the pipeline; return the mapping's bytes."""
    shards = given.pop("shards", None)
    request = Request(workspace, workers, tuple(map(str, sources)), settings=given, encoder=encoder, shards=shards)
    Pipeline(request, Reporter(quiet=True)).make("pack")
    return (workspace / "token_mapping.json").read_bytes()


def rows_of(workspace: Path) -> np.ndarray:
    return np.concatenate(read_rows(workspace / "tokenized_dataset"))


def expect(gpt2: Any, texts: list[str | None], *, sample: int | None, live: int, ctx: int, group: int | None) -> Any:
    """What the obvious way makes of the stories: (mapping bytes, rows)."""
    counts = reference.count(gpt2, Dataset.from_dict({"text": texts}), sample, seed=42)
    mapping = reference.build_mapping(counts, live, 16)
    rows = reference.pack(gpt2, texts, mapping, ctx, group)
    return reference.mapping_bytes(mapping), np.array(rows, np.uint16).reshape(-1, ctx)


def check(gpt2: Any, texts: list[str | None], folder: Path, sources: list[Path], **given: Any) -> None:
    workers, encoder = given.pop("workers", 2), given.pop("encoder", "gigatoken")
    shards = given.pop("shards", None)
    mapping, rows = expect(gpt2, texts, **given)
    in_settings = {name: "all" if value is None else value for name, value in given.items()}
    made = make(folder, sources, workers, encoder, dead=16, shards=shards, **in_settings)
    assert made == mapping
    np.testing.assert_array_equal(rows_of(folder), rows)


def real_texts(*names: str) -> list[str]:
    for name in names:
        if not (REAL / name).exists():
            pytest.skip(f"the real stories ({name}) are not beside the project")
    return [json.loads(line)["text"] for name in names for line in (REAL / name).open(encoding="utf-8")]


@pytest.mark.parametrize("sample", [None, 3000])
def test_real_stories_equal_the_obvious_way(gpt2: Any, tmp_path: Path, sample: int | None) -> None:
    names = ("train-head-v1.jsonl", "extra-v2.jsonl")
    texts = real_texts(*names)
    sources = [REAL / name for name in names]
    check(gpt2, list(texts), tmp_path, sources, sample=sample, live=6144, ctx=512, group=10_000)


def test_story_0_of_the_real_stories_has_162_tokens(gpt2: Any) -> None:
    from duckling_data.tokens.encoders import load_encoder

    story = real_texts("train-head-v1.jsonl")[0]
    batch = load_encoder().encode_batch(pa.array([story], pa.large_string()))
    assert batch.lengths.tolist() == [162]
    assert batch.tokens.tolist() == reference.encode(gpt2, [story])[0]


@pytest.fixture(scope="module")
def demo_parquet(tmp_path_factory: pytest.TempPathFactory) -> tuple[list[str | None], Path]:
    texts: list[str | None] = demo_stories(0, 1200).to_pylist()
    path = tmp_path_factory.mktemp("demo") / "demo.parquet"
    pq.write_table(pa.table({"text": texts}), path, row_group_size=100)
    return texts, path


@pytest.mark.parametrize(
    ("sample", "group", "workers"),
    [*itertools.product([None, 500], [1, 7, 10_000, None], [1, 2, 5])],
)
def test_demo_stories_equal_the_obvious_way(
    gpt2: Any,
    tmp_path: Path,
    demo_parquet: tuple[list[str | None], Path],
    expected_demo: dict[Any, Any],
    sample: int | None,
    group: int | None,
    workers: int,
) -> None:
    texts, path = demo_parquet
    if (sample, group) not in expected_demo:
        expected_demo[sample, group] = expect(gpt2, texts, sample=sample, live=1500, ctx=64, group=group)
    mapping, rows = expected_demo[sample, group]
    made = make(tmp_path, [path], workers, sample=sample or "all", group=group or "all", live=1500, dead=16, ctx=64)
    assert made == mapping
    np.testing.assert_array_equal(rows_of(tmp_path), rows)


@pytest.fixture(scope="module")
def expected_demo() -> dict[Any, Any]:
    return {}


@pytest.mark.parametrize("batch_stories", [1, 13, 4000])
@pytest.mark.parametrize("row_group", [1, 50, 1200])
def test_any_row_group_and_batch_size_gives_the_same_bytes(
    tmp_path: Path,
    demo_parquet: tuple[list[str | None], Path],
    monkeypatch: pytest.MonkeyPatch,
    batch_stories: int,
    row_group: int,
) -> None:
    texts, path = demo_parquet
    once = make(tmp_path / "a", [path], sample=500, live=1000, dead=16, ctx=64)
    monkeypatch.setattr(reader_parquet, "BATCH_STORIES", batch_stories)
    monkeypatch.setattr(reader_parquet, "ROW_GROUP_LIMIT", 0 if row_group == 1200 else 1 << 30)
    other = tmp_path / "other.parquet"
    pq.write_table(pa.table({"text": texts}), other, row_group_size=row_group)
    assert make(tmp_path / "b", [other], sample=500, live=1000, dead=16, ctx=64) == once
    np.testing.assert_array_equal(rows_of(tmp_path / "a"), rows_of(tmp_path / "b"))


@pytest.mark.parametrize("block_bytes", [1, 7, 1000])
@pytest.mark.parametrize("kind", ["jsonl", "txt"])
def test_any_block_size_reads_the_same_stories(tmp_path: Path, block_bytes: int, kind: str) -> None:
    from duckling_data.corpus.readers import count_stories, read_blocks

    texts = ["One day.\n\nTwo.", "", "Ünïcode 🦆 <|end", "a" * 3000, "\u2028 end|>"]
    path = tmp_path / f"stories.{kind}"
    if kind == "jsonl":
        lines = [json.dumps({"text": text}, ensure_ascii=False) for text in texts]
        path.write_text("\n".join(lines) + "\n\n", encoding="utf-8")
    else:
        path.write_text("\n<|endoftext|>\n".join(texts), encoding="utf-8")
    read = [text for block in read_blocks(path, ReadOptions(), block_bytes) for text in block.parse().to_pylist()]
    assert read == texts
    assert count_stories(path, ReadOptions()) == len(texts)


PIECES = ["the cat", " sat", ".", "\n", " 🦆", "<|endoftext|>", " a a a", "'s"]

stories = st.lists(
    st.one_of(
        st.none(),
        st.text(max_size=40),
        st.lists(st.sampled_from(PIECES), max_size=30).map("".join),
    ),
    min_size=1,
    max_size=40,
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    texts=stories,
    sample=st.one_of(st.none(), st.integers(1, 60)),
    group=st.one_of(st.none(), st.integers(1, 12)),
    ctx=st.integers(1, 40),
    workers=st.sampled_from([1, 2, 5]),
    shards=st.one_of(st.none(), st.integers(1, 9)),
    encoder=st.sampled_from(["gigatoken", "tokenizers"]),
    data=st.data(),
)
def test_any_corpus_equals_the_obvious_way(
    gpt2: Any,
    tmp_path_factory: pytest.TempPathFactory,
    texts: list[str | None],
    sample: int | None,
    group: int | None,
    ctx: int,
    workers: int,
    shards: int | None,
    encoder: str,
    data: st.DataObject,
) -> None:
    counts = reference.count(gpt2, Dataset.from_dict({"text": [*texts, ""]}), sample, seed=42)
    if not counts:
        return
    live = data.draw(st.integers(1, len(counts)))
    _, rows = expect(gpt2, [*texts, ""], sample=sample, live=live, ctx=ctx, group=group)
    if len(rows) == 0:
        return
    folder = tmp_path_factory.mktemp("any")
    path = folder / "s.parquet"
    table = pa.table({"text": pa.array([*texts, ""], pa.string())})
    pq.write_table(table, path, row_group_size=data.draw(st.integers(1, 9)))
    check(
        gpt2,
        [*texts, ""],
        folder / "w",
        [path],
        sample=sample,
        live=live,
        ctx=ctx,
        group=group,
        workers=workers,
        shards=shards,
        encoder=encoder,
    )


def test_several_files_and_formats_are_one_corpus_in_order(gpt2: Any, tmp_path: Path) -> None:
    import gzip

    texts = demo_stories(0, 90).to_pylist()
    folder = tmp_path / "stories"
    folder.mkdir()
    lines = "".join(json.dumps({"text": text}) + "\n" for text in texts[:30]).encode()
    (folder / "a.jsonl.gz").write_bytes(gzip.compress(lines))
    pq.write_table(pa.table({"text": texts[30:60]}), folder / "b.parquet")
    content = "\n<|endoftext|>\n".join(texts[60:80]).encode()
    (folder / "c.txt.zst").write_bytes(pa.compress(content, codec="zstd", asbytes=True))
    pq.write_table(pa.table({"text": texts[80:]}), tmp_path / "d")
    (folder / "d.parquet.gz").write_bytes(gzip.compress((tmp_path / "d").read_bytes()))
    (folder / "notes.md").write_text("not stories")
    check(gpt2, texts, tmp_path / "w", [folder], sample=None, live=300, ctx=32, group=7)


def test_blocks_number_the_stories_without_gaps(demo_parquet: tuple[list[str | None], Path]) -> None:
    texts, path = demo_parquet
    split = FileSplit((CorpusFile(path, path.name, "", len(texts), file_state(path)),), ReadOptions())
    read = [(first, block.parse().to_pylist()) for first, block in corpus_module.numbered_blocks(split)]
    assert [first for first, _ in read] == list(np.cumsum([0] + [len(stories) for _, stories in read])[:-1])
    assert [text for _, stories in read for text in stories] == texts


def test_a_corpus_of_another_size_than_was_counted_is_refused(demo_parquet: tuple[list[str | None], Path]) -> None:
    texts, path = demo_parquet
    split = FileSplit((CorpusFile(path, path.name, "", len(texts) + 1, file_state(path)),), ReadOptions())
    with pytest.raises(InputError, match="changed while it was read"):
        list(corpus_module.numbered_blocks(split))
