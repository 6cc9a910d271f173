"""JSON lists, CSV, TSV and xz: read as the json and csv modules read them, or refused; bad lines left out on demand."""

from __future__ import annotations

import csv
import io
import json
import lzma
import zlib
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.readers import ReadOptions, json_list, read_blocks
from duckling_data.corpus.readers.blocks import decompressed
from duckling_data.workspace.source_record import LISTED, Findings
from tests.support.data import SMALL, Cli, read_json, verified, write_jsonl
from tests.support.examples import hostile
from tests.support.readers import MIB, grown, refused, stories

TEXTS = ["One day, a dog.", "", '"Hi," she said:\r\n\tno\\', "naïve 🐈 ]}", "[{,", "a\nb"]
CUTS = [1, 2, 7, 1 << 12]


def write_table(path: Path, texts: list[str], delimiter: str) -> None:
    with path.open("w", newline="", encoding="utf-8") as file:
        csv.writer(file, delimiter=delimiter, quoting=csv.QUOTE_ALL).writerows([["id", "text"], *enumerate(texts)])


@pytest.mark.parametrize("block_bytes", CUTS)
def test_every_kind_of_file_gives_the_same_stories(tmp_path: Path, block_bytes: int) -> None:
    records = [{"id": number, "n": [{"a": "]"}, []], "text": story} for number, story in enumerate(TEXTS)]
    write_jsonl(tmp_path / "s.ndjson", TEXTS)
    (tmp_path / "s.json").write_text(json.dumps(records))
    (tmp_path / "i.json").write_text("\ufeff \n" + json.dumps(records, indent=2, ensure_ascii=False) + "\n")
    for suffix, delimiter in ((".csv", ","), (".tsv", "\t")):
        write_table(tmp_path / f"s{suffix}", TEXTS, delimiter)
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "s.csv").read_bytes())
    whole = (tmp_path / "s.json").read_bytes()
    (tmp_path / "s.json.xz").write_bytes(lzma.compress(whole[:99]) + bytes(8) + lzma.compress(whole[99:]) + bytes(4))
    for path in sorted(tmp_path.iterdir()):
        assert stories(path, block_bytes) == TEXTS, path


@hostile
@given(
    value=st.lists(st.fixed_dictionaries({"text": st.none() | st.text('ab"\\,]}é', max_size=9)}), max_size=5),
    block_bytes=st.sampled_from(CUTS),
)
def test_a_list_is_read_as_json_reads_it(tmp_path: Path, value: list[dict[str, str | None]], block_bytes: int) -> None:
    (tmp_path / "s.json").write_text(json.dumps(value))
    assert stories(tmp_path / "s.json", block_bytes) == [item["text"] for item in value]


@hostile
@given(content=st.text('ab,"\n\r\t', max_size=60), block_bytes=st.sampled_from(CUTS))
def test_a_table_is_read_as_the_csv_module_reads_it_or_refused(tmp_path: Path, content: str, block_bytes: int) -> None:
    path = tmp_path / "s.csv"
    path.write_bytes(f"text\n{content}".encode())
    try:
        rows = [row for row in csv.reader(io.StringIO(content, newline="\n"), strict=True) if row]
        assert max(map(len, rows), default=1) == 1
    except (csv.Error, AssertionError):
        refused(path, block_bytes)
    else:
        assert stories(path, block_bytes) == [story for (story,) in rows]


@pytest.mark.parametrize("block_bytes", CUTS)
@pytest.mark.parametrize(
    ("name", "content", "reason"),
    [
        ("s.json", "", "ends within item 1"),
        ("s.json", '{"text": "a"}\n{"text": "b"}\n', "expected a list of objects"),
        ("s.json", '[{"text": "a"}, {"text": "b"}', "ends within item 2"),
        ("s.json", '[{"text": "a"}, {"text": "b"}] [', "goes on after the end"),
        ("s.json", '[{"text": "a"},]', "item 2: broken JSON"),
        ("s.json", '[{"text": "a"}, , {"text": "b"}]', "item 2: broken JSON"),
        ("s.json", '[{"text": "a"]}]', "item 1: broken JSON"),
        ("s.json", '[{"text": "a"}, {"text": "b", "text": "c"}]', "item 2: the duplicate key"),
        ("s.json", '[{"text": "a"}}', "item 1: broken JSON"),
        ("s.json", '[{"text": "a"}, 7]', "item 2: expected an object"),
        ("s.csv", "a,b\n1,2\n", "0 columns 'text'"),
        ("s.csv", "text,text\n1,2\n", "2 columns 'text'"),
        ("s.csv", 'text,n\na,1\n"b,1\nc,2\n', "line 3: unexpected end of data"),
        ("s.csv", 'text,n\na,1\n"b"c,1\n', "line 3: ',' expected after"),
        ("s.tsv", "text\tn\na\t1\nb,1\n", "line 3: 1 fields, expected 2"),
        ("s.csv", "text\na\rb\n", "line 2: new-line character seen in unquoted field."),
    ],
)
def test_what_is_no_list_or_table_is_refused(
    tmp_path: Path, name: str, content: str, reason: str, block_bytes: int
) -> None:
    (tmp_path / name).write_text(content, newline="")
    assert reason in refused(tmp_path / name, block_bytes)


def test_a_row_and_an_item_have_the_limit_of_a_story(tmp_path: Path) -> None:
    path = tmp_path / "s.json.xz"
    path.write_bytes(lzma.compress(b'[{"text": "') + lzma.compress(b"a" * MIB) * 40)
    csv_path, blanks = tmp_path / "s.csv.xz", tmp_path / "b.json.xz"
    csv_path.write_bytes(lzma.compress(b'text\n"') + lzma.compress((b"a" * 1023 + b"\n") * 1024) * 40)
    blanks.write_bytes(lzma.compress(b'[{"text": "a"}]') + lzma.compress(b" " * MIB) * 99)
    (item, first), (row, second), (read, third) = grown(path, csv_path, blanks)
    assert "item 1 has more than 32 MiB" in item
    assert "a row of more than 32 MiB" in row
    assert read == "1"
    assert max(first, second, third) < 400 * MIB


def test_an_xz_file_of_many_streams_comes_in_pieces_of_a_block(tmp_path: Path) -> None:
    path = tmp_path / "s.txt.xz"
    path.write_bytes(lzma.compress(b"abc") * 100)
    assert [len(piece) for piece in decompressed(path, "xz", 60)] == [60] * 5


def test_an_xz_file_that_is_cut_or_asks_for_much_memory_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "s.txt.xz"
    whole = lzma.compress(b"a story" * 99)
    for size in (1, 20, len(whole) - 1):
        path.write_bytes(whole[:size])
        assert "Truncated" in refused(path)
    path.write_bytes(whole + b"more")
    assert "cannot be read" in refused(path)
    encoded = bytearray(lzma.compress(b"a", lzma.FORMAT_XZ, filters=[{"id": lzma.FILTER_LZMA2, "dict_size": 1 << 20}]))
    place = encoded.index(b"\x21\x01\x10") + 2  # the filter, the size of its properties, the size of its dictionary
    encoded[place] = 34
    end = 12 + encoded[12] * 4  # of the block's header, without its checksum
    encoded[end : end + 4] = zlib.crc32(encoded[12:end]).to_bytes(4, "little")
    path.write_bytes(encoded)
    assert "Memory usage limit" in refused(path)


BAD = {
    "s.jsonl": ('{"text": "%s"}\n', "broken\n", '{"text": 7}\n', '{"text": "a", "text": "b"}\n', "", "line 2: "),
    "s.json": (', {"text": "%s"}', ', {"broken": }', ', {"text": 7}', ', {"text": "a", "text": "b"}', "]", "item 2: "),
    "s.csv": ("%s,1\n", '"a"b,1\n', "one\n", "1,2,3\n", "", "line 3: "),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_lines_are_left_out_counted_and_listed_if_that_is_asked_for(cli: Cli, tmp_path: Path, name: str) -> None:
    good, *bad, end, first = BAD[name]
    texts = [text.replace(",", ";").replace('"', "'").replace("\n", " ") for text in demo_stories(0, 40).to_pylist()]
    lines = [good % story for story in texts]
    lines[1:1] = bad
    content = {"s.json": "[", "s.csv": "text,n\n"}.get(name, "") + "".join(lines).removeprefix(", ") + end
    path, workspace = tmp_path / name, tmp_path / "w"
    path.write_text(content)
    make = ("pack", "-w", workspace, "--source", path, *SMALL)
    assert cli(*make).exit_code == 2
    said = cli(*make, "--on-bad-line", "skip").stderr
    assert f"{path}: 3 bad lines are left out" in said
    assert f"\n             {first}" in said
    assert read_json(workspace / "manifest.json")["corpus"]["splits"]["train"]["stories"] == 40
    assert "pack         up to date" in cli(*make).stderr  # remembered
    verified(workspace)
    assert cli(*make, "--on-bad-line", "fail").exit_code == 2


def test_a_file_without_bad_lines_is_the_same_corpus_and_of_many_the_first_are_listed(tmp_path: Path, cli: Cli) -> None:
    write_jsonl(tmp_path / "s.jsonl", demo_stories(0, 40).to_pylist())
    cli("pack", "-w", tmp_path / "w", "--source", tmp_path / "s.jsonl", *SMALL)
    assert "pack         up to date" in cli("pack", "-w", tmp_path / "w", "--on-bad-line", "skip").stderr
    (tmp_path / "b.jsonl").write_text("x\n" * 1000)
    found = Findings()
    list(read_blocks(tmp_path / "b.jsonl", ReadOptions(on_bad_line="skip"), found=found))
    assert (found.skipped, len(found.bad_lines), found.bad_lines[-1][:8]) == (1000, LISTED, "line 10:")


def test_in_a_folder_json_is_read_only_where_nothing_else_is(cli: Cli, tmp_path: Path) -> None:
    folder = tmp_path / "f"
    folder.mkdir()
    (folder / "a.json").write_text(json.dumps([{"text": text} for text in demo_stories(0, 40).to_pylist()]))
    result = cli("pack", "-w", tmp_path / "w", "--source", folder, *SMALL)
    assert result.exit_code == 0, result.stderr
    (folder / "a.json").write_text('{"about": "the data"}')
    write_jsonl(folder / "s.ndjson", demo_stories(0, 40).to_pylist())
    assert cli("pack", "-w", tmp_path / "w", "--source", folder, *SMALL).exit_code == 0


def test_the_limit_of_an_item_is_that_of_the_item_wherever_the_cuts_fall(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(json_list, "STORY_LIMIT", 40)
    for block_bytes in CUTS:
        for place in range(3):
            items = ['{"text": "a"}'] * 3
            items[place] = '{"text": "' + "x" * 28 + '"}'
            (tmp_path / "s.json").write_text(f"[{','.join(items)}]")
            assert len(stories(tmp_path / "s.json", block_bytes)) == 3
            items[place] = '{"text": "' + "x" * 29 + '"}'
            (tmp_path / "s.json").write_text(f"[{','.join(items)}]")
            assert f"item {place + 1} has more than" in refused(tmp_path / "s.json", block_bytes)
