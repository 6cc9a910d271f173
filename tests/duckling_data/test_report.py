"""The report says what the manifest says, in equal bytes each time, and nothing in the data can break its page."""

from __future__ import annotations

import base64
import re
import struct
import warnings
from pathlib import Path

import matplotlib
import numpy as np
import pytest

from duckling_data.base.errors import CheckFailed
from duckling_data.base.progress import Reporter
from duckling_data.rows.read import open_rows
from duckling_data.stages.report import draw_report, page
from duckling_data.stages.report.facts import gather, visible
from duckling_data.stages.report.plots import draw
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.workspace.manifest import Manifest
from tests.support.report_page import SMALL, Page, make, read_page, sentences, write_stories

FILES = ["coverage.png", "zipf.png", "story_length.png", "unknown.png", "index.html"]
HOSTILE = "<script>alert(1)</script> <b> $x_1$ &amp; & \\ \"'"
"""Text that would act, or be changed, if it were not escaped."""
ODD = "の龍喚士 ン 😀 日本 e\u0301 \u202e \u00a0 · \x00 \x7f \ufffd"
LONG = "<|endoftext|>" + "-" * 64 + "!" * 128


@pytest.fixture(scope="module")
def stories(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_stories(tmp_path_factory.mktemp("stories") / "ducks.jsonl", sentences(60))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory, stories: Path) -> Path:
    workspace = tmp_path_factory.mktemp("packed")
    make(workspace, stories, "count", "build-vocab", "pack", "report")
    return workspace


def test_the_report_is_four_figures_and_a_page(packed: Path) -> None:
    assert sorted(path.name for path in (packed / "report").iterdir()) == sorted(FILES)
    for name in FILES[:-1]:
        content = (packed / "report" / name).read_bytes()
        assert content[:8] == b"\x89PNG\r\n\x1a\n"
        assert struct.unpack(">II", content[16:24]) == (1200, 800)
        assert 20_000 < len(content) < 400_000
        assert b"tEXt" not in content  # no program's name or date


def test_two_runs_give_equal_bytes_whatever_the_users_matplotlib_settings(packed: Path) -> None:
    before = {name: (packed / "report" / name).read_bytes() for name in FILES}
    own = {"axes.facecolor": "red", "font.size": 30, "savefig.dpi": 33, "lines.linewidth": 9, "axes.grid": False}
    with matplotlib.rc_context(own):
        files = draw_report(packed, Manifest(packed), Reporter(quiet=True))
        assert {name: matplotlib.rcParams[name] for name in own} == own
    assert list(files) == FILES
    assert files == before


def test_a_report_that_cannot_be_drawn_leaves_the_old_one_entered(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "one.jsonl", ["a b c d", ""])
    given = {"live": 4, "dead": 2, "sample": "all"}
    make(tmp_path / "w", source, "report", settings=given)
    counts, manifest = tmp_path / "w" / "token_counts.parquet", tmp_path / "w" / "manifest.json"
    counts.write_bytes(bytes(counts.stat().st_size))
    (tmp_path / "w" / "report" / "zipf.png").unlink()
    before = manifest.read_bytes()
    with pytest.raises(CheckFailed, match=r"token_counts\.parquet"):
        make(tmp_path / "w", source, "report", settings=given)
    assert manifest.read_bytes() == before


def test_the_page_needs_nothing_but_itself(packed: Path) -> None:
    html = (packed / "report" / "index.html").read_text(encoding="utf-8")
    found = Page(html)
    assert not re.search(r"https?://|url\(|@import", html)
    assert not found.tags & {"script", "link", "iframe", "object"}
    named = [(name, str(value)) for name, value in found.attributes if name in ("src", "href", "srcset")]
    named.remove(("href", "#main"))  # the skip link
    assert {name for name, _ in named} == {"src", "srcset"}
    images = [base64.b64decode(value.removeprefix("data:image/png;base64,"), validate=True) for _, value in named]
    figures = [(packed / "report" / name).read_bytes() for name in FILES[:-1]]
    assert images[1::2] == figures
    assert [struct.unpack(">II", narrow[16:24]) for narrow in images[::2]] == [(920, 1200)] * len(figures)
    assert str(packed) not in html


def test_the_page_says_what_the_manifest_says(packed: Path) -> None:
    manifest, found = Manifest(packed), read_page(packed)
    count, vocab = manifest.stages["count"].figures, manifest.stages["build-vocab"].figures
    train = manifest.stages["pack"].figures["splits"]["train"]
    expected = {
        "stories counted": f"{count['stories_counted']:,}",
        "tokens counted": f"{count['tokens']:,}",
        "distinct tokens": f"{count['distinct']:,}",
        "live ids": "60",
        "dead ids": "20",
        "tokens counted with a live id": f"{vocab['covered_tokens']:,}",
        "tokens counted without one": f"{vocab['unknown_tokens']:,}",
        "coverage": f"{vocab['coverage']:.4%}".replace("%", " %"),
        "rows": f"{train['rows']:,}",
        "tokens in dropped tails": f"{train['dropped_tail_tokens']:,}",
        "tokens without a live id": f"{train['unknown_tokens']:,}",
        "unknown rate": f"{train['unknown_rate']:.4%}".replace("%", " %"),
        "the tokens of the train rows": train["payload_sha256"],
        "the counts themselves": count["counts_sha256"],
        "90 %": f"{count['ids_for_coverage']['90.0%']}",
        "99.9 %": f"{count['ids_for_coverage']['99.9%']}",
    }
    assert {name: found.row(name)[0] for name in expected} == expected
    assert 0 < vocab["coverage"] < 1
    assert "ducks.jsonl" in found.text


def test_the_plots_come_before_the_tables(packed: Path) -> None:
    html = (packed / "report" / "index.html").read_text(encoding="utf-8")
    assert html.count("<figure>") == 4
    assert html.rindex("<figure>") < html.index("<table>")


def test_the_page_says_how_many_live_ids_are_rare_in_the_rows_and_that_no_dead_one_is_there(packed: Path) -> None:
    tokens = np.concatenate(list(open_rows(packed / "tokenized_dataset"))).tolist()
    found, times = read_page(packed), [tokens.count(compact) for compact in range(80)]
    assert sum(count > 0 for count in times[:60]) > 10
    assert found.row("live ids that never occur") == [str(times[:60].count(0))]
    assert found.row("live ids that occur fewer than 50 times") == [str(sum(count < 50 for count in times[:60]))]
    assert found.row("occurrences of dead ids") == ["0"]


def test_the_page_counts_dead_ids_where_rows_hold_some(packed: Path) -> None:
    facts = gather(packed, Manifest(packed))
    facts.in_rows["train"][[60, 79]] += [2, 3]
    assert Page(page(facts, {}).decode()).row("occurrences of dead ids") == ["5"]


def test_tokens_without_a_live_id_are_told_apart_by_how_often_they_occur(packed: Path) -> None:
    facts = gather(packed, Manifest(packed))
    counts = facts.counts.count[~facts.live].tolist()
    shown = {times: (ids, occurrences) for times, ids, occurrences in facts.unknown_times}
    assert shown["2"] == (counts.count(2), 2 * counts.count(2))
    assert tuple(map(sum, zip(*shown.values(), strict=True))) == (len(counts), sum(counts))


def test_the_unknown_tokens_are_the_most_frequent_beyond_the_live_ones(packed: Path) -> None:
    facts, found = gather(packed, Manifest(packed)), read_page(packed)
    live = set(facts.mapping["live_token_ids"])
    beyond = [i for i in range(len(facts.counts.count)) if int(facts.counts.gpt2_id[i]) not in live][:30]
    assert len(beyond) == 30
    for place in beyond:
        token, count = int(facts.counts.gpt2_id[place]), int(facts.counts.count[place])
        ppm = f"{1e6 * count / facts.counts.total:,.2f}"
        assert found.row(visible(token)) == [str(token), str(place + 1), str(count), ppm]


@pytest.mark.parametrize(
    ("unk", "mapped"),
    [("reserved", "each becomes compact id 59, reserved for them"), ("decompose", "each is split into pieces")],
)
def test_each_policy_says_what_becomes_of_unknown_tokens(tmp_path: Path, stories: Path, unk: str, mapped: str) -> None:
    make(tmp_path, stories, "pack", "report", settings={**SMALL, "unk": unk})
    facts, found = gather(tmp_path, Manifest(tmp_path)), read_page(tmp_path)
    assert f"Tokens without a live id: {mapped}" in found.text
    train = facts.packed["train"]
    if unk == "decompose":  # nothing is lost
        assert found.row("of these, split into pieces")[0] == f"{train['split_tokens']:,}" != "0"
        assert (found.row("of these, unknown")[0], found.row("unknown rate")[0]) == ("0", "0.0000 %")
    assert found.row("GPT-2 tokens of the stories")[0] == f"{train['gpt2_tokens']:,}"
    assert len(facts.unknown) == 30
    live = set(facts.mapping["live_token_ids"])
    for token in facts.unknown:
        cells = found.row(visible(token.gpt2_id))
        assert len(cells) == (5 if unk == "decompose" else 4)
        if unk == "decompose":
            assert live.issuperset(token.pieces)
            assert b"".join(map(GPT2.token_bytes, token.pieces)) == GPT2.token_bytes(token.gpt2_id)
            assert cells[4] == " + ".join(map(visible, token.pieces))


def test_the_seeds_policy_names_the_token_that_unknown_ones_become(packed: Path) -> None:
    first = gather(packed, Manifest(packed)).mapping["live_token_ids"][0]
    assert f"each becomes “{visible(first)}” (compact id 0)" in read_page(packed).text


def test_without_rows_the_report_says_so_and_with_rows_no_longer(tmp_path: Path, stories: Path) -> None:
    make(tmp_path, stories, "report")
    before = read_page(tmp_path)
    assert "No rows are packed yet" in before.text
    assert not any(row and row[0] == "rows" for row in before.rows)
    manifest = make(tmp_path, stories, "pack", settings={})
    after = Page(page(gather(tmp_path, manifest), {}).decode())
    assert "No rows are packed yet" not in after.text
    assert int(after.row("rows")[0]) > 0


def test_rows_of_another_mapping_are_called_out_of_date(tmp_path: Path, stories: Path) -> None:
    manifest = make(tmp_path, stories, "pack")
    assert b"out of date" not in page(gather(tmp_path, manifest), {})
    manifest = make(tmp_path, stories, "build-vocab", settings={"live": 50})
    assert b"out of date" in page(gather(tmp_path, manifest), {})


def test_a_mapping_of_the_users_own_has_its_coverage_computed(tmp_path: Path, stories: Path, packed: Path) -> None:
    manifest = make(tmp_path, stories, "report", mapping=packed / "token_mapping.json", settings={"ctx": 16})
    assert "coverage" not in manifest.stages["build-vocab"].figures
    given, own = read_page(tmp_path), read_page(packed)
    assert given.row("coverage") == own.row("coverage")
    assert given.row("build-vocab") == ["a mapping of the user's own"]


def test_hostile_text_and_names_stay_text(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "a<img src=x>&amp;.jsonl", [HOSTILE, HOSTILE, "A duck."])
    make(tmp_path / "w", source, "report", settings={"live": 1, "dead": 1, "sample": "all"})
    facts, found = gather(tmp_path / "w", Manifest(tmp_path / "w")), read_page(tmp_path / "w")
    shown = {row[0] for row in found.rows if len(row) == 5}
    assert {"<", "script", ")</", "·<", "·$", "·&", "·\\\\", "·\"'"} <= shown
    assert {visible(token.gpt2_id) for token in facts.unknown} <= shown
    assert found.tags.isdisjoint({"script", "b><", "alert"})
    assert [value for name, value in found.attributes if name == "src" and not str(value).startswith("data:")] == []
    assert "a<img src=x>&amp;.jsonl" in found.text


@pytest.mark.parametrize(("text", "narrow"), [("$$ $x_1$ $^{ \\frac", False), (ODD, True), (LONG, False), (LONG, True)])
def test_no_token_makes_a_figure_fail_or_warn(tmp_path: Path, text: str, narrow: bool) -> None:
    manifest = make(
        tmp_path,
        write_stories(tmp_path / "odd.jsonl", [text, text]),
        "build-vocab",
        settings={"live": 1, "dead": 0, "sample": "all"},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that the font lacks warns
        figures = dict(draw(gather(tmp_path, manifest), narrow=narrow))
    assert list(figures) == FILES[:-1]


def test_a_vocabulary_that_covers_everything_is_reported(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "one.jsonl", ["a b c d", ""])
    make(tmp_path / "w", source, "report", settings={"live": 4, "dead": 2, "sample": "all"})
    found = read_page(tmp_path / "w")
    assert found.row("coverage") == ["100.0000 %"]
    assert "every token counted has a live id" in found.text
