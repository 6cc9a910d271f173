"""The report's page: one HTML file with the figures inside, made from `report.html`."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

from duckling_data.base.page import render
from duckling_data.stages.counts import COUNTS_NAME
from duckling_data.stages.report.facts import Facts, level_name, percent, visible
from duckling_data.tokens.mapping import MAPPING_FILE

FILES_SHOWN = 20
"""Files of a source that the page names."""

PACKED = {
    "stories": "stories packed",
    "rows": "rows",
    "tokens": "tokens, before tails are dropped",
    "dropped_tail_tokens": "tokens in dropped tails",
    "unknown_tokens": "tokens without a live id",
}
"""What is shown of a packed split: the figures' names in the manifest, and on the page."""

CAPTIONS = {
    "coverage.png": "Coverage. Above, the share of all tokens that the most frequent ids cover; below, what they leave "
    "out, where each further step costs more ids. The dashed line is the live cut.",
    "zipf.png": "Token frequency. Where the curve is straight, counts follow a power of the rank; it bends down where "
    "a small vocabulary ends. Dead ids have no token and are not shown.",
    "story_length.png": "Story length. How many stories of each length were counted. Rows are filled with one story "
    "after the other, whatever their length.",
    "unknown.png": "Tokens without a live id. What the model never sees as one token, and how often. Bars of one "
    "length mean that the cut falls where many tokens are equally rare.",
}
"""What there is to see in each figure: its title, then a caption."""


def page(facts: Facts, figures: Mapping[str, bytes]) -> bytes:
    """Return the page around the figures (PNG files, by name)."""
    return render(
        Path(__file__).with_name("report.html"),
        facts=facts,
        visible=visible,
        files_shown=FILES_SHOWN,
        name=_source_name(facts),
        main_figures=list(_main_figures(facts)),
        settings=list(_settings(facts)),
        numbers=list(_numbers(facts)),
        packed=list(_packed(facts)),
        packed_heads=["", *(f"#{split}" for split in facts.packed)],
        coverage=_coverage(facts),
        figures=[(*CAPTIONS[name].split(". ", 1), content) for name, content in figures.items()],
        split_up=any(token.pieces for token in facts.unknown),
        unknown_caption=_unknown_caption(facts),
        digests=list(_digests(facts)),
    )


def _source_name(facts: Facts) -> str:
    source = facts.corpus.get("source", "")
    if source != "files":
        return {"tinystories": "TinyStories", "demo": "built-in demo stories"}.get(source, str(source))
    names = [file["name"] for file in facts.corpus["splits"]["train"]["files"]]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more files" if len(names) > 2 else "")


def _main_figures(facts: Facts) -> Iterable[tuple[str, str]]:
    figures = facts.count.figures
    yield "stories counted", f"{figures['stories_counted']:,}"
    yield "tokens in them", f"{figures['tokens']:,}"
    yield "live and dead ids", f"{facts.mapping['live_tokens']:,} + {facts.mapping['dead_tokens']:,}"
    yield "covered by the live ids", percent(facts.coverage, 4)
    if facts.packed:
        train = facts.packed["train"]
        yield f"rows of {facts.ctx:,} tokens", f"{train['rows']:,}"
        yield "packed tokens without a live id", percent(train["unknown_rate"], 4)


def _settings(facts: Facts) -> Iterable[tuple[str, str]]:
    for stage, record in (("count", facts.count), ("build-vocab", facts.vocab), ("pack", facts.pack)):
        if record is not None:
            given = "given" in record.settings  # a mapping of the user's own has no settings
            settings = (f"{_setting(name)} {_setting(value)}" for name, value in record.settings.items())
            yield stage, "a mapping of the user's own" if given else ", ".join(settings)


def _setting(value: object) -> str:
    return f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).lower()


def _numbers(facts: Facts) -> Iterable[tuple[str, str]]:
    figures, mapping = facts.count.figures, facts.mapping
    covered = int(facts.counts.count[facts.live].sum())
    yield "stories to train on", f"{figures['stories']:,}"
    yield "stories counted", f"{figures['stories_counted']:,}"
    yield "tokens counted", f"{figures['tokens']:,}"
    yield "mean story length, tokens", f"{facts.lengths.mean:,.1f}"
    yield "distinct tokens", f"{figures['distinct']:,}"
    yield "live ids", f"{mapping['live_tokens']:,}"
    yield "dead ids", f"{mapping['dead_tokens']:,}"
    yield "tokens counted with a live id", f"{covered:,}"
    yield "tokens counted without one", f"{facts.counts.total - covered:,}"
    yield "coverage", percent(facts.coverage, 4)


def _packed(facts: Facts) -> Iterable[tuple[str, list[str]]]:
    splits = facts.packed.values()
    for key, name in PACKED.items():
        yield name, [f"{split[key]:,}" for split in splits]
    yield "unknown rate", [percent(split["unknown_rate"], 4) for split in splits]


def _coverage(facts: Facts) -> list[tuple[str, int, str]]:
    """Return (share of the tokens, ids that cover it, what they are), from the smallest share to the largest."""
    levels = facts.count.figures["ids_for_coverage"]
    rows = [(float(name[:-1]) / 100, level_name(name), ids, "") for name, ids in levels.items()]
    rows.append((facts.coverage, percent(facts.coverage, 4), facts.cut, "the live ids"))
    return [row[1:] for row in sorted(rows)]


def _unknown_caption(facts: Facts) -> str:
    return (
        f"The {len(facts.unknown)} most frequent of {facts.unknown_ids:,}; {facts.unknown_become(visible)}. A space is "
        "shown as ·, bytes that are no whole character as \\x and two digits."
    )


def _digests(facts: Facts) -> Iterable[tuple[str, bool, str]]:
    """Yield (what, whether that is a file's name, SHA-256)."""
    yield COUNTS_NAME, True, facts.count.outputs[COUNTS_NAME].sha256
    yield "the counts themselves", False, facts.count.figures["counts_sha256"]
    yield MAPPING_FILE, True, facts.vocab.outputs[MAPPING_FILE].sha256
    for split, packed in facts.packed.items():
        yield f"the tokens of the {split} rows", False, packed["payload_sha256"]
