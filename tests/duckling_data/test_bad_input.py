"""Bad input gets one clear line and exit status 2, and leaves what was there untouched."""

from __future__ import annotations

import gzip
import json
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from duckling_data.corpus.demo import demo_stories
from duckling_data.corpus.hub import download
from tests.support.data import SMALL, Cli, snapshot
from tests.support.hub.case import point_at


def refused(cli: Cli, workspace: Path, *args: object, says: list[str], status: int = 2) -> None:
    """Run a command that must fail: its status, its one line, and the workspace as it was."""
    before = snapshot(workspace) if workspace.exists() else {}
    result = cli(*args, "-w", workspace, "-q")
    assert result.exit_code == status, result.stderr
    lines = result.stderr.strip().splitlines()
    assert 1 <= len(lines) <= 2, result.stderr
    for word in says:
        assert word in result.stderr, result.stderr
    assert "Traceback" not in result.stderr
    after = snapshot(workspace) if workspace.exists() else {}
    assert {name: digest for name, digest in after.items() if name in before} == before
    assert not [name for name in after if ".partial" in name]


@pytest.fixture
def workspace(made: Path) -> Path:
    """A workspace that is up to date."""
    return made


def test_a_missing_file(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    refused(cli, workspace, "pack", "--source", tmp_path / "none.jsonl", says=["none.jsonl", "no such file", "demo"])


@pytest.mark.parametrize("name", ["e.jsonl", "e.txt", "e.jsonl.gz", "e.txt.zst"])
def test_an_empty_file(cli: Cli, workspace: Path, tmp_path: Path, name: str) -> None:
    (tmp_path / name).touch()
    refused(cli, workspace, "pack", "--source", tmp_path / name, says=[name, "empty"])


def test_an_empty_parquet_file(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "e.parquet").touch()
    refused(cli, workspace, "pack", "--source", tmp_path / "e.parquet", says=["e.parquet", "cannot be read"])
    pq.write_table(pa.table({"text": pa.array([], pa.string())}), tmp_path / "z.parquet")
    refused(cli, workspace, "pack", "--source", tmp_path / "z.parquet", says=["z.parquet", "no story"])


def test_a_parquet_file_without_text(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"story": ["a"], "n": [1]}), tmp_path / "p.parquet")
    says = ["p.parquet", "'text'", "'story', 'n'", "--text-field"]
    refused(cli, workspace, "pack", "--source", tmp_path / "p.parquet", says=says)


def test_a_text_column_of_numbers(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    pq.write_table(pa.table({"text": [1, 2]}), tmp_path / "p.parquet")
    refused(cli, workspace, "pack", "--source", tmp_path / "p.parquet", says=["p.parquet", "int64", "string"])


@pytest.mark.parametrize("kind", ["parquet", "jsonl"])
def test_nulls_are_counted_and_treated_as_empty(cli: Cli, tmp_path: Path, kind: str) -> None:
    texts = [*demo_stories(0, 40).to_pylist(), None, None, ""]
    path = tmp_path / f"n.{kind}"
    if kind == "parquet":
        pq.write_table(pa.table({"text": texts}), path)
    else:
        path.write_text("".join(json.dumps({"text": text}) + "\n" for text in texts))
    result = cli("pack", "-w", tmp_path / "w", "--source", path, *SMALL)
    assert result.exit_code == 0, result.stderr
    stages = json.loads((tmp_path / "w" / "manifest.json").read_text())["stages"]
    assert stages["count"]["figures"]["null_stories"] == 2
    assert stages["count"]["figures"]["empty_stories_counted"] == 3
    assert stages["pack"]["figures"]["splits"]["train"]["null_stories"] == 2
    assert stages["pack"]["figures"]["splits"]["train"]["stories"] == 43


@pytest.mark.parametrize("suffix", ["jsonl", "txt"])
def test_invalid_utf8_names_file_and_byte_offset(cli: Cli, workspace: Path, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"u.{suffix}"
    good = b'{"text": "fine"}\n' if suffix == "jsonl" else b"fine<|endoftext|>"
    bad = b'{"text": "ab\xffcd"}\n' if suffix == "jsonl" else b"ab\xffcd"
    path.write_bytes(good * 3 + bad)
    offset = len(good) * 3 + bad.index(b"\xff")
    refused(cli, workspace, "pack", "--source", path, says=[path.name, f"byte offset {offset}", "0xff"])


def test_invalid_utf8_in_parquet_names_file_row_and_byte_offset(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    raw = pa.array([b"fine"] * 17 + [b"ab\xc3("], pa.binary())
    texts = pa.StringArray.from_buffers(len(raw), raw.buffers()[1], raw.buffers()[2])
    pq.write_table(pa.table({"text": texts}), tmp_path / "u.parquet", row_group_size=5)
    refused(cli, workspace, "pack", "--source", tmp_path / "u.parquet", says=["u.parquet", "row 17", "byte offset 2"])


@pytest.mark.parametrize(
    ("line", "reason"),
    [
        ('{"text": "a"', "broken JSON"),
        ("nonsense", "broken JSON"),
        ('{"text": "\\ud800"}', "surrogate"),
        ("[1, 2]", "expected an object with 'text'"),
        ('{"story": "a"}', "--text-field"),
        ('{"text": 7}', "expected text"),
        ('{"text": "a", "text": "b"}', "duplicate key 'text'"),
        ('{"te\\u0078t": "a \\": b", "text" : "b"}', "duplicate key 'text'"),
        ('{"text": "a: \\": b", "n": [{"k": 1, "k"\t:2}]}', "duplicate key 'k'"),
        ('{"text": "a", "n": ' + "[" * 900 + '{"k": 1, "k": 2}' + "]" * 900 + "}", "duplicate key"),
    ],
)
def test_broken_json_names_file_and_line(cli: Cli, workspace: Path, tmp_path: Path, line: str, reason: str) -> None:
    path = tmp_path / "b.jsonl"
    path.write_text('{"text": "fine"}\n' * 4 + "\n" + line + "\n" + '{"text": "fine"}\n')
    refused(cli, workspace, "pack", "--source", path, says=["b.jsonl", "line 6", reason])


def test_a_truncated_gzip(cli: Cli, workspace: Path, stories: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.jsonl.gz"
    path.write_bytes(gzip.compress(stories.read_bytes())[:-9])
    refused(cli, workspace, "pack", "--source", path, says=["t.jsonl.gz", "Truncated"])


def test_a_truncated_parquet(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    path = tmp_path / "t.parquet"
    pq.write_table(pa.table({"text": ["a", "b"]}), path)
    path.write_bytes(path.read_bytes()[:-20])
    refused(cli, workspace, "pack", "--source", path, says=["t.parquet", "cannot be read"])


def test_a_file_of_another_kind_and_a_folder_without_stories(cli: Cli, workspace: Path, tmp_path: Path) -> None:
    (tmp_path / "a.pdf").write_text("text\na\n")
    refused(cli, workspace, "pack", "--source", tmp_path / "a.pdf", says=["a.pdf", ".parquet"])
    (tmp_path / "folder").mkdir()
    refused(cli, workspace, "pack", "--source", tmp_path / "folder", says=["folder", "no stories"])


def test_fewer_distinct_tokens_than_live(cli: Cli, workspace: Path) -> None:
    distinct = json.loads((workspace / "manifest.json").read_text())["stages"]["count"]["figures"]["distinct"]
    refused(cli, workspace, "build-vocab", "--live", 6144, says=[f"{distinct:,} distinct tokens", "--live 6,144"])


@pytest.mark.parametrize(
    ("option", "value", "says"),
    [
        ("--ctx", "0", ["--ctx 0", "from 1"]),
        ("--ctx", "-5", ["--ctx -5"]),
        ("--ctx", "999999", ["fill no row", "--ctx 999999"]),
        ("--live", "-1", ["--live -1"]),
        ("--live", "0", ["--live 0"]),
        ("--live", "2000000", ["--live 2000000", "1,048,576"]),
        ("--dead", "-1", ["--dead -1"]),
        ("--dead", "1048500", ["--dead 1048500", "1,048,576"]),
        ("--group", "0", ["--group 0"]),
        ("--sample", "0", ["--sample 0"]),
        ("--sample", "some", ["'some'", "neither a number nor 'all'"]),
        ("--seed", "-1", ["--seed -1"]),
        ("--separator", "eos", ["--separator eos", "build-vocab --eos"]),
    ],
)
def test_settings_out_of_range(cli: Cli, workspace: Path, option: str, value: str, says: list[str]) -> None:
    before = snapshot(workspace)
    result = cli("pack", option, value, "-w", workspace, "-q")
    assert result.exit_code == 2, result.stderr
    assert all(word in result.stderr for word in says), result.stderr
    assert snapshot(workspace) == before


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"gpt2_to_compact": "repeat"}, "4"),
        ({"compact_to_gpt2": "range"}, "60000"),
        ({"live_tokens": 6000}, "6020"),
        ({"unk_id": 99999}, "99999"),
    ],
)
def test_a_mapping_made_by_hand(
    cli: Cli, workspace: Path, tmp_path: Path, change: dict[str, object], says: str
) -> None:
    mapping = json.loads((workspace / "token_mapping.json").read_text())
    for key, value in change.items():
        if value == "repeat":
            last = list(mapping[key])[-1]
            mapping[key][last] = 4
        elif value == "range":
            mapping[key]["5"] = 60000
        else:
            mapping[key] = value
    own = tmp_path / "own.json"
    own.write_text(json.dumps(mapping))
    refused(cli, workspace, "pack", "--mapping", own, says=["own.json", says])
    mapping_before = (workspace / "token_mapping.json").read_bytes()
    (workspace / "token_mapping.json").write_text(json.dumps(mapping))
    refused(cli, workspace, "pack", says=["token_mapping.json", says])
    (workspace / "token_mapping.json").write_bytes(mapping_before)


def test_a_mapping_changed_in_place_is_refused_not_overwritten(cli: Cli, workspace: Path) -> None:
    path = workspace / "token_mapping.json"
    path.write_bytes(path.read_bytes() + b"\n")
    refused(cli, workspace, "pack", says=["token_mapping.json", "changed since", "--mapping"])


def test_a_workspace_of_another_format_version(cli: Cli, workspace: Path) -> None:
    path = workspace / "manifest.json"
    path.write_text(path.read_text().replace('"format": 1', '"format": 99'))
    refused(cli, workspace, "pack", says=["manifest.json", "99"])


@pytest.mark.parametrize("content", ["", "{", "[]", '{"format": 1}', '{"format": 1, "corpus": null, "stages": 3}'])
def test_a_broken_manifest(cli: Cli, workspace: Path, content: str) -> None:
    (workspace / "manifest.json").write_text(content)
    refused(cli, workspace, "pack", says=["manifest.json"])


def test_a_dataset_from_elsewhere_is_not_overwritten(cli: Cli, stories: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    (workspace / "tokenized_dataset").mkdir(parents=True)
    (workspace / "tokenized_dataset" / "precious").write_text("data")
    refused(cli, workspace, "pack", "--source", stories, *SMALL, says=["tokenized_dataset", "not made by"])


def test_an_unwritable_directory(tmp_path: Path) -> None:
    closed = tmp_path / "closed"
    closed.mkdir(mode=0o555)
    # As an ordinary user: root may write everywhere. Imported first, for that user may not read this Python's files.
    script = (
        "import difflib, os, duckling_data.pipeline, duckling_data.cli\n"
        "if os.getuid() == 0: os.setuid(65534)\n"
        "duckling_data.cli.main()"
    )
    command = [
        sys.executable,
        "-c",
        script,
        "count",
        "-w",
        str(closed / "w"),
        "--source",
        "demo:100",
        "--sample",
        "all",
    ]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 2, done.stderr
    assert "closed" in done.stderr
    assert "Permission denied" in done.stderr
    assert "Traceback" not in done.stderr


def test_no_network_names_the_ways_out(cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    point_at("http://127.0.0.1:9", monkeypatch)
    monkeypatch.setattr(download, "WAITS", (0.0, 0.0))
    refused(cli, tmp_path / "w", "count", says=["--source demo", "--offline", "127.0.0.1"], status=3)


def test_a_dry_run_says_what_would_be_downloaded_and_makes_nothing(cli: Cli, tmp_path: Path) -> None:
    result = cli("pack", "--dry-run", "-w", tmp_path / "w")
    assert result.exit_code == 0, result.stderr
    assert "would fetch 5 files, 1,001 MB" in result.stderr
    assert "would make token_counts.parquet" in result.stderr
    assert not (tmp_path / "w").exists()


def test_offline_without_files(cli: Cli, tmp_path: Path) -> None:
    refused(cli, tmp_path / "w", "count", "--offline", says=["--offline", "--source demo"])


def test_sources_that_cannot_be_joined(cli: Cli, stories: Path, tmp_path: Path) -> None:
    says = ["--source demo stands alone"]
    refused(cli, tmp_path / "w", "count", "--source", "demo", "--source", stories, says=says)
    refused(cli, tmp_path / "w", "count", "--source", "demo:x", says=["demo:x", "demo:STORIES"])
    refused(cli, tmp_path / "w", "count", "--source", "demo:0", says=["demo:0"])


def test_stories_without_a_single_token(cli: Cli, tmp_path: Path) -> None:
    (tmp_path / "e.jsonl").write_text('{"text": ""}\n{"text": null}\n')
    refused(cli, tmp_path / "w", "count", "--source", tmp_path / "e.jsonl", says=["empty", "nothing to count"])


def test_debug_shows_the_traceback(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "duckling_data", "count", "-w", str(tmp_path), "--source", "demo:x", "--debug"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert "Traceback" in done.stderr
    assert done.returncode != 0
