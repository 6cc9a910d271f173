"""Stage `build-vocab`: the compact vocabulary. Live ids first, most frequent first; the dead ids behind them.

What happens to a token of the base, GPT-2, that has no live id is a policy:

`most-frequent`  the seed's: it becomes compact id 0, the most frequent token.
`reserved`       it becomes the last live id, which is kept for them alone.
`decompose`      it is split back along the merge that made it, until every piece is live. Single bytes are what is
                 left at last, so the corpus is encoded without loss; the live set holds exactly the bytes
                 that this corpus reaches. More bytes mean fewer whole tokens, whose pieces may need more bytes: the
                 number grows to a fixed point, at most 256.

A mapping of the user's own (`--mapping FILE`) replaces the stage: it is copied, neither counted nor built.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import read_bytes, write_bytes
from duckling_data.base.records import Count, file_fault
from duckling_data.base.strict_json import parse_json
from duckling_data.rows.layout import MAX_VOCAB
from duckling_data.stages.base import Context, Made, Stage, described, not_made
from duckling_data.stages.count import COUNT, CountFigures, CountSettings, count_shards, occurring_ids
from duckling_data.stages.counts import COUNTS_NAME, TokenCounts, read_counts
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import (
    DECOMPOSE,
    MAPPING_FILE,
    MAPPING_LIMIT,
    VALUES,
    TokenMapping,
    check_mapping,
    mapping_bytes,
    open_mapping,
    read_mapping,
)
from duckling_data.workspace.manifest import StageRecord

POLICIES = ("most-frequent", "reserved", DECOMPOSE)


@dataclass(frozen=True)
class VocabSettings:
    """The settings of the stage where it builds a mapping."""

    live: int = 6144
    """Compact ids that occur in the data."""
    dead: int = 2048
    """Compact ids behind them that never occur."""
    unk: str = "most-frequent"
    """What becomes of a token without a live id: one of POLICIES."""
    eos: bool = False
    """Whether the token that ends a text, `<|endoftext|>`, gets a live id even where the stories never hold it."""

    def __post_init__(self) -> None:
        if self.unk not in POLICIES:
            raise InputError(f"--unk {self.unk}: expected one of {', '.join(POLICIES)}.")
        least = 1 + (self.unk == "reserved") + self.eos
        if self.live < least:
            raise InputError(f"--live {self.live}: expected at least {least}.")
        if self.dead < 0:
            raise InputError(f"--dead {self.dead}: expected 0 or more.")
        if self.live + self.dead > MAX_VOCAB:
            raise InputError(
                f"--live {self.live} and --dead {self.dead} make {self.live + self.dead:,} ids; "
                f"expected at most {MAX_VOCAB:,}."
            )


@dataclass(frozen=True)
class GivenSettings:
    """The settings of the stage where a mapping of the user's own is given."""

    given: bool = True
    """Says in the manifest that the mapping was given."""


def build_mapping(
    counts: TokenCounts,
    settings: VocabSettings,
    occurring: npt.NDArray[np.int64] | None = None,
    base: BaseTokenizer = GPT2,
) -> TokenMapping:
    """Return the mapping, with the seed's keys in the seed's order (`decompose` adds the key `unk_policy`).

    `occurring` is what `decompose` needs: every id of the base in the whole corpus, not in the sample alone. Raises
    InputError if there are fewer distinct tokens than live ids, or none that ends a text where `--eos` asks for it.
    """
    if settings.eos and base.eos_id is None:
        raise InputError("--eos: this tokenizer has no token that ends a text; leave --eos out.")
    reserved = settings.unk == "reserved"
    if settings.unk == DECOMPOSE:
        assert occurring is not None
        live = _lossless_live_ids(counts, settings, occurring, base)
    else:
        live = _frequent_live_ids(counts, settings, settings.live - reserved, base)
    mapping: TokenMapping = {
        "live_tokens": settings.live,
        "dead_tokens": settings.dead,
        "total_vocab": settings.live + settings.dead,
        "unk_id": settings.live - 1 if reserved else 0,
        "gpt2_to_compact": {str(gpt2): compact for compact, gpt2 in enumerate(live)},
        "compact_to_gpt2": {str(compact): gpt2 for compact, gpt2 in enumerate(live)},
        "live_token_ids": live,
    }
    if settings.unk == DECOMPOSE:
        mapping["unk_policy"] = DECOMPOSE
    if base.sha256 is not None:
        mapping["base"] = base.sha256
    return mapping


def _frequent_live_ids(
    counts: TokenCounts, settings: VocabSettings, count: int, base: BaseTokenizer, pieces: Sequence[int] = ()
) -> list[int]:
    """Return `count` ids of the base: the most frequent that are not in `pieces`, then `pieces` themselves.

    `--eos` puts the token that ends a text last unless it is among the most frequent already.
    """
    tail, eos = list(pieces), base.eos_id
    if settings.eos and eos is not None and eos not in tail and eos not in counts.gpt2_id[: count - len(tail)]:
        tail.append(eos)
    whole = counts.gpt2_id[~np.isin(counts.gpt2_id, tail)][: count - len(tail)].tolist()
    if len(whole) + len(tail) < count:
        raise InputError(
            f"the stories counted hold {len(counts.gpt2_id):,} distinct tokens, too few for --live {settings.live:,}. "
            "Lower --live, or count more stories (--sample all, or another --source)."
        )
    return [*whole, *tail]


def _lossless_live_ids(
    counts: TokenCounts, settings: VocabSettings, occurring: npt.NDArray[np.int64], base: BaseTokenizer
) -> list[int]:
    """Return the live ids of `decompose`: frequent tokens, then the single pieces that the rest is split into."""
    pieces: list[int] = []
    while True:
        least = len(pieces) + (settings.eos and base.eos_id not in pieces)
        if least > settings.live:
            which = "single bytes" + f" and {base.eos_text}" * (least > len(pieces))
            raise InputError(
                f"--unk decompose needs {least} ids for {which} alone, --live {settings.live} has too few."
            )
        live = _frequent_live_ids(counts, settings, settings.live, base, pieces)
        # What was needed stays needed: with fewer whole tokens no byte becomes superfluous.
        needed = sorted(_single_pieces(occurring, live, base) | set(pieces))
        if needed == pieces:
            return live
        pieces = needed


def _single_pieces(tokens: npt.NDArray[np.int64], live: Sequence[int], base: BaseTokenizer) -> set[int]:
    """Return what the tokens are split into that no merge made: single bytes, `<|endoftext|>`. Live ids stay whole."""
    done, reached, todo = set(live), set[int](), tokens.tolist()
    while todo:
        token = todo.pop()
        if token not in done:
            done.add(token)
            if token in base.parts:
                todo += base.parts[token]
            else:
                reached.add(token)
    return reached


class VocabFigures(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """What part of the counted tokens has a live id of its own; of a mapping of the user's own the two sizes alone."""

    live: Count
    dead: Count
    covered_tokens: Count | None = None
    unknown_tokens: Count | None = None
    coverage: float | None = None


def mapping_figures(mapping: TokenMapping, counts: TokenCounts) -> VocabFigures:
    """Return the figures of a mapping built from the counts."""
    live = np.isin(counts.gpt2_id, mapping["live_token_ids"])
    covered = int(counts.count[live].sum())
    coverage = round(covered / counts.total, 9)
    return VocabFigures(mapping["live_tokens"], mapping["dead_tokens"], covered, counts.total - covered, coverage)


def _counted(context: Context) -> CountFigures | None:
    return context.manifest.figures(COUNT.name, CountFigures) if context.made(COUNT.name) else None


def _refuse_edited(context: Context) -> None:
    """Raise InputError if `token_mapping.json` is not the file that was made: it may be the user's own work."""
    record, path = context.manifest.made(NAME), context.workspace / MAPPING_FILE
    if record is None or MAPPING_FILE not in record.outputs or not path.exists():
        return
    if file_fault(path, record.outputs[MAPPING_FILE]):
        read_mapping(path)
        raise InputError(
            f"{path}: changed since `duckling-data {NAME}` made it; to work with a mapping of your own, keep it in "
            "another folder and give it with --mapping FILE; to build it again, remove this one."
        )


def _inputs(context: Context, settings: VocabSettings) -> dict[str, str]:
    _refuse_edited(context)
    counted = _counted(context)
    inputs = {"counts": counted.counts_sha256 if counted else not_made(COUNT.name)}
    return inputs | ({"corpus": context.digests["train"]} if settings.unk == DECOMPOSE else {}) | context.base_input()


def _make(context: Context, settings: VocabSettings) -> Made[VocabFigures]:
    context.manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    counts = read_counts(context.workspace / COUNTS_NAME, context.base)
    occurring = None
    if settings.unk == DECOMPOSE:
        counted, train = _counted(context), context.encoded["train"]
        whole = counted is not None and counted.stories_counted == train.split.stories
        occurring = counts.gpt2_id if whole else _occurring(context)
    mapping = build_mapping(counts, settings, occurring, context.base)
    content = mapping_bytes(mapping)
    context.begin()
    write_bytes(context.workspace / MAPPING_FILE, content)
    return described(context.workspace, MAPPING_FILE), mapping_figures(mapping, counts)


def _occurring(context: Context) -> npt.NDArray[np.int64]:
    """Return the GPT-2 ids that occur anywhere in the split `train`, ascending."""
    if context.sharding is None:
        return occurring_ids(context.encoded["train"], context.reporter)
    return np.flatnonzero(count_shards(context, CountSettings(sample=None), main=False).count)


def _summary(figures: VocabFigures) -> str:
    covered = "" if figures.coverage is None else f", covering {figures.coverage:.4%}"
    return f"{figures.live:,} live and {figures.dead:,} dead ids{covered}"


NAME = "build-vocab"

VOCAB = Stage(
    name=NAME, needs=(COUNT.name,), outputs=(MAPPING_FILE,), settings=VocabSettings, figures=VocabFigures,
    inputs=_inputs, make=_make, summary=_summary,
)  # fmt: skip


def is_given(record: StageRecord | None) -> bool:
    """Return whether a record of the stage is that of a mapping of the user's own."""
    return record is not None and "given" in record.settings


def given_mapping(path: Path | None) -> Stage[GivenSettings, VocabFigures]:
    """Return the stage that replaces VOCAB: it copies the mapping in the file, byte for byte.

    `path` is None for the mapping that an earlier command copied.
    """

    def inputs(context: Context, settings: GivenSettings) -> dict[str, str]:
        _refuse_edited(context)
        own = context.workspace / MAPPING_FILE
        if path is None and not (context.made(NAME) and own.exists()):
            raise InputError(
                f"{own}: your own mapping is missing or not whole; "
                "give it again with --mapping FILE, or build one with `duckling-data build-vocab --live N`."
            )
        open_mapping(path or own, context.base)
        return {"mapping": hashlib.sha256(read_bytes(path or own, MAPPING_LIMIT)).hexdigest()}

    def make(context: Context, settings: GivenSettings) -> Made[VocabFigures]:
        source = path or context.workspace / MAPPING_FILE
        content = read_bytes(source, MAPPING_LIMIT)
        mapping = check_mapping(parse_json(content, VALUES), str(source), context.base)
        context.begin()
        write_bytes(context.workspace / MAPPING_FILE, content)
        figures = VocabFigures(mapping["live_tokens"], mapping["dead_tokens"])
        return described(context.workspace, MAPPING_FILE), figures

    line = "a mapping of your own (remembered)" if path is None else f"mapping {path} (given)"
    return Stage(
        name=NAME, needs=(), outputs=VOCAB.outputs, settings=GivenSettings, figures=VocabFigures,
        inputs=inputs, make=make, summary=_summary, line=lambda resolved: line,
    )  # fmt: skip
