"""Stage `build-vocab`: the compact vocabulary. Live ids first, most frequent first; the dead ids behind them.

What happens to a GPT-2 token that has no live id is a policy:

`most-frequent`  the seed's: it becomes compact id 0, the most frequent token.
`reserved`       it becomes the last live id, which is kept for them alone.
`decompose`      it is split back along the merge that made it, until every piece is live. GPT-2's single bytes are
                 the base, so the corpus is encoded without loss; the live set holds exactly the bytes
                 that this corpus reaches. More bytes mean fewer whole tokens, whose pieces may need more bytes: the
                 number grows to a fixed point, at most 256.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import msgspec
import numpy as np
import numpy.typing as npt

from duckling_data.base.errors import InputError
from duckling_data.base.files import write_bytes
from duckling_data.base.records import Count, file_fault
from duckling_data.rows.layout import MAX_VOCAB
from duckling_data.stages.base import Context, Made, Stage, described, not_made
from duckling_data.stages.count import COUNT, CountFigures, occurring_ids
from duckling_data.stages.counts import COUNTS_NAME, TokenCounts, read_counts
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import (
    DECOMPOSE,
    MAPPING_FILE,
    TokenMapping,
    check_mapping,
    mapping_bytes,
    read_mapping,
)
from duckling_data.workspace.manifest import Manifest

POLICIES = ("most-frequent", "reserved", DECOMPOSE)


@dataclass(frozen=True)
class VocabSettings:
    """The settings of the stage."""

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


def build_mapping(
    counts: TokenCounts, settings: VocabSettings, occurring: npt.NDArray[np.int64] | None = None
) -> TokenMapping:
    """Return the mapping, with the seed's keys in the seed's order (`decompose` adds the key `unk_policy`).

    `occurring` is what `decompose` needs: every GPT-2 id in the whole corpus, not in the sample alone. Raises
    InputError if there are fewer distinct tokens than live ids.
    """
    if settings.unk == DECOMPOSE:
        assert occurring is not None
        live = _lossless_live_ids(counts, settings, occurring)
    else:
        live = _frequent_live_ids(counts, settings, settings.live - (settings.unk == "reserved"))
    mapping: TokenMapping = {
        "live_tokens": settings.live,
        "dead_tokens": settings.dead,
        "total_vocab": settings.live + settings.dead,
        "unk_id": settings.live - 1 if settings.unk == "reserved" else 0,
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
    whole = counts.gpt2_id[~np.isin(counts.gpt2_id, tail)][: count - len(tail)]
    if len(whole) + len(tail) < count:
        raise InputError(
            f"the stories counted hold {len(counts.gpt2_id):,} distinct tokens, too few for --live {settings.live:,}. "
            "Lower --live, or count more stories (--sample all, or another --source)."
        )
    return [int(token) for token in whole] + tail


def _lossless_live_ids(counts: TokenCounts, settings: VocabSettings, occurring: npt.NDArray[np.int64]) -> list[int]:
    """Return the live ids of `decompose`: frequent tokens, then the base pieces that the rest is split into.

    Base pieces are the single bytes and `<|endoftext|>`, which no merge made; they are in ascending order.
    """
    base: list[int] = []
    while True:
        least = len(base) + (settings.eos and GPT2.eos_id not in base)
        if least > settings.live:
            pieces = "single bytes" + " and <|endoftext|>" * (least > len(base))
            raise InputError(
                f"--unk decompose needs {least} ids for {pieces} alone, --live {settings.live} has too few."
            )
        live = _frequent_live_ids(counts, settings, settings.live, base)
        reached = base_pieces(occurring, live)
        # What was needed stays needed: with fewer whole tokens no byte becomes superfluous.
        needed = sorted(set(base) | reached)
        if needed == base:
            return live
        base = needed


def base_pieces(tokens: npt.NDArray[np.int64], live: Sequence[int]) -> set[int]:
    """Return the pieces without a merge that the tokens are split into where they are not live."""
    parts, live_set = GPT2.parts, set(live)
    todo = [int(token) for token in tokens if int(token) not in live_set]
    seen: set[int] = set()
    reached: set[int] = set()
    while todo:
        token = todo.pop()
        if token in seen:
            continue
        seen.add(token)
        if token not in parts:
            reached.add(token)
        else:
            todo += [piece for piece in parts[token] if piece not in live_set]
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


def refuse_edited(manifest: Manifest) -> None:
    """Raise InputError if `token_mapping.json` is not the file that was made: it may be the user's own work."""
    record = manifest.made(NAME)
    expected = record.outputs.get(MAPPING_FILE) if record else None
    path = manifest.workspace / MAPPING_FILE
    if expected is None or not path.exists():
        return
    read_mapping(path)
    if file_fault(path, expected):
        raise InputError(
            f"{path}: changed since `duckling-data {NAME}` made it; to work with a mapping of your own, keep it in "
            "another folder and give it with --mapping FILE; to build it again, remove this one."
        )


def _counted(context: Context) -> CountFigures | None:
    return context.manifest.figures(COUNT.name, CountFigures) if context.made(COUNT.name) else None


def _inputs(context: Context, settings: VocabSettings) -> dict[str, str]:
    refuse_edited(context.manifest)
    counted = _counted(context)
    inputs = {"counts": counted.counts_sha256 if counted else not_made(COUNT.name)}
    return inputs | ({"corpus": context.digests["train"]} if settings.unk == DECOMPOSE else {})


def _make(context: Context, settings: VocabSettings) -> Made[VocabFigures]:
    context.manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    counts = read_counts(context.workspace / COUNTS_NAME)
    mapping = build_mapping(counts, settings, _occurring(context, counts) if settings.unk == DECOMPOSE else None)
    check_mapping(mapping, "the mapping just built")
    context.begin()
    write_bytes(context.workspace / MAPPING_FILE, mapping_bytes(mapping))
    return Made(described(context.workspace, MAPPING_FILE), mapping_figures(mapping, counts))


def _occurring(context: Context, counts: TokenCounts) -> npt.NDArray[np.int64]:
    """Return the ids that occur in the corpus: the sample counted may lack some."""
    counted, train = _counted(context), context.encoded["train"]
    whole = counted is not None and counted.stories_counted == train.split.stories
    return counts.gpt2_id if whole else occurring_ids(train, context.reporter)


def _summary(figures: VocabFigures) -> str:
    covered = "" if figures.coverage is None else f", covering {figures.coverage:.4%}"
    return f"{figures.live:,} live and {figures.dead:,} dead ids{covered}"


NAME = "build-vocab"

VOCAB = Stage(
    name=NAME, needs=(COUNT.name,), outputs=(MAPPING_FILE,), settings=VocabSettings, figures=VocabFigures,
    inputs=_inputs, make=_make, summary=_summary,
)  # fmt: skip
