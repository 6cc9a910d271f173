"""Stage `pack` in shards: parts of the stories become streams of tokens, and these are cut into the dataset's files.

First each task encodes and maps its part of every split. Parts begin where a group begins, so the rows of a group are
cut in its own part, and a part's stream is its rows; where all stories are one group (`--group all`), it is all its
tokens. Either way the rows of a split are its streams, one behind the other, `ctx` tokens each. Then each task writes
one file of ROWS_PER_SHARD rows out of the streams that hold them, and one task for each column reads the streams
through for its digest: SHA-256 goes from the first row to the last.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import msgspec

from duckling_data.base.files import own_folder, sync_directory
from duckling_data.base.records import Count, FileRecord
from duckling_data.corpus.splits import Stretch, stretch
from duckling_data.rows.layout import ROWS_PER_SHARD, column_dtypes
from duckling_data.rows.streams import Digest, StreamRecord, Streams, stream_writer, write_rows
from duckling_data.rows.write import data_name, write_descriptions
from duckling_data.stages.base import Context
from duckling_data.stages.packer import PackSettings, SplitFigures, SplitPacker, Sums, refuse_no_row
from duckling_data.stages.shards import Sharding, Task
from duckling_data.tokens.encoding import EncodedSplit, Encoding, shared_pool
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, open_mapping


class PackedPart(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task made of its part of a split."""

    sums: dict[str, Count]
    """The fields of `Sums`."""
    columns: dict[str, StreamRecord]


class PackedShard(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a task made of its part of every split."""

    splits: dict[str, PackedPart]


class PackedSplit(NamedTuple):
    """A split whose rows are written, beside their place."""

    folder: Path
    outputs: dict[str, FileRecord]
    """The record of each file, by its name inside the directory."""
    figures: SplitFigures


def pack_shard(
    folder: Path, name: str, parts: dict[str, Stretch], mapping: Path, settings: PackSettings, encoder: Encoding,
    workers: int,
) -> PackedShard:  # fmt: skip
    """Write the streams of each split's part. Returns what they hold."""
    pool, made = shared_pool(encoder), {}
    live = open_mapping(mapping, pool.base)[0]
    for split, part in parts.items():
        encoded = EncodedSplit(part.here(), pool, workers)
        packer = SplitPacker(encoded, live, settings, cut=settings.group is not None)
        with ExitStack() as stack:
            paths = _stream_paths(folder, name, split, settings)
            writers = {column: stack.enter_context(stream_writer(path)) for column, path in paths.items()}
            for batch in packer.batches(last=True):
                for writer, values in zip(writers.values(), (batch.rows, batch.positions), strict=False):
                    assert values is not None
                    writer.write(values)
            columns = {column: writer.record() for column, writer in writers.items()}
        made[split] = PackedPart(msgspec.to_builtins(packer.sums), columns)
    return PackedShard(made)


def _stream_paths(folder: Path, name: str, split: str, settings: PackSettings) -> dict[str, Path]:
    """Return the file of each column of a split's part, the ids' first."""
    return {column: folder / f"{split}-{column}-{name}" for column in column_dtypes(positions=settings.positions)}


def pack_tasks(context: Context, settings: PackSettings) -> list[Task[PackedShard]]:
    """Return the tasks that write the streams, one a shard."""
    sharding = context.sharding
    assert sharding is not None
    folder, mapping, tasks = sharding.folder(), context.workspace / MAPPING_FILE, []
    for number in range(sharding.shards):
        name, unit = sharding.shard_name(number), settings.group or 1
        parts = {split: stretch(whole, number, sharding.shards, unit) for split, whole in context.splits.items()}
        make = partial(pack_shard, folder, name, parts, mapping, settings, sharding.encoder, sharding.workers)
        files = [path for split in parts for path in _stream_paths(folder, name, split, settings).values()]
        stories = sum(part.stories for part in parts.values())
        tasks.append(Task(folder / f"packed-{name}", make, PackedShard, stories, tuple(files)))
    return tasks


class _Joined:
    """The streams of a split's parts, and the tasks that make the dataset's files out of them."""

    def __init__(
        self, sharding: Sharding, split: str, parts: Sequence[PackedPart], settings: PackSettings, total_vocab: int
    ) -> None:
        self._split, self._ctx, self._total_vocab = split, settings.ctx, total_vocab
        self._folder = own_folder(sharding.folder(), split)
        self.sums = sum((Sums(**part.sums) for part in parts), Sums())
        if settings.group is None:  # the streams are not cut yet
            rows, dropped = divmod(self.sums.tokens, settings.ctx)
            self.sums = replace(self.sums, rows=rows, dropped=dropped)
        names = map(sharding.shard_name, range(len(parts)))
        paths = [_stream_paths(sharding.folder(), name, split, settings) for name in names]
        self.columns = [
            Streams(tuple(path[name] for path in paths), tuple(part.columns[name] for part in parts),
                    dtype.newbyteorder("<").str)
            for name, dtype in column_dtypes(total_vocab, positions=settings.positions).items()
        ]  # fmt: skip
        count = -(-self.sums.rows // ROWS_PER_SHARD)
        self._names = [data_name(number, count) for number in range(count)]

    def tasks(self) -> list[Task[Any]]:
        """Return the tasks of the columns' digests, then those of the files with rows."""
        folder, rows = self._folder, self.sums.rows
        tasks: list[Task[Any]] = [
            Task(folder / f"digest-{number}", partial(column.digest, rows * self._ctx), Digest, 0)
            for number, column in enumerate(self.columns)
        ]
        for number, name in enumerate(self._names):
            own = range(number * ROWS_PER_SHARD, min(rows, (number + 1) * ROWS_PER_SHARD))
            make = partial(write_rows, folder / name, self.columns, own, self._ctx, self._total_vocab)
            tasks.append(Task(folder / f"record-{number}", make, FileRecord, len(own), (folder / name,)))
        return tasks

    def finish(self, results: Sequence[Any], mapping: TokenMapping) -> PackedSplit:
        """Write the descriptions beside the files, given the results of the tasks, whose own files are removed."""
        digests = [digest.sha256 for digest in results[: len(self.columns)]]
        payload, positions = digests[0], digests[1] if len(digests) > 1 else None
        outputs = dict(zip(self._names, results[len(digests) :], strict=True))
        outputs |= write_descriptions(
            self._folder, self._names, self._ctx, self._split, self._total_vocab, payload, positions
        )
        for task in self.tasks():
            task.record.unlink()
        sync_directory(self._folder)
        return PackedSplit(self._folder, outputs, self.sums.figures(mapping, payload, positions))


def pack_in_shards(context: Context, mapping: TokenMapping, settings: PackSettings) -> dict[str, PackedSplit]:
    """Pack every split, each into a directory among the shards. Raises InputError if a split does not fill one row."""
    sharding, splits = context.sharding, context.splits
    assert sharding is not None
    with context.reporter.bar("pack", sum(split.stories for split in splits.values()), "stories") as bar:
        shards = list(sharding.results(pack_tasks(context, settings), bar, main=True))
    joined = {}
    for split in splits:
        parts = [shard.splits[split] for shard in shards]
        joined[split] = _Joined(sharding, split, parts, settings, mapping["total_vocab"])
        refuse_no_row(joined[split].sums, split, settings)
    tasks = {split: one.tasks() for split, one in joined.items()}
    every = [task for own in tasks.values() for task in own]
    with context.reporter.bar("rows", sum(task.stories for task in every), "rows") as bar:
        results = iter(list(sharding.results(every, bar)))
    return {split: one.finish([next(results) for _ in tasks[split]], mapping) for split, one in joined.items()}
