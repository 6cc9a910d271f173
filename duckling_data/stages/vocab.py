"""Stage `build-vocab`: the compact vocabulary. Live ids first, most frequent first; the dead ids behind them.

What happens to a GPT-2 token that has no live id is a policy:

`most-frequent`  the seed's: it becomes compact id 0, the most frequent token.
`reserved`       it becomes the last live id, which is kept for them alone.
`decompose`      it is split back along the merge that made it, until every piece is live. GPT-2's single bytes are
                 the base, so the corpus is encoded without loss; the live set holds exactly the bytes
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
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import (
    DECOMPOSE,
    MAPPING_FILE,
    MAPPING_LIMIT,
    TokenMapping,
    check_mapping,
    mapping_bytes,
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
    """Whether `<|endoftext|>` gets a live id even where the stories never hold it."""

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
                f"rows are stored as uint16, which holds at most {MAX_VOCAB:,}."
            )


@dataclass(frozen=True)
class GivenSettings:
    """The settings of the stage where a mapping of the user's own is given."""

    given: bool = True
    """Says in the manifest that the mapping was given."""


def build_mapping(
    counts: TokenCounts, settings: VocabSettings, occurring: npt.NDArray[np.int64] | None = None
) -> TokenMapping:
    """Return the mapping, with the seed's keys in the seed's order (`decompose` adds the key `unk_policy`).

    `occurring` is what `decompose` needs: every GPT-2 id in the whole corpus, not in the sample alone. Raises
    InputError if there are fewer distinct tokens than live ids.
    """
    reserved = settings.unk == "reserved"
    if settings.unk == DECOMPOSE:
        assert occurring is not None
        live = _lossless_live_ids(counts, settings, occurring)
    else:
        live = _frequent_live_ids(counts, settings, settings.live - reserved)
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
    return mapping


def _frequent_live_ids(counts: TokenCounts, settings: VocabSettings, count: int, base: Sequence[int] = ()) -> list[int]:
    """Return `count` GPT-2 ids: the most frequent that are not in `base`, then `base` itself.

    `--eos` puts `<|endoftext|>` last unless it is among the most frequent already.
    """
    tail = list(base)
    if settings.eos and GPT2.eos_id not in tail and GPT2.eos_id not in counts.gpt2_id[: count - len(tail)]:
        tail.append(GPT2.eos_id)
    whole = counts.gpt2_id[~np.isin(counts.gpt2_id, tail)][: count - len(tail)].tolist()
    if len(whole) + len(tail) < count:
        raise InputError(
            f"the stories counted hold {len(counts.gpt2_id):,} distinct tokens, too few for --live {settings.live:,}. "
            "Lower --live, or count more stories (--sample all, or another --source)."
        )
    return [*whole, *tail]


def _lossless_live_ids(counts: TokenCounts, settings: VocabSettings, occurring: npt.NDArray[np.int64]) -> list[int]:
    """Return the live ids of `decompose`: frequent tokens, then the base pieces that the rest is split into."""
    base: list[int] = []
    while True:
        least = len(base) + (settings.eos and GPT2.eos_id not in base)
        if least > settings.live:
            pieces = "single bytes" + " and <|endoftext|>" * (least > len(base))
            raise InputError(
                f"--unk decompose needs {least} ids for {pieces} alone, --live {settings.live} has too few."
            )
        live = _frequent_live_ids(counts, settings, settings.live, base)
        # What was needed stays needed: with fewer whole tokens no byte becomes superfluous.
        needed = sorted(_base_pieces(occurring, live) | set(base))
        if needed == base:
            return live
        base = needed


def _base_pieces(tokens: npt.NDArray[np.int64], live: Sequence[int]) -> set[int]:
    """Return what the tokens are split into that no merge made: single bytes, `<|endoftext|>`. Live ids stay whole."""
    done, reached, todo = set(live), set[int](), tokens.tolist()
    while todo:
        token = todo.pop()
        if token not in done:
            done.add(token)
            if token in GPT2.parts:
                todo += GPT2.parts[token]
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
    live = np.zeros(GPT2.vocab_size, bool)
    live[mapping["live_token_ids"]] = True
    covered = int(counts.count[live[counts.gpt2_id]].sum())
    coverage = round(covered / counts.total, 9)
    return VocabFigures(mapping["live_tokens"], mapping["dead_tokens"], covered, counts.total - covered, coverage)


def _counted(context: Context) -> CountFigures | None:
    return context.manifest.figures(COUNT.name, CountFigures) if context.made(COUNT.name) else None


def _refuse_edited(context: Context) -> None:
    """Raise InputError if `token_mapping.json` is not the file that was made: it may be the user's own work."""
    record, path = context.manifest.made(NAME), context.workspace / MAPPING_FILE
    if record is None or MAPPING_FILE not in record.outputs or not path.exists():
        return
    read_mapping(path)
    if file_fault(path, record.outputs[MAPPING_FILE]):
        raise InputError(
            f"{path}: changed since `duckling-data {NAME}` made it; to work with a mapping of your own, keep it in "
            "another folder and give it with --mapping FILE; to build it again, remove this one."
        )


def _inputs(context: Context, settings: VocabSettings) -> dict[str, str]:
    _refuse_edited(context)
    counted = _counted(context)
    inputs = {"counts": counted.counts_sha256 if counted else not_made(COUNT.name)}
    return inputs | ({"corpus": context.digests["train"]} if settings.unk == DECOMPOSE else {})


def _make(context: Context, settings: VocabSettings) -> Made[VocabFigures]:
    context.manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    counts = read_counts(context.workspace / COUNTS_NAME)
    occurring = None
    if settings.unk == DECOMPOSE:
        counted, train = _counted(context), context.encoded["train"]
        whole = counted is not None and counted.stories_counted == train.split.stories
        occurring = counts.gpt2_id if whole else _occurring(context)
    mapping = build_mapping(counts, settings, occurring)
    context.begin()
    write_bytes(context.workspace / MAPPING_FILE, mapping_bytes(mapping))
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
        read_mapping(path or own)
        return {"mapping": hashlib.sha256(read_bytes(path or own, MAPPING_LIMIT)).hexdigest()}

    def make(context: Context, settings: GivenSettings) -> Made[VocabFigures]:
        source = path or context.workspace / MAPPING_FILE
        content = read_bytes(source, MAPPING_LIMIT)
        mapping = check_mapping(parse_json(content), str(source))
        context.begin()
        write_bytes(context.workspace / MAPPING_FILE, content)
        figures = VocabFigures(mapping["live_tokens"], mapping["dead_tokens"])
        return described(context.workspace, MAPPING_FILE), figures

    line = "a mapping of your own (remembered)" if path is None else f"mapping {path} (given)"
    return Stage(
        name=NAME, needs=(), outputs=VOCAB.outputs, settings=GivenSettings, figures=VocabFigures,
        inputs=inputs, make=make, summary=_summary, line=lambda resolved: line,
    )  # fmt: skip
