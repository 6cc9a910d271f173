"""A tokenizer.json of somebody else's is read, or refused in one line that names what is wrong; so is a hub's."""

from __future__ import annotations

import json
import os
import resource
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from duckling_data.base.errors import InputError
from duckling_data.tokens.base import BASE_FILE
from duckling_data.tokens.encoders import load_encoder
from duckling_data.tokens.tokenizer_file import LIMIT, read_base
from tests.support.bases import added, changed, llama_3_like, small
from tests.support.data import Cli, Result, read_json, snapshot, stages_that, verified
from tests.support.hub.server import CLOSE, MOVED, NO_HUB, HubServer

LEVEL = {"type": "ByteLevel", "add_prefix_space": False, "trim_offsets": True, "use_regex": True}
SPLIT = {"type": "Split", "pattern": {"Regex": "a"}, "behavior": "Removed", "invert": False}


def with_vocabulary(**tokens: object) -> bytes:
    return changed(small(), model__vocab=json.loads(small())["model"]["vocab"] | tokens)


REFUSED: dict[str, tuple[bytes, str]] = {
    "no JSON": (b"{", "unexpected end of data"),
    "a duplicate key": (small()[:-1] + b', "model": {}}', "duplicate key 'model'"),
    "no object": (b"[]", "has no model"),
    "word pieces": (changed(small(), model__type="WordPiece"), "its model is 'WordPiece'"),
    "no pre-tokenizer": (changed(small(), pre_tokenizer=None), "has no pre_tokenizer"),
    "SentencePiece's": (changed(small(), pre_tokenizer={"type": "Metaspace"}), "its pre_tokenizer has 'Metaspace'"),
    "no bytes": (changed(small(), pre_tokenizer=SPLIT | {"behavior": "Isolated"}), "does not end with ByteLevel"),
    "dropped text": (
        changed(small(), pre_tokenizer={"type": "Sequence", "pretokenizers": [SPLIT, LEVEL]}), "which may drop text"
    ),
    "replaced text": (changed(small(), normalizer={"type": "Replace"}), "its normalizer is 'Replace'"),
    "an unknown part": (changed(small(), surprise=1), "unknown field `surprise`"),
    "an unknown flag": (changed(small(), model__surprise=1), "unknown field `surprise`"),
    "chance": (changed(small(), model__dropout=0.1), "its model has dropout 0.1"),
    "word ends": (changed(small(), model__end_of_word_suffix="</w>"), "end_of_word_suffix '</w>'"),
    "a missing byte": (
        changed(small(), model__vocab={text: token for text, token in json.loads(small())["model"]["vocab"].items()
                                       if text != "!"}, model__merges=[]),
        "has no token for 1 of the 256 bytes, the first 0x21",
    ),
    "an id too large": (with_vocabulary(x0=1 << 31), "Expected `int` <= 1048575"),
    "an id twice": (with_vocabulary(abcabc=300), "two tokens with the same id"),
    "another alphabet": (with_vocabulary(**{"日": 5000}), "the token '日' is not written in the byte alphabet"),
    "an empty token": (with_vocabulary(**{"": 5000}), "the token '' is not written in the byte alphabet"),
    "a merge of nothing": (changed(small(), model__merges=["a "]), "is not of two tokens that make a third"),
    "a merge of unknowns": (changed(small(), model__merges=[["a", "qqq"]]), "is not of two tokens that make a third"),
    "an added token twice": (changed(small(), added_tokens=[added(0, "<pad>")] * 2), "has an added token twice"),
    "an added byte": (changed(small(), added_tokens=[added(5000, "é")]), "could be taken for other bytes"),
    "a long name": (changed(small(), added_tokens=[added(5000, "<" * 201)]), "length <= 200"),
}  # fmt: skip


def refusal(path: Path, content: bytes, read: Callable[[Path], object]) -> str:
    """The one line with which a tokenizer's file is refused."""
    path.write_bytes(content)
    with pytest.raises(InputError) as refused:
        read(path)
    assert "\n" not in str(refused.value)
    return str(refused.value)


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_no_byte_level_bpe_is_refused_in_one_line(tmp_path: Path, name: str) -> None:
    content, says = REFUSED[name]
    said = refusal(tmp_path / "t.json", content, read_base)
    assert said.startswith(f"{tmp_path / 't.json'}: ")
    assert says in said


USELESS: dict[str, tuple[bytes, str]] = {
    "a broken pattern": (
        changed(small(), pre_tokenizer={"type": "Sequence", "pretokenizers": [
            {**SPLIT, "pattern": {"Regex": "(["}, "behavior": "Isolated"}, {**LEVEL, "use_regex": False}]}),
        "cannot be read",
    ),
    "other ids than the library's": (changed(small(), added_tokens=[added(5000, "<x>")]), "ids than the file says"),
}  # fmt: skip


@pytest.mark.parametrize("name", USELESS)
def test_what_the_library_does_not_take_or_reads_otherwise_is_refused(tmp_path: Path, name: str) -> None:
    content, says = USELESS[name]
    assert says in refusal(tmp_path / "t.json", content, lambda path: load_encoder(None, read_base(path)))


@pytest.mark.parametrize("unit", [b"[],", b'{"":0},', b'"",'])
def test_the_largest_file_takes_bounded_memory(tmp_path: Path, unit: bytes) -> None:
    (tmp_path / "t.json").write_bytes(b"[" + unit * (LIMIT // len(unit) - 2) + b"0]")
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    with pytest.raises(InputError):
        read_base(tmp_path / "t.json")
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 900 << 10  # KiB


def test_no_device_and_nothing_larger_is_read(tmp_path: Path) -> None:
    (tmp_path / "zero").symlink_to("/dev/zero")
    (tmp_path / "large").touch()
    os.truncate(tmp_path / "large", LIMIT + 1)
    for name, says in (("zero", "expected a regular file"), ("large", "expected at most"), ("none", "cannot be read")):
        with pytest.raises(InputError, match=says):
            read_base(tmp_path / name)


REPO, REVISION = "someone/Tokens", "89abcdef0123456789abcdef0123456789abcdef"
PINNED = f"{REPO}@{REVISION}"


@pytest.fixture
def hub(server: HubServer) -> HubServer:
    server.files = {f"{REPO}/resolve/{REVISION}/tokenizer.json": llama_3_like()}
    return server


def count(cli: Cli, workspace: Path, *arguments: object) -> Result:
    return cli("count", "-w", workspace, "--source", "demo:30", *arguments)


@pytest.mark.parametrize("large", [True, False])
def test_a_hubs_tokenizer_is_downloaded_once_and_remembered(
    cli: Cli, hub: HubServer, tmp_path: Path, large: bool
) -> None:
    hub.large = large
    assert stages_that("made", count(cli, tmp_path / "w", "--tokenizer", PINNED)) == ["tokenizer", "count"]
    assert (tmp_path / "w" / BASE_FILE).read_bytes() == llama_3_like()
    assert read_json(tmp_path / "w" / "manifest.json")["stages"]["tokenizer"]["settings"] == {"tokenizer": PINNED}
    assert not (tmp_path / "w" / "corpus" / "tokenizer.json").exists()
    before, _ = snapshot(tmp_path / "w"), hub.requests.clear()
    for again in (("--tokenizer", PINNED, "--offline"), ()):
        assert stages_that("up to date", count(cli, tmp_path / "w", *again)) == ["tokenizer", "count"]
    assert (hub.requests, snapshot(tmp_path / "w")) == ([], before)
    (tmp_path / "t.json").write_bytes(llama_3_like())
    count(cli, tmp_path / "local", "--tokenizer", tmp_path / "t.json")
    counts = [(tmp_path / name / "token_counts.parquet").read_bytes() for name in ("w", "local")]
    assert counts[0] == counts[1]
    verified(tmp_path / "w")


def test_a_dry_run_downloads_nothing(cli: Cli, hub: HubServer, tmp_path: Path) -> None:
    result = count(cli, tmp_path / "w", "-n", "--tokenizer", PINNED)
    assert f"would fetch tokenizer.json of {PINNED}" in result.stderr
    assert stages_that("would make", result) == ["tokenizer", "count"]
    assert (hub.requests, (tmp_path / "w").exists()) == ([], False)


@pytest.mark.parametrize("given", [REPO, f"{REPO}@main", f"{REPO}@89abcdef", f"{REPO}@{REVISION}0", "gpt3@main"])
def test_a_hubs_tokenizer_needs_its_revision(cli: Cli, hub: HubServer, tmp_path: Path, given: str) -> None:
    result = count(cli, tmp_path / "w", "-q", "--tokenizer", given)
    assert (result.exit_code, result.stderr.count("\n"), hub.requests) == (2, 1, [])
    assert f"write {given.partition('@')[0]}@REVISION, with the 40 hex digits" in result.stderr


def test_a_path_that_is_not_there_is_refused(cli: Cli, tmp_path: Path) -> None:
    for given in (tmp_path / "none.json", "x" * 5000, ""):
        result = count(cli, tmp_path / "w", "-q", "--tokenizer", given)
        assert (result.exit_code, result.stderr.count("\n")) == (2, 1)


@pytest.mark.parametrize(
    ("fault", "status", "says"),
    [
        (401, 3, "the hub answered 401"), (404, 3, "the hub answered 404"), (CLOSE, 3, "could not be downloaded"),
        (NO_HUB, 3, "something else than the hub"), (MOVED, 3, "has revision ffff"),
    ],
)  # fmt: skip
def test_a_hub_that_fails_is_told_in_one_line(
    cli: Cli, hub: HubServer, tmp_path: Path, fault: Any, status: int, says: str
) -> None:
    hub.fail("HEAD", fault)
    result = count(cli, tmp_path / "w", "-q", "--tokenizer", PINNED)
    assert (result.exit_code, result.stderr.count("\n")) == (status, 1), result.stderr
    assert says in result.stderr
    assert "--tokenizer PATH" in result.stderr
    assert "--source" not in result.stderr
    assert not (tmp_path / "w" / "manifest.json").exists()


def test_offline_and_a_larger_file_are_refused(
    cli: Cli, hub: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    offline = count(cli, tmp_path / "w", "-q", "--offline", "--tokenizer", PINNED)
    assert (offline.exit_code, hub.requests) == (2, [])
    assert "--offline forbids the download" in offline.stderr
    monkeypatch.setattr("duckling_data.stages.tokenizer.LIMIT", 1000)
    larger = count(cli, tmp_path / "w", "-q", "--tokenizer", PINNED)
    assert (larger.exit_code, larger.stderr.count("\n")) == (2, 1)
    assert "expected at most 1,000 bytes" in larger.stderr
    assert not hub.asked("GET")


def test_a_hubs_file_that_is_no_byte_level_bpe_is_refused(cli: Cli, hub: HubServer, tmp_path: Path) -> None:
    hub.files = dict.fromkeys(hub.files, b'{"model": {"type": "Unigram"}}')
    result = count(cli, tmp_path / "w", "-q", "--tokenizer", PINNED)
    assert (result.exit_code, result.stderr.count("\n")) == (2, 1)
    assert f"{REPO}: tokenizer.json: its model is 'Unigram'" in result.stderr
