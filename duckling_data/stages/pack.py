"""Stage `pack`: every story of a split, encoded and mapped to compact ids, cut into rows of `ctx` tokens.

Each run of `group` consecutive stories is one stream of tokens, without separators unless asked for; its tail of
fewer than `ctx` tokens is dropped, as the original's `Dataset.map(batched=True, batch_size=10_000)` does.

Threads read, encode and map; one thread cuts and hashes what they hand over in order, and another writes it. Reading
and encoding take most of the time, some 400 MB/s of text a core each.
"""

from __future__ import annotations

import msgspec

from duckling_data.base.disk import check_room
from duckling_data.base.files import remove, replace_directory
from duckling_data.base.records import FileRecord
from duckling_data.rows.layout import column_dtypes
from duckling_data.rows.write import RowWriter
from duckling_data.stages.base import Context, Made, Stage
from duckling_data.stages.count import COUNT, CountFigures
from duckling_data.stages.pack_shards import pack_in_shards, pack_tasks
from duckling_data.stages.packer import (
    DATASET_NAMES,
    PackFigures,
    PackSettings,
    SplitFigures,
    SplitPacker,
    refuse_no_row,
)
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.mapping import MAPPING_FILE, TokenMapping, open_mapping


def _write_split(
    context: Context, split: str, mapping: TokenMapping, settings: PackSettings
) -> tuple[RowWriter, SplitFigures]:
    """Write a split's rows beside their directory. Raises InputError if the split does not fill one row."""
    encoded = context.encoded[split]
    packer = SplitPacker(encoded, mapping, settings)
    stories = encoded.split.stories
    place, total_vocab = context.workspace / DATASET_NAMES[split], mapping["total_vocab"]
    with (
        RowWriter(place, settings.ctx, split, total_vocab, positions=settings.positions) as writer,
        context.reporter.bar(f"pack {split}", stories, "stories") as bar,
    ):
        for batch in packer.batches(last=True):
            writer.write(batch.rows, batch.positions)
            bar.update(len(batch.lengths))
        refuse_no_row(packer.sums, split, settings)
    return writer, packer.sums.figures(mapping, writer.payload_sha256, writer.positions_sha256)


def _inputs(context: Context, settings: PackSettings) -> dict[str, str]:
    corpus = {f"corpus {split}": digest for split, digest in context.digests.items()}
    return {"mapping": context.output(VOCAB.name, MAPPING_FILE)} | corpus | context.base_input()


def _check_room(context: Context, settings: PackSettings, total_vocab: int) -> None:
    """Raise OutsideError where the disk has no room for the rows, 2 or 4 bytes a token, and for tokens that are kept.

    A token's position takes 4 bytes more.
    """
    counted = context.manifest.figures(COUNT.name, CountFigures)
    if counted is None:  # a mapping of the user's own needs no counts
        return
    a_token = sum(dtype.itemsize for dtype in column_dtypes(total_vocab, positions=settings.positions).values())
    a_story = a_token * counted.tokens // counted.stories_counted
    needed = sum(split.room(a_story * split.split.stories) for split in context.encoded.values())
    if context.sharding is not None:  # there are the streams of tokens and the rows, less what is made already
        needed = 2 * needed - context.sharding.bytes_made()
    check_room(context.workspace, min(needed, 1 << 62), "the packed rows")


def _make(context: Context, settings: PackSettings) -> Made[PackFigures]:
    mapping = open_mapping(context.workspace / MAPPING_FILE, context.base)[0]
    _check_room(context, settings, mapping["total_vocab"])
    if context.sharding is not None:
        packed = pack_in_shards(context, mapping, settings)
        context.begin()
        for split, made in packed.items():
            replace_directory(made.folder, context.workspace / DATASET_NAMES[split])
        return _made(context, {split: (made.outputs, made.figures) for split, made in packed.items()})
    written: dict[str, tuple[RowWriter, SplitFigures]] = {}
    try:
        for split in context.encoded:
            written[split] = _write_split(context, split, mapping, settings)
    except BaseException:
        for writer, _ in written.values():
            writer.discard()
        raise
    # Only now, with every row written, are the rows of before replaced.
    context.begin()
    for writer, _ in written.values():
        writer.put_in_place()
    return _made(context, {split: (writer.outputs, figures) for split, (writer, figures) in written.items()})


def _made(context: Context, splits: dict[str, tuple[dict[str, FileRecord], SplitFigures]]) -> Made[PackFigures]:
    """Return what was made of the splits, whose directories are in place; one left by another source is removed."""
    outputs: dict[str, FileRecord] = {}
    for split, name in DATASET_NAMES.items():
        if split in splits:
            outputs |= {f"{name}/{file}": made for file, made in splits[split][0].items()}
        else:
            remove(context.workspace / name)
    return outputs, msgspec.convert({"splits": {split: made for split, (_, made) in splits.items()}}, PackFigures)


def _summary(figures: PackFigures) -> str:
    rows = ", ".join(f"{split.rows:,} rows ({name})" for name, split in figures.splits.items())
    train = figures.splits["train"]
    share = None if train.split_tokens is None else train.split_tokens / max(train.gpt2_tokens, 1)
    split = "" if share is None else f", split into pieces {share:.4%}"
    return f"{rows}, unknown tokens {train.unknown_rate:.4%}{split}"


PACK = Stage(
    name="pack", needs=(VOCAB.name,), outputs=tuple(DATASET_NAMES.values()), settings=PackSettings, figures=PackFigures,
    inputs=_inputs, make=_make, summary=_summary, shards=pack_tasks,
)  # fmt: skip
