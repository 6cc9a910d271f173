"""JSON from outside has one meaning or is refused, in one line, in bounded time and memory, wherever it stands."""

from __future__ import annotations

import json
import os
import re
import resource
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.base.files import open_regular, sha256_file
from duckling_data.base.records import FileRecord, plain, short
from duckling_data.base.strict_json import JSON_DEPTH, JSON_LIMIT, parse_json, write_json
from duckling_data.rows.read import read_rows
from duckling_data.stages.count import CountSettings
from duckling_data.stages.packer import PackFigures, SplitFigures
from duckling_data.tokens.mapping import MAPPING_LIMIT, read_mapping
from duckling_data.workspace.manifest import Manifest, StageRecord
from duckling_data.workspace.settings import resolve
from duckling_data.workspace.source_record import read_source
from tests.support.data import Cli
from tests.support.examples import hostile

HOSTILE = {
    "invalid UTF-8": b'{"a": "\xff"}',
    "a byte order mark": b'\xef\xbb\xbf{"a": 1}',
    "UTF-16": '{"a": 1}'.encode("utf-16"),
    "a duplicate key": b'{"a": 1, "b": 2, "a": 1}',
    "a duplicate key, null": b'{"a": null, "a": null}',
    "a duplicate key, escaped": b'[[":", {"b": {}, "a": {"a": 1, "\\u0061": 2}}]]',
    "NaN": b'{"a": NaN}',
    "-Infinity": b'{"a": -Infinity}',
    "1e999": b'{"a": 1e999}',
    "10,000 digits": b'{"a": ' + b"9" * 10_000 + b"}",
    "65 bits": b'{"a": 9223372036854775808}',
    "65 bits, negative": b'{"a": [1.5e10, -9223372036854775809]}',
    "20 digits": b"[" + b"1" * 20 + b"]",
    "a million levels": b"[" * 1_000_000,
    "closed levels": b"[" * (JSON_DEPTH + 1) + b"]" * (JSON_DEPTH + 1),
    "objects in objects": b'{"a":' * 5000 + b"1" + b"}" * 5000,
    "a lone surrogate": b'{"a": "\\ud800"}',
    "a lone surrogate in a key": b'{"\\udc80": 1}',
    "a control character": b'{"a": "\n"}',
    "nothing": b"",
    "two values": b"{} {}",
}

READERS: dict[str, Callable[[Path], object]] = {
    "token_mapping.json": lambda folder: read_mapping(folder / "token_mapping.json"),
    "manifest.json": Manifest,
    "corpus/source.json": read_source,
    "state.json": read_rows,
}
"""Each reader of a JSON file by that file's name in a folder."""

reader = pytest.mark.parametrize("name", READERS)

PROCESSOR_SECONDS = 60
"""Processor time, which other work on the machine does not add to, for one file: 50 times what the largest takes."""


def put(folder: Path, name: str) -> Path:
    path = folder / name
    path.parent.mkdir(exist_ok=True)
    return path


def refused(folder: Path, name: str) -> str:
    begin = time.process_time()
    with pytest.raises(InputError) as error:
        READERS[name](folder)
    line = str(error.value)
    assert time.process_time() - begin < PROCESSOR_SECONDS
    assert "\n" not in line
    assert len(line) < 600
    return line


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_json_of_two_meanings_or_none_is_refused_in_one_line(content: bytes) -> None:
    with pytest.raises(ValueError) as error:  # noqa: PT011  # its text is what is looked at
        parse_json(content)
    assert type(error.value) in (ValueError, json.JSONDecodeError, UnicodeDecodeError)
    assert 0 < len(str(error.value)) < 200
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("name", "said"),
    [("a duplicate key", "the duplicate key 'a'"), ("a duplicate key, escaped", "the duplicate key 'a'"),
     ("a lone surrogate", "lone surrogate"), ("a byte order mark", "byte order mark"), ("65 bits", "at most 64 bits"),
     ("closed levels", "more than 32 lists and objects")],
)  # fmt: skip
def test_the_reason_is_given_in_plain_words(name: str, said: str) -> None:
    with pytest.raises(ValueError, match=re.escape(said)):
        parse_json(HOSTILE[name])


@pytest.mark.parametrize(
    "content", [b"[9223372036854775807, -9223372036854775808]", b"[0.1234567890123456789012, 12345678901234567890.5]",
                b"[12345678901234567890e-1, 1e-12345678901234567890]", b'["12345678901234567890", {"1:2": ":"}]'],
)  # fmt: skip
def test_long_numbers_that_fit_are_read(content: bytes) -> None:
    assert parse_json(content) == json.loads(content)


@reader
def test_every_reader_reads_strictly(tmp_path: Path, name: str) -> None:
    put(tmp_path, name).write_bytes(HOSTILE["a duplicate key"])
    line = refused(tmp_path, name)
    assert Path(name).name in line
    assert "duplicate key" in line


PLAIN = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(st.characters(exclude_categories=["Cs"])), inner),
    max_leaves=30,
)  # fmt: skip


@hostile
@given(value=PLAIN)
def test_what_it_takes_is_what_the_standard_library_reads(value: Any) -> None:
    for ascii_only in (True, False):
        assert parse_json(json.dumps(value, ensure_ascii=ascii_only).encode()) == value


@hostile
@given(content=st.binary() | st.text().map(str.encode) | st.from_regex(rb'[\[{"\\u0-9a-f:,}\]eE+. -]*', fullmatch=True))
def test_any_bytes_give_a_value_or_a_value_error(content: bytes) -> None:
    try:
        value = parse_json(content)
    except ValueError:
        return
    assert json.loads(content) == value


@pytest.mark.parametrize("value", [float("nan"), float("inf"), "\udcff", 1 << 70, "x" * JSON_LIMIT])
def test_what_could_not_be_read_again_is_not_written(tmp_path: Path, value: Any) -> None:
    with pytest.raises(InputError, match="not written"):
        write_json(tmp_path / "v.json", {"v": value})
    assert not any(tmp_path.iterdir())


@reader
def test_two_gigabytes_are_refused_unread(tmp_path: Path, name: str) -> None:
    with put(tmp_path, name).open("wb") as file:
        file.truncate(2 << 30)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert "2,147,483,648 bytes" in refused(tmp_path, name)
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 100 << 10  # KiB


@reader
def test_a_pipe_or_a_directory_in_its_place_is_refused_at_once(tmp_path: Path, name: str) -> None:
    os.mkfifo(put(tmp_path, name))
    assert "expected a regular file" in refused(tmp_path, name)
    (tmp_path / name).unlink()
    (tmp_path / name).mkdir()
    assert "directory" in refused(tmp_path, name)
    (tmp_path / name).rmdir()
    (tmp_path / name).symlink_to("/dev/zero")
    assert "expected a regular file" in refused(tmp_path, name)


def test_hashing_waits_for_no_pipe(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for call in (sha256_file, open_regular):
        with pytest.raises(InputError, match="regular file"):
            call(tmp_path / "pipe")


@pytest.mark.parametrize("unit", [b"[],", b'{"":0},'])
def test_the_largest_file_takes_bounded_time_and_memory(tmp_path: Path, unit: bytes) -> None:
    content = b"[" + unit * (MAPPING_LIMIT // len(unit) - 2) + b"0]"
    assert MAPPING_LIMIT - 24 < len(content) <= MAPPING_LIMIT
    (tmp_path / "token_mapping.json").write_bytes(content)
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    refused(tmp_path, "token_mapping.json")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 600 << 10  # KiB
    assert MAPPING_LIMIT < JSON_LIMIT


def manifest_with(outputs: Any = None, settings: Any = None) -> str:
    stage = {"settings": settings or {}, "inputs": {}, "outputs": outputs or {}, "figures": {}}
    return json.dumps({"format": 1, "corpus": None, "stages": {"count": stage}})


OUTSIDE = ["/etc/passwd", "../x", "report/../../x", "..", ".", "", "report/", "report//x", "a\\..\\b", "C:/x", "a\0b"]


@pytest.mark.parametrize("place", [*OUTSIDE, "report/link"])
def test_no_output_of_a_manifest_leads_out_of_the_workspace(tmp_path: Path, place: str) -> None:
    workspace = tmp_path / "w"
    workspace.mkdir()
    (workspace / "report").mkdir()
    (workspace / "report" / "link").symlink_to("/etc/passwd")
    (workspace / "manifest.json").write_text(manifest_with({place: {"bytes": 1, "sha256": "ab"}}))
    assert "is no path inside the workspace" in refused(workspace, "manifest.json")


def test_a_place_moved_to_another_disk_by_a_link_is_inside(tmp_path: Path) -> None:
    (tmp_path / "w").mkdir()
    (tmp_path / "disk").mkdir()
    (tmp_path / "disk" / "state.json").write_text("{}")
    (tmp_path / "w" / "tokenized_dataset").symlink_to(tmp_path / "disk")
    output = {"tokenized_dataset/state.json": {"bytes": 2, "sha256": "ab"}}
    (tmp_path / "w" / "manifest.json").write_text(manifest_with(output))
    assert Manifest(tmp_path / "w").stale("count", {}, {}) is None


@pytest.mark.parametrize(
    "content",
    [
        manifest_with({"report/a": []}),
        manifest_with({"report/a": {"bytes": "7", "sha256": "ab"}}),
        manifest_with({"report/a": {"bytes": 7, "sha256": 7}}),
        manifest_with({"report/a": {"bytes": 7}}),
        manifest_with(settings=[1]),
        manifest_with().replace('"inputs": {}', '"inputs": {"corpus": 7}'),
        manifest_with().replace('"corpus": null', '"corpus": "demo"'),
        manifest_with().replace('"format": 1', '"format": true'),
    ],
)
def test_a_manifest_of_wrong_types_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "manifest.json").write_text(content)
    refused(tmp_path, "manifest.json")


GOOD = SplitFigures(1, 0, 9, 0, 0.0, 9, 4, 1, "ab")


@pytest.mark.parametrize(
    ("figures", "said"),
    [
        ({}, "missing required field `splits`"),
        ({"splits": []}, "got `array` - at `$.splits`"),
        ({"splits": {"test": plain(GOOD)}}, "Invalid enum value 'test'"),
        ({"splits": {"train": plain(GOOD) | {"rows": True}}}, "got `bool` - at `$.splits[...].rows`"),
        ({"splits": {"train": plain(GOOD) | {"rows": -1}}}, "Expected `int` >= 0"),
        ({"splits": {"train": plain(GOOD) | {"rpws": 1}}}, "unknown field `rpws`"),
    ],
)
def test_figures_of_wrong_types_are_refused(tmp_path: Path, figures: Any, said: str) -> None:
    manifest = Manifest(tmp_path)
    manifest.stages["pack"] = StageRecord({}, {}, {"x": FileRecord(1, "ab")}, {"splits": {"train": plain(GOOD)}})
    assert manifest.figures("pack", PackFigures) == PackFigures({"train": GOOD})
    manifest.stages["pack"].figures = figures
    with pytest.raises(InputError) as refused:
        manifest.figures("pack", PackFigures)
    assert str(refused.value).startswith(f"{tmp_path / 'manifest.json'}: stage pack, figures: ")
    assert said in str(refused.value)


@pytest.mark.parametrize("value", ["7", 7.0, True, [7], {}, "ALL", -1, 0])
def test_a_remembered_setting_of_another_kind_is_refused(value: Any) -> None:
    with pytest.raises(InputError):
        resolve(CountSettings, {}, {"sample": value})
    assert resolve(CountSettings, {}, {"sample": "all"}).value.sample is None
    with pytest.raises(InputError, match="unknown setting 'samqle'; expected sample, seed"):
        resolve(CountSettings, {}, {"samqle": 7})


@pytest.mark.parametrize("key", ["1" * 10_000, "٣", "01", "-1", "1e3", ""])
def test_a_mapping_with_a_key_that_is_no_id_is_refused(tmp_path: Path, key: str) -> None:
    sizes = {"live_tokens": 1, "dead_tokens": 0, "total_vocab": 1, "unk_id": 0}
    tables = {"gpt2_to_compact": {key: 0}, "compact_to_gpt2": {"0": 13}, "live_token_ids": [13]}
    (tmp_path / "token_mapping.json").write_text(json.dumps(sizes | tables))
    assert f"gpt2_to_compact has the key {short(key)}; expected" in refused(tmp_path, "token_mapping.json")


@pytest.mark.parametrize("name", ["manifest.json", "token_mapping.json", "corpus/source.json"])
def test_a_command_refuses_a_hostile_workspace(made: Path, cli: Cli, name: str) -> None:
    (made / name).write_bytes(HOSTILE["a lone surrogate"])
    for command in (["verify"], ["inspect", "--row", "0"]):
        result = cli(*command, "-w", made)
        if result.exit_code:
            assert result.exit_code in (1, 2), result.stderr
            assert "Traceback" not in result.stderr
    assert cli("pack", "-w", made).exit_code == 2
