"""The report says what the manifest says, in equal bytes each time, and nothing in the data can break its page."""

from __future__ import annotations

import base64
import json
import random
import re
import struct
import warnings
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import matplotlib
import numpy as np
import pytest
from tokenizers import decoders

from duckling_data.base.errors import CheckFailed
from duckling_data.base.gpt2_files import gpt2_vocabulary
from duckling_data.base.progress import Reporter
from duckling_data.pipeline import Pipeline, Request
from duckling_data.stages.report import draw_report, write_report
from duckling_data.stages.report.facts import Lengths, gather, percent, visible
from duckling_data.stages.report.page import page
from duckling_data.stages.report.plots import _drawable, draw
from duckling_data.tokens.gpt2 import GPT2
from duckling_data.workspace.manifest import Manifest

FILES = ["coverage.png", "zipf.png", "story_length.png", "unknown.png", "index.html"]
SMALL = {"live": 60, "dead": 20, "sample": "all", "ctx": 16}
HOSTILE = "<script>alert(1)</script> <b> $x_1$ &amp; & \\ \"'"
"""Text that would act, or be changed, if it were not escaped."""
ODD = "の龍喚士 ン 😀 日本 e\u0301 \u202e \u00a0 · \x00 \x7f \ufffd"


def sentences(number: int) -> list[str]:
    """Varied sentences, some tokens frequent and many rare."""
    chance = random.Random(0)
    animals, verbs, things, names = (
        ["duck", "dog", "cat", "bird", "fish", "frog", "hen", "owl", "fox", "bear", "mouse", "horse"],
        ["saw", "found", "liked", "chased", "washed", "lost", "drew", "heard", "met", "thanked"],
        ["ball", "river", "tree", "cake", "stone", "boat", "hat", "moon", "leaf", "song", "wall", "drum", "kite"],
        ["Lily", "Tom", "Anna", "Ben", "Mia", "Max", "Sue", "Tim", "Zoe", "Sam"],
    )
    return [
        f"{chance.choice(names)} the {chance.choice(animals)} {chance.choice(verbs)} a {chance.choice(things)}. "
        f"Then {chance.choice(names)} {chance.choice(verbs)} the {chance.choice(things)}, {number} times!"
        for number in range(number)
    ]


def write_stories(path: Path, stories: list[str]) -> Path:
    path.write_text("".join(json.dumps({"text": story}) + "\n" for story in stories), encoding="utf-8")
    return path


def make(
    workspace: Path, source: Path, *targets: str, mapping: Path | None = None, settings: dict[str, Any] | None = None
) -> Manifest:
    request = Request(
        workspace, 2, (str(source),), mapping=mapping, settings=SMALL if settings is None else settings, offline=True
    )
    return Pipeline(request, Reporter(quiet=True)).make(*targets)


class Page(HTMLParser):
    """A page's tags, attributes, text, and the cells of its table rows."""

    def __init__(self, html: str) -> None:
        super().__init__()
        self.tags: set[str] = set()
        self.attributes: list[tuple[str, str | None]] = []
        self.rows: list[list[str]] = []
        self.text = ""
        self._in_cell = False
        self.feed(html)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.add(tag)
        self.attributes += attrs
        if tag == "tr":
            self.rows.append([])
        elif tag in ("td", "th"):
            self.rows[-1].append("")
            self._in_cell = True

    def handle_endtag(self, tag: str) -> None:
        if tag in ("td", "th"):
            self._in_cell = False

    def handle_data(self, data: str) -> None:
        self.text += data
        if self._in_cell:
            self.rows[-1][-1] += data

    def row(self, name: str) -> list[str]:
        """The cells behind the first cell `name`, which stands there once."""
        (found,) = (row[1:] for row in self.rows if row and row[0] == name)
        return found


def read_page(workspace: Path) -> Page:
    return Page((workspace / "report" / "index.html").read_text(encoding="utf-8"))


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
        assert list(files) == FILES
        write_report(packed, files)
        assert {name: matplotlib.rcParams[name] for name in own} == own
    assert {name: (packed / "report" / name).read_bytes() for name in FILES} == before


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
    sources = [value or "" for name, value in found.attributes if name in ("src", "href", "srcset")]
    figures = [(packed / "report" / name).read_bytes() for name in FILES[:-1]]
    assert [base64.b64decode(source.removeprefix("data:image/png;base64,")) for source in sources] == figures
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


@pytest.mark.parametrize("text", ["$$ $x_1$ $^{ \\frac", ODD, "<|endoftext|>" + "-" * 64 + "!" * 128])
def test_no_token_makes_a_figure_fail_or_warn(tmp_path: Path, text: str) -> None:
    manifest = make(
        tmp_path,
        write_stories(tmp_path / "odd.jsonl", [text, text]),
        "build-vocab",
        settings={"live": 1, "dead": 0, "sample": "all"},
    )
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # a glyph that the font lacks warns
        figures = dict(draw(gather(tmp_path, manifest)))
    assert list(figures) == FILES[:-1]


def test_a_vocabulary_that_covers_everything_is_reported(tmp_path: Path) -> None:
    source = write_stories(tmp_path / "one.jsonl", ["a b c d", ""])
    make(tmp_path / "w", source, "report", settings={"live": 4, "dead": 2, "sample": "all"})
    found = read_page(tmp_path / "w")
    assert found.row("coverage") == ["100.0000 %"]
    assert "every token counted has a live id" in found.text


def test_no_two_tokens_are_shown_alike() -> None:
    for drawable in (None, _drawable()):
        shown = [visible(token, drawable) for token in range(50_257)]
        assert len(set(shown)) == 50_257
        assert all(text.isprintable() and not text.startswith(" ") for text in shown)


def test_token_bytes_are_gpt2s() -> None:
    decode = decoders.ByteLevel().decode
    whole = 0
    for token, gpt2_id in gpt2_vocabulary().items():
        found, expected = GPT2.token_bytes(gpt2_id), decode([token])
        assert found.decode("utf-8", "replace") == expected
        whole += "\ufffd" not in expected
    assert whole > 49_000
    assert {GPT2.token_bytes(token) for token in range(256)} == {bytes([value]) for value in range(256)}


@pytest.mark.parametrize(
    ("gpt2_id", "shown"),
    [
        (262, "·the"),
        (198, "\\n"),
        (59, "\\\\"),
        (220, "·"),
        (188, "\\x00"),
        (1849, "\\u00a0"),
        (50256, "<|endoftext|>"),
    ],
)
def test_tokens_are_shown_with_visible_spaces_and_escapes(gpt2_id: int, shown: str) -> None:
    assert visible(gpt2_id) == shown


@pytest.mark.parametrize(
    ("share", "digits", "shown"),
    [
        (0.995481, 4, "99.5481 %"),
        (0.5, 2, "50.00 %"),
        (1.0, 2, "100.00 %"),
        (0.0, 4, "0.0000 %"),
        (0.9999996, 2, "99.99996 %"),
        (3e-8, 4, "0.000003 %"),
    ],
)
def test_a_share_short_of_all_or_of_nothing_is_never_shown_as_it(share: float, digits: int, shown: str) -> None:
    assert percent(share, digits) == shown


def test_lengths_are_read_from_the_histogram() -> None:
    lengths = Lengths(np.array([0, 4, 4, 0, 2]), 16, mean=35.0)
    assert lengths.total == 10
    assert lengths.quantile(0.5) == 36.0  # a quarter into the bin from 32
    assert lengths.quantile(1.0) == 80.0
    assert lengths.median == (36.0, "about 36")
    assert lengths.at_least(32) == 6
    assert lengths.at_least(64) == 2
    assert lengths.at_least(33) is None
    assert lengths.at_least(16 * 127) == 0
    assert lengths.at_least(16 * 128) is None


def test_a_median_among_the_longest_stories_is_not_guessed() -> None:
    lengths = Lengths(np.array([4] + [0] * 126 + [6]), 16, mean=3000.0)
    assert lengths.open_ended
    assert lengths.median == (2032, "2,032 or more")
