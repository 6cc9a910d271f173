"""The download: the pinned files byte for byte, each once, out of the hub, the client's cache or their place.

The client is the real one, and so is the HTTP between it and a server of our own.
"""

from __future__ import annotations

import hashlib
import os
import pty
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from duckling_data.base.errors import CheckFailed, InputError
from tests.support.data import snapshot
from tests.support.hub.case import (
    BODIES,
    FETCH,
    NAMES,
    REPO,
    REVISION,
    SIZES,
    environment,
    files,
    get,
    refusal,
)
from tests.support.hub.server import CUT, HubServer


@pytest.mark.parametrize("large", [True, False])
def test_files_arrive_byte_for_byte_in_their_order(server: HubServer, tmp_path: Path, large: bool) -> None:
    server.large = large
    paths = get(tmp_path)
    assert paths == {"train": [tmp_path / NAMES[0], tmp_path / NAMES[1]], "validation": [tmp_path / NAMES[2]]}
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES
    assert files(tmp_path).keys() == BODIES.keys()


def test_the_pinned_revision_is_asked_for(server: HubServer, tmp_path: Path) -> None:
    get(tmp_path)
    asked = list(dict.fromkeys(server.asked("HEAD")))
    assert asked == [f"/datasets/{REPO}/resolve/{REVISION}/{name}" for name in NAMES]


def test_a_second_call_asks_for_nothing(server: HubServer, tmp_path: Path) -> None:
    first = get(tmp_path)
    before = snapshot(tmp_path)
    server.requests.clear()
    assert get(tmp_path) == first
    assert get(tmp_path, offline=True) == first
    assert server.requests == []
    assert snapshot(tmp_path) == before


def test_only_what_is_missing_is_downloaded(server: HubServer, tmp_path: Path) -> None:
    get(tmp_path)
    (tmp_path / NAMES[1]).unlink()
    server.requests.clear()
    get(tmp_path)
    assert (tmp_path / NAMES[1]).read_bytes() == BODIES[NAMES[1]]
    assert all(path.endswith(NAMES[1]) for path in server.asked("HEAD"))
    assert len(server.asked("GET")) == 1


def test_offline_a_missing_file_is_refused_without_a_request(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    get(tmp_path)
    (tmp_path / NAMES[2]).unlink()
    server.requests.clear()
    message = refusal(InputError, tmp_path, capfd, offline=True)
    assert NAMES[2] in message
    assert "--source demo" in message
    assert server.requests == []


def test_the_clients_own_offline_mode_is_respected(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    message = refusal(InputError, tmp_path, capfd)
    assert "HF_HUB_OFFLINE" in message
    assert NAMES[0] in message
    assert server.requests == []


def test_one_line_a_file_says_what_is_downloaded(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    get(tmp_path, quiet=False)
    said = capfd.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert len(lines) == len(NAMES)
    assert all(line.startswith(f"download     {REPO} {name} (0.0 MB)") for line, name in zip(lines, NAMES, strict=True))
    get(tmp_path, quiet=False)
    assert capfd.readouterr() == ("", "")


def test_quiet_says_nothing_even_on_a_terminal(server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", CUT, 1)  # of which the client would warn
    ours, theirs = pty.openpty()
    command = [sys.executable, "-c", FETCH, str(tmp_path), "quiet"]
    done = subprocess.run(
        command, stdout=theirs, stderr=theirs, env=environment(server, tmp_path / "home"), check=False
    )
    os.write(theirs, b"end")
    assert os.read(ours, 10_000) == b"end"
    assert done.returncode == 0
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES
    os.close(ours)
    os.close(theirs)


def test_a_file_cut_short_at_its_path_is_refused_and_kept_aside(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    get(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(BODIES[NAMES[1]][:1000])
    before = files(tmp_path)
    said = refusal(CheckFailed, tmp_path, capfd, offline=True)
    assert all(word in said for word in (NAMES[1], "1,000 bytes", f"{SIZES[1][1]:,}", "Move it away")), said
    assert files(tmp_path) == before  # offline nothing could take its place
    said = refusal(CheckFailed, tmp_path, capfd, left={NAMES[1] + ".refused"}, gone={NAMES[1]})
    assert all(word in said for word in (NAMES[1], "1,000 bytes", f"{SIZES[1][1]:,}", "kept as", ".refused")), said
    assert (tmp_path / f"{NAMES[1]}.refused").read_bytes() == BODIES[NAMES[1]][:1000]
    get(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES


def test_what_was_kept_aside_is_never_written_over(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    for number, name in ((1, ".refused"), (2, ".refused-2"), (3, ".refused-3")):
        get(tmp_path)
        (tmp_path / NAMES[0]).write_bytes(bytes(number))
        refusal(CheckFailed, tmp_path, capfd, left={NAMES[0] + name}, gone={NAMES[0]})
    assert [(tmp_path / f"{NAMES[0]}.refused{end}").stat().st_size for end in ("", "-2", "-3")] == [1, 2, 3]


def in_cache(home: Path, name: str, body: bytes, sha256: str) -> None:
    """Put a file into huggingface_hub's cache, as the client itself does."""
    repo = home / f"datasets--{REPO.replace('/', '--')}"
    pointer, blob = repo / "snapshots" / REVISION / name, repo / "blobs" / sha256
    pointer.parent.mkdir(parents=True, exist_ok=True)
    blob.parent.mkdir(parents=True, exist_ok=True)
    blob.write_bytes(body)
    pointer.symlink_to(blob)


def test_a_file_in_the_clients_cache_is_copied_and_not_downloaded(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    for name in NAMES[:2]:
        in_cache(tmp_path / "cache", name, BODIES[name], hashlib.sha256(BODIES[name]).hexdigest())
    get(tmp_path / "w")
    assert {name: (tmp_path / "w" / name).read_bytes() for name in NAMES} == BODIES
    assert all(path.endswith(NAMES[2]) for path in server.asked("HEAD"))
    assert len(server.asked("HEAD")) == 1
    assert not list((tmp_path / "w").rglob("*.incomplete"))


def test_a_damaged_file_in_the_clients_cache_is_not_used(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "cache"))
    body = BODIES[NAMES[0]]
    in_cache(tmp_path / "cache", NAMES[0], body[:-1] + b"?", hashlib.sha256(body).hexdigest())
    get(tmp_path / "w", quiet=False)
    assert (tmp_path / "w" / NAMES[0]).read_bytes() == body
    assert "damaged, not used" in capfd.readouterr().err
