"""The readers that `fuzz_readers.py` fuzzes: for each, small real files as seeds and the call that reads them."""

from __future__ import annotations

import csv
import functools
import gzip
import io
import json
import lzma
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.support.fuzz.tokens import kept, read_kept, read_tokenizer, tokenizer
from tests.support.fuzz.trainer import (
    checkpoint,
    config,
    embedding,
    read_checkpoint,
    read_embedding,
    read_record,
    read_run,
    read_settings,
    read_sweep,
    record,
    run,
    sweep,
)

TEXTS = [
    "One day, a dog.",
    "",
    None,
    "The cat was glad — naïve 🐈.",
    "Once upon a time there was a boat. " * 9,
    "a",
    "b",
]


@dataclass(frozen=True)
class Target:
    """A reader: its seed files by name, and `read(folder, name)`, where `name` is the file that was mutated."""

    name: str
    seeds: Callable[[], dict[str, bytes]]
    read: Callable[[Path, str], object]
    modules: tuple[str, ...] = ()

    def warm(self, folder: Path) -> None:
        """Import what the reader imports, so that it does not count as the memory of an execution."""
        import importlib

        first = ("numpy", "pyarrow.parquet", "pyarrow.ipc", "orjson", "duckling_data.corpus.sources")
        for module in (*first, *self.modules):
            importlib.import_module(module)


def _read_stories(folder: Path, name: str) -> None:
    from duckling_data.corpus.readers import ReadOptions, count_stories, read_blocks

    path = folder / name
    stories = sum(len(block.parse()) for block in read_blocks(path, ReadOptions(), 1 << 10))
    if stories != count_stories(path, ReadOptions()):
        raise AssertionError("counted and read stories differ")


@functools.cache
def _jsonl() -> bytes:
    return "".join(json.dumps({"id": n, "text": text}) + "\n" for n, text in enumerate(TEXTS)).encode()


@functools.cache
def _txt() -> bytes:
    return "<|endoftext|>\n".join(text or "" for text in TEXTS).encode()


def _csv(delimiter: str) -> bytes:
    sink = io.StringIO()
    csv.writer(sink, delimiter=delimiter).writerows([["id", "text"], *enumerate(TEXTS)])
    return sink.getvalue().encode()


def _zst(content: bytes) -> bytes:
    import pyarrow as pa

    return bytes(pa.Codec("zstd").compress(content, asbytes=True))


@functools.cache
def _parquet() -> dict[str, bytes]:
    import pyarrow as pa
    import pyarrow.parquet as pq

    ways: dict[str, dict[str, Any]] = {
        "plain": {"use_dictionary": False, "compression": "none"},
        "dictionary": {"compression": "none"},
        "snappy": {"compression": "snappy", "row_group_size": 3},
        "zstd": {"compression": "zstd", "data_page_version": "2.0"},
        "gzip": {"compression": "gzip", "write_statistics": False, "store_schema": False},
        "delta": {"use_dictionary": False, "column_encoding": {"text": "DELTA_BYTE_ARRAY"}, "compression": "none"},
        "lengths": {"use_dictionary": False, "column_encoding": {"text": "DELTA_LENGTH_BYTE_ARRAY"}},
    }
    files = {name: _written(pq, pa.table({"text": TEXTS}), **options) for name, options in ways.items()}
    files["category"] = _written(pq, pa.table({"text": pa.array(TEXTS).dictionary_encode()}))
    files["large"] = _written(pq, pa.table({"n": range(len(TEXTS)), "text": pa.array(TEXTS, pa.large_string())}))
    return {f"{name}.parquet": content for name, content in files.items()}


def _written(pq: Any, table: Any, **options: Any) -> bytes:
    sink = io.BytesIO()
    pq.write_table(table, sink, **options)
    return sink.getvalue()


@functools.cache
def _arrow() -> dict[str, bytes]:
    import pyarrow as pa

    files = {}
    texts = pa.array(TEXTS)
    columns = {"string": texts, "view": texts.cast(pa.string_view()), "category": texts.dictionary_encode()}
    for name, column in columns.items():
        table = pa.table({"n": range(len(TEXTS)), "text": column})
        for kind, writer in (("arrow", pa.ipc.new_stream), ("feather", pa.ipc.new_file)):
            with pa.BufferOutputStream() as sink:
                with writer(sink, table.schema) as target:
                    target.write_table(table, 3)
                files[f"{name}.{kind}"] = sink.getvalue().to_pybytes()
    return files


def _mapping() -> bytes:
    live = [13, 198, 290, 262, 11]
    sizes = {"live_tokens": 5, "dead_tokens": 2, "total_vocab": 7, "unk_id": 0}
    tables = {"gpt2_to_compact": {str(g): c for c, g in enumerate(live)}}
    inverse = {str(c): g for c, g in enumerate(live)}
    return json.dumps({**sizes, **tables, "compact_to_gpt2": inverse, "live_token_ids": live}, indent=2).encode()


def _read_mapping(folder: Path, name: str) -> object:
    from duckling_data.tokens.mapping import read_mapping

    return read_mapping(folder / name)


def _manifest() -> bytes:
    from duckling_data.base.records import FileRecord, plain
    from duckling_data.stages.count import CountFigures, LengthHistogram
    from duckling_data.stages.packer import PackFigures, SplitFigures
    from duckling_data.stages.vocab import VocabFigures

    output = plain(FileRecord(7, "ab" * 32))
    count = CountFigures(3, 2, 0, 0, 9, 3, {"90.0%": 3}, LengthHistogram(16, [0, 2]), "cd")
    pack = PackFigures({"train": SplitFigures(3, 0, 2048, 512, 0.25, 2048, 3, 512, "ef")})
    stages = {
        "count": ({"sample": 7, "seed": 42}, "token_counts.parquet", count),
        "build-vocab": ({}, "token_mapping.json", VocabFigures(5, 2)),
        "pack": ({"ctx": 512, "group": "all", "separator": "none"}, "tokenized_dataset/state.json", pack),
    }
    records = {
        name: {"settings": settings, "inputs": {"corpus": "12" * 32}, "outputs": {path: output}, "figures": plain(made)}
        for name, (settings, path, made) in stages.items()
    }
    corpus = {"source": "demo", "splits": {"train": {"stories": 3, "generator": "ab"}}}
    return json.dumps({"format": 1, "corpus": corpus, "stages": records}, indent=2).encode()


def _read_manifest(folder: Path, name: str) -> None:
    from duckling_data.stages import STAGES
    from duckling_data.workspace.manifest import Manifest
    from duckling_data.workspace.settings import resolve

    manifest = Manifest(folder)
    for stage in STAGES:
        record = manifest.stages.get(stage.name)
        if record is not None:
            resolve(stage.settings, {}, record.settings)
            manifest.stale(stage.name, {"seed": 42}, {"corpus": "12" * 32})
            if figures := manifest.figures(stage.name, stage.figures):
                stage.summary(figures)


def _read_source(folder: Path, name: str) -> None:
    from duckling_data.workspace.source_record import read_source

    read_source(folder)


def _source() -> bytes:
    counted = {"ab" * 32 + " .jsonl text": 7}
    return json.dumps({"format": 1, "sources": ["demo:100"], "text_field": "text", "counted": counted}).encode()


@functools.cache
def _dataset() -> dict[str, bytes]:
    import tempfile

    import numpy as np

    from duckling_data.rows.write import RowWriter

    with tempfile.TemporaryDirectory() as folder:
        with RowWriter(Path(folder) / "d", 16, "train") as writer:
            writer.write(np.arange(160, dtype=np.uint16).reshape(10, 16))
        writer.put_in_place()
        return {path.name: path.read_bytes() for path in (Path(folder) / "d").iterdir()}


def _read_dataset(folder: Path, name: str) -> None:
    from duckling_data.rows.read import open_rows

    rows = open_rows(folder)
    _ = rows.max_id(), rows.payload_sha256()


def _counts() -> bytes:
    import numpy as np

    from duckling_data.stages.count import TokenCounts
    from duckling_data.stages.counts import write_counts

    ids = np.array([13, 198, 290, 262], np.int64)
    return _through_a_file("c.parquet", lambda path: write_counts(path, TokenCounts(ids, ids[::-1].copy(), ids % 4)))


def _through_a_file(name: str, write: Callable[[Path], None]) -> bytes:
    import tempfile

    with tempfile.TemporaryDirectory() as folder:
        write(Path(folder) / name)
        return (Path(folder) / name).read_bytes()


def _read_counts(folder: Path, name: str) -> None:
    from duckling_data.stages.counts import read_counts

    counts = read_counts(folder / name)
    _ = counts.total, counts.digest(), counts.ids_for_coverage()


def _golden() -> dict[str, bytes]:
    digests = {"counts_sha256": "cd", "mapping_sha256": "ab" * 32, "tokenized_dataset_payload_sha256": "ef"}
    return {"golden.json": json.dumps({"digests": digests}).encode(), "manifest.json": _manifest()}


def _read_golden(folder: Path, name: str) -> None:
    from duckling_data.verify.golden import golden_differences
    from duckling_data.workspace.manifest import Manifest

    list(golden_differences(Manifest(folder), folder / "golden.json"))


TARGETS = (
    Target("jsonl", lambda: {"s.jsonl": _jsonl()}, _read_stories),
    Target("txt", lambda: {"s.txt": _txt()}, _read_stories),
    Target("gz", lambda: {"s.jsonl.gz": gzip.compress(_jsonl(), mtime=0)}, _read_stories),
    Target("zst", lambda: {"s.txt.zst": _zst(_txt())}, _read_stories),
    Target("xz", lambda: {"s.txt.xz": lzma.compress(_txt())}, _read_stories),
    Target("list", lambda: {"s.json": b"[" + _jsonl().rstrip().replace(b"}\n", b"},\n") + b"]"}, _read_stories),
    Target("table", lambda: {"s.csv": _csv(","), "s.tsv": _csv("\t")}, _read_stories),
    Target("parquet", _parquet, _read_stories),
    Target("arrow", _arrow, _read_stories),
    Target("mapping", lambda: {"m.json": _mapping()}, _read_mapping),
    Target("manifest", lambda: {"manifest.json": _manifest()}, _read_manifest, ("duckling_data.stages.pack",)),
    Target("source", lambda: {"corpus/source.json": _source()}, _read_source),
    Target("dataset", _dataset, _read_dataset),
    Target("config", lambda: {"c.json": config()}, read_settings, ("duckling_train.settings",)),
    Target("run", run, read_run, ("duckling_train.compare.table",)),
    Target("checkpoint", checkpoint, read_checkpoint, ("duckling_train.runs.checkpoint",)),
    Target("counts", lambda: {"c.parquet": _counts()}, _read_counts),
    Target("kept", kept, read_kept, ("duckling_data.tokens.store",)),
    Target("tokenizer", tokenizer, read_tokenizer, ("duckling_data.tokens.encoders", "gigatoken", "tokenizers")),
    Target("golden", _golden, _read_golden, ("duckling_data.verify.golden",)),
    Target("record", record, read_record, ("duckling_train.recording.writer",)),
    Target("embedding", embedding, read_embedding, ("duckling_train.embedding.figures",)),
    Target("sweep", lambda: {"sweep.json": sweep()}, read_sweep, ("duckling_train.sweep.layout",)),
)
