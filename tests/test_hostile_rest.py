"""Every reader of outside bytes, whatever stands in its files: it reads them or refuses them in one line.

The readers and the whole files are those of `tests/support/fuzz/`, which the two fuzzers run a hundred thousand
times; here hypothesis looks for the smallest file that a reader does neither with.
"""

from __future__ import annotations

import copy
import json
import re
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from duckling_data.base.errors import InputError
from duckling_data.corpus.readers import ReadOptions, read_blocks
from duckling_data.stages.count import TokenCounts
from duckling_data.stages.counts import read_counts, write_counts
from tests.support.examples import hostile
from tests.support.fuzz.mutate import execute, judge, put_seeds
from tests.support.fuzz.targets import TARGETS, Target

ROOT = Path(__file__).parents[1]
READERS = {target.name: target for target in TARGETS}
FILES = [(target, name) for target in READERS for name in READERS[target].seeds()]
JSON_FILES = [(target, name) for target, name in FILES if name.endswith(".json")]
LOGS = [(target, name) for target, name in FILES if name.endswith(".jsonl")]

TEXT = st.text(st.characters(exclude_categories=["Cs"]), max_size=20)
VALUE = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**70), 2**70) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=8,
)


@pytest.fixture
def target(request: pytest.FixtureRequest, tmp_path: Path) -> Target:
    """The reader of that name, its whole files in `tmp_path`."""
    found = READERS[request.param]
    put_seeds(found, tmp_path)
    return found


def read_or_refused(target: Target, folder: Path, name: str, content: bytes) -> str:
    kind, fault = judge(target, folder, name, content)
    assert kind in ("read", "refused"), fault
    return kind


@pytest.mark.parametrize("target", READERS, indirect=True)
def test_mutated_files_of_every_kind_are_read_or_refused(target: Target, tmp_path: Path) -> None:
    executions = 150 if target.name in ("gz", "zst") else 40  # few of these are read
    ended = Counter(execute(target, tmp_path, 0, number) for number in range(executions))
    assert {kind for kind, _ in ended} == {"read", "refused"}, ended  # neither all mangled nor all untouched


def test_the_fuzzer_counts_what_its_children_report() -> None:
    script = [sys.executable, str(ROOT / "scripts" / "fuzz_readers.py"), "--executions", "40", "--only", "parquet"]
    done = subprocess.run(script, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert re.search(r"^parquet +40 +[1-9]\d* +[1-9]\d* +0 ", done.stdout, flags=re.MULTILINE)


@st.composite
def replaced(draw: st.DrawFn, content: bytes) -> bytes:
    """The content with a piece of it replaced by other bytes."""
    start = draw(st.integers(0, len(content)))
    length = draw(st.sampled_from((0, 1, 2, 4, 8, 64, len(content))))
    return content[:start] + draw(st.binary(max_size=16)) + content[start + length :]


@st.composite
def other_json(draw: st.DrawFn, value: Any) -> Any:
    """The value with one thing in it, at any depth, another value, gone, or doubled under another key."""
    value = copy.deepcopy(value)
    if not isinstance(value, dict | list) or not value or draw(st.integers(0, 5)) == 0:
        return draw(VALUE)
    key = draw(st.sampled_from(list(value) if isinstance(value, dict) else range(len(value))))
    match draw(st.sampled_from(("into", "into", "into", "gone", "more"))):
        case "into":
            value[key] = draw(other_json(value[key]))
        case "gone":
            del value[key]
        case "more" if isinstance(value, dict):
            value[draw(TEXT)] = copy.deepcopy(value[key])
        case _ if isinstance(value, list):
            value.append(draw(VALUE))
    return value


@hostile
@given(data=st.data())
@pytest.mark.parametrize(("target", "name"), FILES, indirect=["target"])
def test_any_bytes_in_the_place_of_any_file_or_of_a_piece_of_it(
    target: Target, name: str, tmp_path: Path, data: st.DataObject
) -> None:
    content = data.draw(st.binary(max_size=200) | replaced(target.seeds()[name]))
    read_or_refused(target, tmp_path, name, content)


@hostile
@given(data=st.data())
@pytest.mark.parametrize(("target", "name"), JSON_FILES, indirect=["target"])
def test_any_value_in_the_place_of_any_value_of_a_json_file(
    target: Target, name: str, tmp_path: Path, data: st.DataObject
) -> None:
    value = data.draw(other_json(json.loads(target.seeds()[name])))
    read_or_refused(target, tmp_path, name, json.dumps(value).encode())


@hostile
@given(data=st.data())
@pytest.mark.parametrize(("target", "name"), LOGS, indirect=["target"])
def test_any_value_in_the_place_of_any_value_of_a_log(
    target: Target, name: str, tmp_path: Path, data: st.DataObject
) -> None:
    lines = [json.loads(line) for line in target.seeds()[name].splitlines()]
    changed = data.draw(other_json(lines))
    written = "".join(json.dumps(line) + "\n" for line in (changed if isinstance(changed, list) else [changed]))
    read_or_refused(target, tmp_path, name, written.encode())


@hostile
@given(texts=st.lists(TEXT, min_size=1, max_size=8), compression=st.sampled_from(["", ".gz", ".zst"]))
def test_stories_of_any_text_come_back_as_they_were_written(tmp_path: Path, texts: list[str], compression: str) -> None:
    path = tmp_path / f"s.jsonl{compression}"
    codec = {"": None, ".gz": "gzip", ".zst": "zstd"}[compression]
    with pa.CompressedOutputStream(str(path), codec) if codec else pa.OSFile(str(path), "wb") as file:
        for text in texts:
            file.write(json.dumps({"text": text}).encode() + b"\n")
    assert [text for block in read_blocks(path, ReadOptions(), 64) for text in block.parse().to_pylist()] == texts
    pq.write_table(pa.table({"text": texts}), tmp_path / "s.parquet")
    assert [
        t for block in read_blocks(tmp_path / "s.parquet", ReadOptions()) for t in block.parse().to_pylist()
    ] == texts


@hostile
@given(ids=st.lists(st.integers(0, 50256), max_size=20, unique=True), scale=st.integers(1, 1 << 40))
def test_counts_come_back_as_they_were_written(tmp_path: Path, ids: list[int], scale: int) -> None:
    columns = [np.array(values, np.int64) for values in (ids, [scale + i for i in ids], range(len(ids)))]
    write_counts(tmp_path / "c.parquet", TokenCounts(*columns))
    read = read_counts(tmp_path / "c.parquet")
    assert [array.tolist() for array in (read.gpt2_id, read.count, read.first_seen)] == [c.tolist() for c in columns]


@pytest.mark.parametrize(
    "columns",
    [
        {"gpt2_id": ["a"], "count": [1], "first_seen": [0]},
        {"gpt2_id": [1], "count": [1]},
        {"gpt2_id": [[1]], "count": [1], "first_seen": [0]},
    ],
)
def test_a_table_that_is_not_one_of_counts_is_refused(tmp_path: Path, columns: dict[str, Any]) -> None:
    pq.write_table(pa.table(columns), tmp_path / "c.parquet")
    with pytest.raises(InputError, match="not a table of counts"):
        read_counts(tmp_path / "c.parquet")


@pytest.mark.parametrize(
    ("part", "change"),
    [
        ("fixed", {"learning_rate": "1e-4"}),
        ("swept", {"betas": [{}]}),
        ("fixed", {"name": "y" * 3000, "steps": "z" * 3000}),
    ],
)
def test_a_sweeps_record_with_a_value_of_another_type_is_refused(tmp_path: Path, part: str, change: Any) -> None:
    record = json.loads(READERS["sweep"].seeds()["sweep.json"])
    record[part] |= change
    assert read_or_refused(READERS["sweep"], tmp_path, "sweep.json", json.dumps(record).encode()) == "refused"
