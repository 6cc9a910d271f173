"""The obvious way, slow and short: transformers' own tokenizer, `collections.Counter`, lists, and datasets.

It is the slow implementation that the pipeline is compared with, and the other side of the benchmark. Nothing of
duckling_data is used here but the folder of GPT-2's two files.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from datasets import Dataset, Features, Sequence, Value
from tokenizers import Tokenizer
from transformers import GPT2TokenizerFast, PreTrainedTokenizerFast


def load_gpt2(folder: Path) -> GPT2TokenizerFast:
    """GPT-2's tokenizer from a folder that holds encoder.json and vocab.bpe."""
    vocabulary = json.loads((folder / "encoder.json").read_text(encoding="utf-8"))
    merges = [tuple(line.split(" ")) for line in (folder / "vocab.bpe").read_text(encoding="utf-8").splitlines()[1:]]
    return GPT2TokenizerFast(vocab=vocabulary, merges=merges)


def load_base(content: bytes) -> PreTrainedTokenizerFast:
    """Another base tokenizer, from its `tokenizer.json`."""
    return PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(content.decode()))


def encode(tokenizer: PreTrainedTokenizerFast, texts: list[str]) -> list[list[int]]:
    if not texts:
        return []
    return tokenizer(texts, add_special_tokens=False, return_attention_mask=False, verbose=False)["input_ids"]


def count(tokenizer: PreTrainedTokenizerFast, dataset: Dataset, sample: int | None, seed: int) -> Counter[int]:
    """Token frequencies; the Counter's insertion order is the order of first appearance."""
    if sample is not None:
        dataset = dataset.shuffle(seed=seed).select(range(min(sample, len(dataset))))
    counts: Counter[int] = Counter()
    for start in range(0, len(dataset), 1000):
        for ids in encode(tokenizer, [text or "" for text in dataset[start : start + 1000]["text"]]):
            counts.update(ids)
    return counts


def build_mapping(counts: Counter[int], live: int, dead: int, base: bytes | None = None) -> dict[str, Any]:
    """The seed's mapping: the most frequent ids, ties in order of first appearance; unknown becomes 0.

    `base` is the file of another base tokenizer than GPT-2.
    """
    ids = [token for token, _ in counts.most_common(live)]
    mapping = {
        "live_tokens": live,
        "dead_tokens": dead,
        "total_vocab": live + dead,
        "unk_id": 0,
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(ids)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(ids)},
        "live_token_ids": ids,
    }
    return mapping if base is None else mapping | {"base": hashlib.sha256(base).hexdigest()}


def mapping_bytes(mapping: dict[str, Any]) -> bytes:
    return json.dumps(mapping, indent=2).encode()


def pack(
    tokenizer: PreTrainedTokenizerFast,
    texts: Iterable[str | None],
    mapping: dict[str, Any],
    ctx: int,
    group: int | None,
) -> list[list[int]]:
    """Rows of ctx compact ids: each group of stories concatenated, cut, its tail dropped."""
    to_compact = {int(gpt2): compact for gpt2, compact in mapping["gpt2_to_compact"].items()}
    texts = [text or "" for text in texts]
    rows = []
    for start in range(0, len(texts), group or max(len(texts), 1)):
        stream: list[int] = []
        for ids in encode(tokenizer, texts[start : start + (group or len(texts))]):
            stream.extend(to_compact.get(token, mapping["unk_id"]) for token in ids)
        rows += [stream[at : at + ctx] for at in range(0, len(stream) - ctx + 1, ctx)]
    return rows


def features(ctx: int) -> Features:
    return Features({"input_ids": Sequence(Value("uint16"), length=ctx)})


def build(
    parquet: Path,
    out: Path,
    gpt2_folder: Path,
    *,
    sample: int | None = 100_000,
    seed: int = 42,
    live: int = 6144,
    dead: int = 2048,
    ctx: int = 512,
    group: int = 10_000,
) -> None:
    """The whole pipeline, from a Parquet file to the two files, as a notebook would do it."""
    tokenizer = load_gpt2(gpt2_folder)
    dataset = Dataset.from_parquet(str(parquet), cache_dir=str(out / "cache"))
    mapping = build_mapping(count(tokenizer, dataset, sample, seed), live, dead)
    (out / "token_mapping.json").write_bytes(mapping_bytes(mapping))
    packed = dataset.map(
        lambda batch: {"input_ids": pack(tokenizer, batch["text"], mapping, ctx, None)},
        batched=True,
        batch_size=group,
        remove_columns=dataset.column_names,
        features=features(ctx),
    )
    packed.save_to_disk(str(out / "tokenized_dataset"))
