"""What the report shows, gathered from a workspace's own files and manifest."""

from __future__ import annotations

import unicodedata
from collections.abc import Callable, Container
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from duckling_data.base.progress import SILENT, Reporter
from duckling_data.base.records import plain
from duckling_data.rows.read import count_rows, open_rows
from duckling_data.stages.count import COUNT
from duckling_data.stages.counts import COUNTS_NAME, TokenCounts, read_counts
from duckling_data.stages.pack import PACK
from duckling_data.stages.packer import DATASET_NAMES
from duckling_data.stages.tally import LENGTH_BINS
from duckling_data.stages.vocab import VOCAB
from duckling_data.tokens.base import BaseTokenizer
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.tokens.mapping import DECOMPOSE, MAPPING_FILE, TokenMapping, open_mapping
from duckling_data.workspace.manifest import Manifest, StageRecord

SPACE = "·"
"""How a space in a token is shown."""
TOP_UNKNOWN = 30
"""How many tokens without a live id are shown."""
TIMES = [1, 2, 3, 4, *(step * 10**power for power in range(13) for step in (5, 10, 20))]
"""The counts at which the bars of tokens without a live id begin: 1, 2, 3, 4, 5, 10, 20, 50, 100, …"""
RARE = (1, 5, 50)
"""The page says how many live ids occur fewer times than these in the rows."""


def gather(workspace: Path, manifest: Manifest, reporter: Reporter = SILENT) -> Facts:
    """Return what the report shows. Raises CheckFailed for counts or a mapping that are not those recorded."""
    manifest.refuse_changed(COUNT.name, COUNTS_NAME)
    manifest.refuse_changed(VOCAB.name, MAPPING_FILE)
    for stage in (COUNT, VOCAB, PACK):
        manifest.figures(stage.name, stage.figures)  # refuses those that are not as the stage writes them
    mapping, base = open_mapping(workspace / MAPPING_FILE)
    counts = read_counts(workspace / COUNTS_NAME, base)
    live = np.isin(counts.gpt2_id, mapping["live_token_ids"])
    count, vocab, pack = manifest.stages[COUNT.name], manifest.stages[VOCAB.name], manifest.made(PACK.name)
    facts = Facts(plain(manifest.corpus) or {}, counts, mapping, live, count, vocab, pack, base=base)
    if pack is None or facts.rows_outdated:
        return facts
    return replace(facts, in_rows=_occurrences(workspace, manifest, reporter))


def _occurrences(workspace: Path, manifest: Manifest, reporter: Reporter) -> dict[str, npt.NDArray[np.int64]]:
    """Return how often each id occurs in the rows of each split. Raises CheckFailed for rows that have changed."""
    folders = {split: DATASET_NAMES[split] for split in manifest.stages[PACK.name].figures["splits"]}
    for folder in folders.values():
        manifest.refuse_changed(PACK.name, folder, reporter)
    occurrences = {}
    for split, folder in folders.items():
        with reporter.bar(f"count {folder}", len(open_rows(workspace / folder)), "rows") as bar:
            occurrences[split] = count_rows(workspace / folder, bar.update)
    return occurrences


@dataclass(frozen=True)
class Unknown:
    """A token that occurs and has no live id."""

    gpt2_id: int
    rank: int
    """1 for the most frequent of all tokens."""
    count: int
    pieces: list[int]
    """The ids of the base that it is split into under `decompose`; else empty."""


@dataclass(frozen=True)
class Facts:
    """What the report shows."""

    corpus: dict[str, Any]
    """The manifest's description of the source."""
    counts: TokenCounts
    mapping: TokenMapping
    live: npt.NDArray[np.bool_]
    """(n,) whether each of the tokens counted has a live id, in the order of `counts`."""
    count: StageRecord
    vocab: StageRecord
    pack: StageRecord | None
    """None where no rows are packed."""
    in_rows: dict[str, npt.NDArray[np.int64]] = field(default_factory=dict)
    """How often each compact id occurs in the rows of each split; empty where no rows of this mapping are packed."""
    base: BaseTokenizer = GPT2

    @property
    def base_name(self) -> str:
        """What the tokens that are counted are called."""
        return "GPT-2" if self.base is GPT2 else "base"

    def visible(self, token: int, drawable: Container[int] | None = None) -> str:
        """Return a token's text as `visible` does."""
        return visible(token, drawable, self.base)

    @property
    def source(self) -> str:
        """The source's name for a person."""
        source = str(self.corpus.get("source", ""))
        if source != "files":
            return {"tinystories": "TinyStories", "demo": "built-in demo stories"}.get(source, source)
        names = [file["name"] for file in self.corpus["splits"]["train"]["files"]]
        return ", ".join(names[:2]) + (f" and {len(names) - 2} more files" if len(names) > 2 else "")

    @property
    def cut(self) -> int:
        """The number of live ids that have a token."""
        return len(self.mapping["live_token_ids"])

    @property
    def covered(self) -> int:
        """How many of the tokens counted have a live id of their own."""
        return int(self.counts.count[self.live].sum())

    @property
    def coverage(self) -> float:
        """The share of the tokens counted that have a live id of their own."""
        return self.covered / self.counts.total

    @property
    def levels(self) -> list[tuple[float, str, int, str]]:
        """(share, its text, ids that cover it, what they are), from the smallest share of the tokens to the largest."""
        levels = self.count.figures["ids_for_coverage"].items()
        rows = [(float(name[:-1]) / 100, level_name(name), ids, "") for name, ids in levels]
        return sorted([*rows, (self.coverage, percent(self.coverage, 4), self.cut, "the live ids")])

    @cached_property
    def beyond(self) -> npt.NDArray[np.int64]:
        """(n,) how many of the tokens counted are not among the first i + 1 ids; the last is 0."""
        rest: npt.NDArray[np.int64] = self.counts.total - np.cumsum(self.counts.count)
        return rest

    @cached_property
    def unknown(self) -> list[Unknown]:
        """The most frequent tokens without a live id, at most TOP_UNKNOWN."""
        live, rows = set(self.mapping["live_token_ids"]), self.counts.rows
        ranked = [(index + 1, *rows[index].tolist()) for index in np.flatnonzero(~self.live)[:TOP_UNKNOWN].tolist()]
        split = self.mapping.get("unk_policy") == DECOMPOSE
        return [Unknown(i, rank, count, self.base.split(i, live) if split else []) for rank, i, count, _ in ranked]

    @property
    def unknown_ids(self) -> int:
        """How many distinct tokens have no live id."""
        return int(np.count_nonzero(~self.live))

    @property
    def unknown_times(self) -> list[tuple[str, int, int]]:
        """(how often, distinct tokens without a live id that occur so often, their occurrences), the rarest first."""
        counts, rows = self.counts.count[~self.live], []
        for first, end in pairwise(TIMES):
            chosen = counts[(counts >= first) & (counts < end)]
            times = f"{first:,}" if end == first + 1 else f"{first:,} to {end - 1:,}"
            rows.append((times, len(chosen), int(chosen.sum())))
        return rows[: max((number for number, (_, ids, _) in enumerate(rows, 1) if ids), default=0)]

    @property
    def rare(self) -> list[tuple[str, list[int]]]:
        """(what, how many in each split): live ids that are rare in the rows, and the occurrences of dead ids."""
        live, splits = self.mapping["live_tokens"], self.in_rows.values()
        rows = [
            ("live ids that never occur" if times == 1 else f"live ids that occur fewer than {times} times",
             [int(np.count_nonzero(found[:live] < times)) for found in splits])
            for times in RARE
        ]  # fmt: skip
        return [*rows, ("occurrences of dead ids", [int(found[live:].sum()) for found in splits])]

    def ppm(self, count: int) -> str:
        """Return a count per million of the tokens counted."""
        millionths = 1e6 * count / self.counts.total
        return f"{millionths:,.2f}" if millionths >= 0.1 else f"{millionths:.2g}"

    def unknown_become(self, show: Callable[[int], str]) -> str:
        """Return how tokens without a live id are mapped, in a few words; `show` writes a base id's text."""
        if self.mapping.get("unk_policy") == DECOMPOSE:
            return "each is split into pieces that are live"
        unk = self.mapping["unk_id"]
        token = self.mapping["compact_to_gpt2"].get(str(unk))
        if token is None:
            return f"each becomes compact id {unk:,}, reserved for them"
        return f"each becomes “{show(token)}” (compact id {unk:,})"

    @cached_property
    def lengths(self) -> Lengths:
        """The lengths of the stories counted."""
        figures = self.count.figures
        histogram = figures["story_length_histogram"]
        mean = figures["tokens"] / figures["stories_counted"]
        return Lengths(np.array(histogram["stories"], np.int64), histogram["bin_tokens"], mean)

    @property
    def ctx(self) -> int | None:
        """The number of tokens in a packed row, if rows are packed."""
        return int(self.pack.settings["ctx"]) if self.pack else None

    @property
    def packed(self) -> dict[str, dict[str, Any]]:
        """The figures of each packed split, by its name."""
        return dict(self.pack.figures["splits"]) if self.pack else {}

    @property
    def rows_outdated(self) -> bool:
        """Whether the packed rows were made with another mapping, or from other stories, than are shown."""
        if self.pack is None:
            return False
        made_from = (self.pack.inputs.get("mapping"), self.pack.inputs.get("corpus train"))
        return made_from != (self.vocab.outputs[MAPPING_FILE].sha256, self.count.inputs.get("corpus"))


@dataclass(frozen=True)
class Lengths:
    """A histogram of story lengths in tokens."""

    stories: npt.NDArray[np.int64]
    """Stories in each bin."""
    bin: int
    """Tokens in a bin."""
    mean: float

    @property
    def total(self) -> int:
        """The number of stories."""
        return int(self.stories.sum())

    @property
    def open_ended(self) -> bool:
        """Whether the last bin also holds longer stories: then the longest story's length is not known."""
        return len(self.stories) == LENGTH_BINS

    def quantile(self, share: float) -> float:
        """Return the length below which this share of the stories is, interpolated within its bin."""
        below = np.cumsum(self.stories)
        wanted = share * self.total
        number = int(np.searchsorted(below, wanted))
        inside = 1 - (below[number] - wanted) / self.stories[number]
        return float((number + inside) * self.bin)

    @property
    def median(self) -> tuple[float, str]:
        """The median, as near as the bins tell, and its text."""
        median, last = self.quantile(0.5), (LENGTH_BINS - 1) * self.bin
        return (last, f"{last:,} or more") if median > last else (median, f"about {median:,.0f}")

    def at_least(self, tokens: int) -> int | None:
        """Return how many stories have at least so many tokens, or None where that is not the edge of a bin."""
        number, rest = divmod(tokens, self.bin)
        return int(self.stories[number:].sum()) if rest == 0 and number < LENGTH_BINS else None


def visible(gpt2_id: int, drawable: Container[int] | None = None, base: BaseTokenizer = GPT2) -> str:
    r"""Return a token's text with every part of it visible; no two tokens give the same text.

    A space is `·`; bytes that are no whole UTF-8 character are `\xNN`; controls, combining marks, invisible characters
    and those whose code point is not in `drawable` (a font's, say) are escaped as in Python's strings.
    """
    text = base.token_bytes(gpt2_id).decode("utf-8", "surrogateescape")
    return "".join(SPACE if char == " " else _visible_character(char, drawable) for char in text)


def _visible_character(character: str, drawable: Container[int] | None) -> str:
    code = ord(character)
    if 0xDC80 <= code <= 0xDCFF:  # surrogateescape's mark of a byte that is not UTF-8
        return f"\\x{code - 0xDC00:02x}"
    seen = character.isprintable() and not unicodedata.category(character).startswith("M")
    if seen and character not in ("\\", SPACE) and (drawable is None or code in drawable):
        return character
    # Not Python's own \xNN for the characters up to U+00FF: here that is a byte.
    return f"\\u{code:04x}" if 0x80 <= code <= 0xFF else character.encode("unicode_escape").decode("ascii")


def percent(share: float, digits: int = 2) -> str:
    """Return a share in percent, with more digits where it would else be rounded to 0 or 100 %."""
    while 0 < share < 1 and digits < 9 and float(f"{share:.{digits + 2}f}") in (0, 1):
        digits += 1
    return f"{100 * share:.{digits}f} %"


def level_name(level: str) -> str:
    """Return a level of the manifest's `ids_for_coverage`, such as `99.0%`, as the report shows it."""
    return level.removesuffix("%").removesuffix(".0") + " %"
