"""The report's page: one HTML file with the figures inside, without scripts or links, light or dark as the reader's.

Every text that comes from the data or the manifest goes through `html.escape`.
"""

from __future__ import annotations

import base64
from collections.abc import Iterable, Sequence
from html import escape
from typing import TYPE_CHECKING

from duckling_data.stages.counts import COUNTS_NAME
from duckling_data.stages.report.facts import level_name, percent, visible
from duckling_data.tokens.mapping import MAPPING_FILE

if TYPE_CHECKING:
    from duckling_data.stages.report.facts import Facts

FILES_SHOWN = 20
"""Files of a source that the page names."""

CSS = """
:root { color-scheme: light dark; --ink: #1d2329; --soft: #5c6670; --line: #dfe3e7; --page: #fff; --mark: #fdf0e6; }
@media (prefers-color-scheme: dark) {
  :root { --ink: #e6e9ec; --soft: #9aa5b0; --line: #39414a; --page: #14181c; --mark: #3a2a1c; } }
body { max-width: 62rem; margin: 0 auto; padding: 2rem 1.25rem 4rem; background: var(--page); color: var(--ink);
  font: 16px/1.55 system-ui, sans-serif; }
h1 { margin: 0; font-size: 1.9rem; line-height: 1.25; overflow-wrap: anywhere; }
h2 { margin: 2.75rem 0 .75rem; font-size: 1.25rem; }
.soft, figcaption, caption { color: var(--soft); }
.tiles { display: grid; grid-template-columns: repeat(auto-fit, minmax(15rem, 1fr)); gap: .75rem; margin: 1.5rem 0; }
.tiles div { padding: .8rem 1rem; border-radius: .5rem; border: 1px solid var(--line); }
.tiles b { display: block; font-size: 1.45rem; line-height: 1.3; font-variant-numeric: tabular-nums; }
.note { padding: .7rem 1rem; border-left: .25rem solid #d55e00; background: var(--mark); }
.wide { overflow-x: auto; }
table { min-width: min(30rem, 100%); border-collapse: collapse; font-variant-numeric: tabular-nums; }
caption { padding-top: .5rem; caption-side: bottom; text-align: left; font-size: .9rem; }
th, td { padding: .32rem .7rem; border-bottom: 1px solid var(--line); text-align: left; vertical-align: top; }
.n { text-align: right; white-space: nowrap; }
tr.cut { background: var(--mark); font-weight: 600; }
code { font: .9em ui-monospace, "DejaVu Sans Mono", monospace; overflow-wrap: anywhere; }
code.digest { font-size: .76rem; }
figure { margin: 1.5rem 0 2.5rem; }
img { display: block; width: 100%; height: auto; border-radius: .5rem; background: #fff; }
figcaption { margin-top: .5rem; }
"""


def page(facts: Facts, figures: dict[str, bytes]) -> bytes:
    """Return the page around the figures (PNG files, by name)."""
    name = _source_name(facts)
    parts = [
        f"<h1>Duckling data: {escape(name)}</h1>",
        f'<p class="soft">Tokens without a live id: {escape(facts.fate(visible))}.</p>',
        _tiles(facts),
        _note(facts),
        "<h2>Settings</h2>",
        _table(("stage", "settings"), _settings(facts)),
        "<h2>Source</h2>",
        _sources(facts),
        "<h2>Counts and vocabulary</h2>",
        _table(("", "#value"), _numbers(facts)),
        _packed(facts),
        "<h2>Coverage</h2>",
        _coverage(facts),
        *(_figure(file, content) for file, content in figures.items()),
        "<h2>Tokens without a live id</h2>",
        _unknown(facts),
        "<h2>Digests</h2>",
        _table(("", "SHA-256"), _digests(facts)),
    ]
    head = (
        '<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>Duckling data: {escape(name)}</title>\n<style>{CSS}</style>\n</head>\n<body>\n"
    )
    whole = head + "\n".join(part for part in parts if part) + "\n</body>\n</html>\n"
    return whole.encode("utf-8", "backslashreplace")  # a file's name need not be UTF-8


def _source_name(facts: Facts) -> str:
    source = facts.corpus.get("source", "")
    if source != "files":
        return {"tinystories": "TinyStories", "demo": "built-in demo stories"}.get(source, str(source))
    names = [file["name"] for file in facts.corpus["splits"]["train"]["files"]]
    return ", ".join(names[:2]) + (f" and {len(names) - 2} more files" if len(names) > 2 else "")


def _tiles(facts: Facts) -> str:
    figures = facts.count.figures
    tiles = [
        ("stories counted", f"{figures['stories_counted']:,}"),
        ("tokens in them", f"{figures['tokens']:,}"),
        ("live and dead ids", f"{facts.mapping['live_tokens']:,} + {facts.mapping['dead_tokens']:,}"),
        ("covered by the live ids", percent(facts.coverage, 4)),
    ]
    if facts.packed:
        train = facts.packed["train"]
        tiles.append((f"rows of {facts.ctx:,} tokens", f"{train['rows']:,}"))
        tiles.append(("packed tokens without a live id", percent(train["unknown_rate"], 4)))
    cells = (f'<div><b>{escape(value)}</b><span class="soft">{escape(name)}</span></div>' for name, value in tiles)
    return f'<div class="tiles">{"".join(cells)}</div>'


def _note(facts: Facts) -> str:
    if facts.rows_outdated:
        text = "The packed rows are out of date: <code>duckling-data pack</code> makes them of the present mapping."
    elif facts.pack is None:
        text = "No rows are packed yet: <code>duckling-data pack</code> makes them, and the next report shows them."
    else:
        return ""
    return f'<p class="note">{text}</p>'


def _settings(facts: Facts) -> Iterable[Sequence[str]]:
    for stage, record in (("count", facts.count), ("build-vocab", facts.vocab), ("pack", facts.pack)):
        if record is None:
            continue
        given = "given" in record.settings  # a mapping of the user's own has no settings
        settings = (f"{_word(key)} {_word(value)}" for key, value in record.settings.items())
        yield _code(stage), "a mapping of the user's own" if given else ", ".join(settings)


def _sources(facts: Facts) -> str:
    rows = []
    for split, described in facts.corpus.get("splits", {}).items():
        files = described.get("files", [])
        if "generator" in described:
            digest = _digest(described["generator"])
            rows.append((escape(split), "demo generator", "", f"{described['stories']:,}", digest))
        for file in files[:FILES_SHOWN]:
            figures = f"{file['bytes']:,}", f"{file['stories']:,}", _digest(file["sha256"])
            rows.append((escape(split), escape(file["name"]), *figures))
        if len(files) > FILES_SHOWN:
            rows.append((escape(split), f"and {len(files) - FILES_SHOWN:,} more files", "", "", ""))
    return _table(("split", "file", "#bytes", "#stories", "SHA-256"), rows)


def _numbers(facts: Facts) -> Iterable[Sequence[str]]:
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


PACKED = {
    "stories": "stories packed",
    "rows": "rows",
    "tokens": "tokens, before tails are dropped",
    "dropped_tail_tokens": "tokens in dropped tails",
    "unknown_tokens": "tokens without a live id",
}
"""What is shown of a packed split: the figures' names, and ours."""


def _packed(facts: Facts) -> str:
    if not facts.packed:
        return ""
    rows = [[name, *(f"{split[key]:,}" for split in facts.packed.values())] for key, name in PACKED.items()]
    rows.append(["unknown rate", *(percent(split["unknown_rate"], 4) for split in facts.packed.values())])
    return f"<h2>Rows of {facts.ctx:,} tokens</h2>\n" + _table(("", *(f"#{name}" for name in facts.packed)), rows)


def _coverage(facts: Facts) -> str:
    levels = facts.count.figures["ids_for_coverage"]
    rows = [(float(name[:-1]) / 100, level_name(name), ids, "") for name, ids in levels.items()]
    rows.append((facts.coverage, percent(facts.coverage, 4), facts.cut, "the live ids"))
    lines = ['<tr><th class="n">share of the tokens</th><th class="n">ids needed</th><th></th></tr>']
    for _share, name, ids, what in sorted(rows):
        mark = ' class="cut"' if what else ""
        lines.append(f'<tr{mark}><td class="n">{name}</td><td class="n">{ids:,}</td><td>{what}</td></tr>')
    return f'<div class="wide"><table>{"".join(lines)}</table></div>'


CAPTIONS = {
    "coverage.png": "Coverage. Above, the share of all tokens that the most frequent ids cover; below, what they leave "
    "out, where each further step costs more ids. The dashed line is the live cut.",
    "zipf.png": "Token frequency. Where the curve is straight, counts follow a power of the rank; it bends down where "
    "a small vocabulary ends. Dead ids have no token and no place here.",
    "story_length.png": "Story length. How many stories of each length were counted. Rows are filled with one story "
    "after the other, whatever their length.",
    "unknown.png": "Tokens without a live id. What the model never sees as one token, and how often. Bars of one "
    "length mean that the cut falls where many tokens are equally rare.",
}
"""What there is to see in each figure: its name, then a line."""


def _figure(file: str, content: bytes) -> str:
    title, caption = CAPTIONS[file].split(". ", 1)
    data = base64.b64encode(content).decode("ascii")
    image = f'<img alt="{title}" src="data:image/png;base64,{data}">'
    return f"<figure>{image}<figcaption><b>{title}.</b> {caption}</figcaption></figure>"


def _unknown(facts: Facts) -> str:
    if not facts.unknown:
        return "<p>None: every token counted has a live id of its own.</p>"
    split = any(token.pieces for token in facts.unknown)
    rows = []
    for token in facts.unknown:
        pieces = [" + ".join(_code(visible(piece)) for piece in token.pieces)] if split else []
        numbers = str(token.gpt2_id), f"{token.rank:,}", f"{token.count:,}", facts.ppm(token.count)
        rows.append([_code(visible(token.gpt2_id)), *numbers, *pieces])
    head = ("token", "#GPT-2 id", "#rank", "#count", "#per million", *(("split into",) if split else ()))
    caption = (
        f"The {len(rows)} most frequent of {facts.unknown_ids:,}; {facts.fate(visible)}. A space is shown as ·, "
        "bytes that are no whole character as \\x and two digits."
    )
    return _table(head, rows, caption)


def _digests(facts: Facts) -> Iterable[Sequence[str]]:
    yield _code(COUNTS_NAME), _digest(facts.count.outputs[COUNTS_NAME].sha256)
    yield "the counts themselves", _digest(facts.count.figures["counts_sha256"])
    yield _code(MAPPING_FILE), _digest(facts.vocab.outputs[MAPPING_FILE].sha256)
    for split, packed in facts.packed.items():
        yield f"the tokens of the {escape(split)} rows", _digest(packed["payload_sha256"])


def _code(text: str) -> str:
    return f"<code>{escape(text)}</code>"


def _digest(text: str) -> str:
    return f'<code class="digest">{escape(text)}</code>'


def _word(value: object) -> str:
    text = f"{value:,}" if isinstance(value, int) and not isinstance(value, bool) else str(value).lower()
    return escape(text)


def _table(head: Sequence[str], rows: Iterable[Sequence[str]], caption: str = "") -> str:
    """Return a table of cells that are HTML already; a column whose name starts with `#` holds numbers."""
    kinds = [' class="n"' if name.startswith("#") else "" for name in head]
    top = "".join(f"<th{kind}>{escape(name.lstrip('#'))}</th>" for name, kind in zip(head, kinds, strict=True))
    body = "".join(
        f"<tr>{''.join(f'<td{kind}>{cell}</td>' for cell, kind in zip(row, kinds, strict=True))}</tr>\n" for row in rows
    )
    below = f"<caption>{escape(caption)}</caption>" if caption else ""
    return f'<div class="wide"><table>{below}<tr>{top}</tr>\n{body}</table></div>'
