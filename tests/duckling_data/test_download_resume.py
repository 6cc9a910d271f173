"""What an interrupted download leaves is resumed, compared in the end, and removed when nobody needs it."""

from __future__ import annotations

import hashlib
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, OutsideError
from duckling_data.base.progress import Reporter
from duckling_data.corpus.hub import download, fetch
from tests.support import HANG
from tests.support.hub.case import (
    BODIES,
    DATASET,
    FETCH,
    NAMES,
    SIZES,
    environment,
    files,
    get,
    incomplete,
    refusal,
    served,
)
from tests.support.hub.server import CLOSE, CUT, SILENT_HASH, STALL, WRONG, HubServer

DIGESTS = {name: hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}


def whole(folder: Path) -> bool:
    return {name: (folder / name).read_bytes() for name in NAMES} == BODIES


def half_done(server: HubServer, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Leave one half of the first file in the folder, and return its path."""
    with monkeypatch.context() as once:
        once.setattr(download, "WAITS", (0.0,))
        server.fail("GET", CUT, 1)
        server.fail("GET", CLOSE, 1)
        with pytest.raises(OutsideError):
            get(folder)
    server.requests.clear()
    (left,) = (folder / ".cache").rglob("*.incomplete")
    assert left.stat().st_size == SIZES[0][1] // 2
    return left


def test_a_killed_download_counts_for_nothing_and_is_resumed(server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", STALL, 1)
    command = [sys.executable, "-c", FETCH, str(tmp_path), "quiet"]
    program = subprocess.Popen(command, env=environment(server, tmp_path / "home"))
    try:
        assert server.stalled.wait(HANG)
        given_up = time.monotonic() + HANG
        while list(incomplete(tmp_path).values()) != [SIZES[0][1] // 2] and time.monotonic() < given_up:
            time.sleep(0.01)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    assert not [name for name in files(tmp_path) if name in BODIES]
    server.requests.clear()
    get(tmp_path)
    assert whole(tmp_path)
    assert [request.start for request in server.requests if request.method == "GET"] == [SIZES[0][1] // 2, 0, 0]
    assert incomplete(tmp_path) == {}


def test_a_later_command_resumes_where_the_first_was_cut_off(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    half_done(server, tmp_path, monkeypatch)
    get(tmp_path, quiet=False)
    assert whole(tmp_path)
    starts = [request.start for request in server.requests if request.method == "GET"]
    assert starts == [SIZES[0][1] // 2, 0, 0]
    assert "resumed at" in capfd.readouterr().err
    assert incomplete(tmp_path) == {}


def test_what_was_left_and_is_damaged_is_not_used_and_comes_anew(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    left = half_done(server, tmp_path, monkeypatch)
    left.write_bytes(bytes(left.stat().st_size))  # as a crash of the machine may leave it
    capfd.readouterr()
    get(tmp_path, quiet=False)
    assert whole(tmp_path)
    assert "damaged" in capfd.readouterr().err
    starts = [request.start for request in server.requests if request.method == "GET"]
    assert starts == [SIZES[0][1] // 2, 0, 0, 0]


def test_what_was_left_and_is_too_long_comes_anew(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    left = half_done(server, tmp_path, monkeypatch)
    left.write_bytes(bytes(SIZES[0][1] + 1))
    get(tmp_path)
    assert whole(tmp_path)


def test_what_was_left_of_other_content_is_never_resumed(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    half_done(server, tmp_path, monkeypatch)
    other = BODIES[NAMES[0]][:-1] + b"?"
    server.files = served(bodies=BODIES | {NAMES[0]: other})
    capfd.readouterr()
    get(tmp_path, quiet=False)
    assert (tmp_path / NAMES[0]).read_bytes() == other
    assert next(request.start for request in server.requests if request.method == "GET") == 0
    assert "removed 1 incomplete file of interrupted downloads" in capfd.readouterr().err
    assert incomplete(tmp_path) == {}


def test_what_the_client_itself_once_left_is_removed_and_said(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    left = tmp_path / ".cache/huggingface/download/data/xyz.0123.4567.incomplete"
    left.parent.mkdir(parents=True)
    left.write_bytes(bytes(2_000_000))
    get(tmp_path, quiet=False)
    assert "removed 1 incomplete file of interrupted downloads (2.0 MB)" in capfd.readouterr().err
    assert not left.exists()


def test_the_hubs_hash_is_told_before_the_file_is_there(server: HubServer, tmp_path: Path) -> None:
    told: dict[str, str] = {}

    def learn(name: str, sha256: str) -> None:
        assert name in told or not (tmp_path / name).exists()
        told[name] = sha256

    fetch(DATASET, tmp_path, offline=False, reporter=Reporter(quiet=True), known={}, learn=learn)
    assert told == DIGESTS


def test_a_hub_that_gives_another_hash_for_a_file_is_refused(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    known = DIGESTS | {NAMES[0]: "0" * 64}
    message = refusal(OutsideError, tmp_path, capfd, known=known)
    assert all(word in message for word in (NAMES[0], "0" * 64, DIGESTS[NAMES[0]], "first downloaded")), message
    assert server.asked("GET") == []


def test_the_hash_that_is_known_counts_where_the_hub_says_none(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("HEAD", SILENT_HASH)
    server.fail("GET", WRONG)
    message = refusal(OutsideError, tmp_path, capfd, known=DIGESTS, left={NAMES[0] + ".refused"})
    assert DIGESTS[NAMES[0]] in message


def test_a_refused_file_is_kept_aside_whatever_is_there_already(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("GET", WRONG, 2)
    refusal(OutsideError, tmp_path, capfd, left={f"{NAMES[0]}.refused"})
    refusal(OutsideError, tmp_path, capfd, left={f"{NAMES[0]}.refused-2"})
    get(tmp_path)
    (tmp_path / NAMES[0]).write_bytes(b"short")
    assert ".refused-3" in refusal(CheckFailed, tmp_path, capfd, left={f"{NAMES[0]}.refused-3"}, gone={NAMES[0]})
