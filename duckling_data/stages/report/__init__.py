"""The report: what the counts, the mapping and the rows of a workspace look like, as four figures and one page.

`facts` gathers, `plots` draws, `report.html` is the page around the figures. All of it comes from the workspace's own
files and manifest, with no clock, host or path: equal workspaces give equal bytes.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from duckling_data.base.files import own_folder, refuse_linked, write_bytes
from duckling_data.base.progress import Reporter
from duckling_data.base.records import plain
from duckling_data.base.strict_json import digest_json
from duckling_data.stages.base import Context, Made, NoFigures, NoSettings, Stage, described, not_made
from duckling_data.stages.count import COUNT
from duckling_data.stages.pack import PACK
from duckling_data.stages.vocab import VOCAB
from duckling_data.workspace.manifest import Manifest

if TYPE_CHECKING:
    from duckling_data.stages.report.facts import Facts

REPORT_FOLDER = "report"


def draw_report(workspace: Path, manifest: Manifest, reporter: Reporter) -> dict[str, bytes]:
    """Return the report's files by name: the figures, then the page, which also holds narrow figures for phones.

    Needs the stages `count` and `build-vocab`; shows the rows where `pack` has made them. Raises InputError for counts
    or a mapping that cannot be read, and as `load` does.
    """
    from duckling_data.base.plotting import load

    load()  # before anything imports matplotlib's parts
    from duckling_data.stages.report.facts import gather
    from duckling_data.stages.report.plots import FIGURES, draw

    files: dict[str, bytes] = {}
    narrow: dict[str, bytes] = {}
    facts = gather(workspace, manifest, reporter)
    with reporter.bar("report", 2 * len(FIGURES), "figures") as bar:
        for figures, drawn in ((files, draw(facts)), (narrow, draw(facts, narrow=True))):
            for name, content in drawn:
                figures[name] = content
                bar.update()
    return files | {"index.html": page(facts, files, narrow)}


def page(facts: Facts, figures: Mapping[str, bytes], narrow: Mapping[str, bytes] | None = None) -> bytes:
    """Return the page around the figures (PNG files, by name); a phone shows the narrow one of the same name."""
    from duckling_data.base.page import render
    from duckling_data.stages.report.facts import percent

    template = Path(__file__).with_name("report.html")
    heads = ["", *(f"#{split}" for split in facts.packed)]
    shown = {"figures": figures, "narrow": narrow or {}, "alts": _alts(facts)}
    return render(template, facts=facts, **shown, packed_heads=heads, visible=facts.visible, percent=percent)


def _alts(facts: Facts) -> dict[str, str]:
    """Return what each figure shows, in words, for those who cannot see it."""
    from duckling_data.stages.report.facts import percent

    counts, lengths = facts.counts.count, facts.lengths
    times = "; ".join(f"{ids:,} tokens {which} times" for which, ids, _ in facts.unknown_times) or "none"
    return {
        "coverage.png": "Two curves over the number of ids kept, the most frequent first: the share of the tokens that "
        f"they cover, and the share that they leave out. {facts.cut:,} live ids cover {percent(facts.coverage)}.",
        "zipf.png": "A curve of token counts by rank, both scales logarithmic, which falls from "
        f"{counts[0]:,} to {counts[-1]:,}. {facts.unknown_ids:,} of {len(counts):,} distinct tokens have no live id.",
        "story_length.png": "A histogram of the stories' lengths in tokens, with its mean, "
        f"{lengths.mean:,.1f}, and its median, {lengths.median[1]}.",
        "unknown.png": f"Bars of how many distinct tokens without a live id occur how often: {times}.",
    }


def _inputs(context: Context, settings: NoSettings) -> dict[str, str]:
    # The page shows settings and figures of every stage, so all of them are its input.
    inputs = {"corpus": digest_json(plain(context.corpus))}
    for stage in (COUNT.name, VOCAB.name, PACK.name):
        record = context.made(stage)
        inputs[stage] = digest_json(plain(record)) if record else not_made(stage)
    return inputs


def _make(context: Context, settings: NoSettings) -> Made[NoFigures]:
    refuse_linked(context.workspace, REPORT_FOLDER)
    context.manifest.corpus = context.corpus  # the page names the source as it is now
    files = draw_report(context.workspace, context.manifest, context.reporter)
    folder = own_folder(context.workspace, REPORT_FOLDER)
    context.begin()
    for name, content in files.items():
        write_bytes(folder / name, content)
    return described(context.workspace, *(f"{REPORT_FOLDER}/{file}" for file in files)), NoFigures()


REPORT = Stage(
    name="report", needs=(COUNT.name, VOCAB.name), outputs=(REPORT_FOLDER,), settings=NoSettings, figures=NoFigures,
    inputs=_inputs, make=_make, summary=lambda figures: "a page and its plots",
    page=f"{REPORT_FOLDER}/index.html",
)  # fmt: skip
