"""The download: the pinned files byte for byte, each once, and a clear word where the hub fails.

The client is the real one, and so is the HTTP between it and a server of our own. Our waits between tries are cut to
nothing in this process; what is tried again is not touched.
"""

from __future__ import annotations

import os
import pty
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest

from duckling_data import hub
from duckling_data.errors import CheckFailed, DucklingError, InputError, OutsideError
from duckling_data.hub import HubDataset
from tests.duckling_data.conftest import snapshot
from tests.duckling_data.hub_case import (
    BODIES,
    DATASET,
    FETCH,
    NAMES,
    REPO,
    REVISION,
    SIZES,
    TRIES,
    WAYS_OUT,
    environment,
    files,
    get,
    point_at,
    served,
)
from tests.duckling_data.hub_server import CLOSE, CUT, SHORT, SILENT_SIZE, STALL, HubServer


def refusal(kind: type[DucklingError], folder: Path, capfd: pytest.CaptureFixture[str], **options: Any) -> str:
    """Return the one line that `fetch` fails with; it prints nothing of its own and leaves nothing behind."""
    before = files(folder)
    capfd.readouterr()
    with pytest.raises(DucklingError) as caught:
        get(folder, **options)
    assert type(caught.value) is kind
    assert capfd.readouterr() == ("", "")
    assert files(folder) == before
    assert not list(folder.rglob("*.incomplete"))
    assert "\n" not in str(caught.value)
    return str(caught.value)


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


@pytest.mark.parametrize(
    ("method", "fault", "says", "tries"),
    [
        ("HEAD", 404, "the hub answered 404", 1),
        ("HEAD", 401, "the hub answered 401", 1),
        ("HEAD", 403, "the hub answered 403", 1),
        ("HEAD", 500, "the hub answered 500", TRIES),
        ("HEAD", 503, "the hub answered 503", TRIES),
        ("HEAD", CLOSE, "disconnected", TRIES),
        ("GET", 404, "the hub answered 404", 1),
        ("GET", 500, "the hub answered 500", TRIES),
        ("GET", SHORT, f"size {SIZES[0][1]}", TRIES),
    ],
)
def test_a_failing_hub_is_one_clear_line(
    server: HubServer,
    tmp_path: Path,
    capfd: pytest.CaptureFixture[str],
    method: str,
    fault: int | str,
    says: str,
    tries: int,
) -> None:
    server.fail(method, fault)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (REPO, NAMES[0], server.endpoint, says, *WAYS_OUT)), message
    assert len(server.asked(method)) == tries


def test_a_revision_that_is_not_there(server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = HubDataset(REPO, "f" * 40, DATASET.splits)
    assert "answered 404" in refusal(OutsideError, tmp_path, capfd, dataset=other)


def test_a_refused_connection_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with HubServer({}) as gone:
        pass
    point_at(gone.endpoint, monkeypatch)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], gone.endpoint, "refused", *WAYS_OUT)), message


def test_what_passes_by_itself_is_tried_again(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("HEAD", 503, 1)
    server.fail("GET", SHORT, 1)
    get(tmp_path, quiet=False)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES
    said = capfd.readouterr().err.splitlines()
    assert ["trying again" in line for line in said] == [False, True, True, False, False]


def test_a_body_cut_off_on_the_way_is_carried_on(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "DOWNLOAD_CHUNK_SIZE", 1000)  # what the client keeps of a cut body
    server.fail("GET", CUT, 1)
    get(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES
    starts = [request.start for request in server.requests if request.method == "GET"]
    assert starts == [0, SIZES[0][1] // 2 // 1000 * 1000, 0, 0]


def test_a_body_that_is_always_cut_off_is_given_up(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(hub, "WAITS", ())
    server.fail("GET", CUT, 1)
    server.fail("GET", CLOSE)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "disconnected", *WAYS_OUT)), message


def test_a_download_that_is_killed_leaves_nothing_that_counts_as_whole(server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", STALL, 1)
    program = subprocess.Popen([sys.executable, "-c", FETCH, str(tmp_path)], env=environment(server, tmp_path / "home"))
    try:
        assert server.stalled.wait(60)
    finally:
        program.send_signal(signal.SIGKILL)
        program.wait()
    assert not [name for name in files(tmp_path) if name in BODIES]
    get(tmp_path)
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES


def test_a_file_of_another_size_is_not_even_downloaded(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files = served(bodies=BODIES | {NAMES[0]: b"PAR1 something else PAR1"})
    message = refusal(CheckFailed, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "24 bytes", f"{SIZES[0][1]:,}", server.endpoint)), message
    assert server.asked("GET") == []


def test_a_file_of_another_size_is_not_kept(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files = served(bodies=BODIES | {NAMES[0]: b"PAR1 something else PAR1"})
    server.fail("HEAD", SILENT_SIZE)
    message = refusal(CheckFailed, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "24 bytes", f"{SIZES[0][1]:,}")), message
    assert len(server.asked("GET")) == 1


def test_a_file_cut_short_in_its_place_is_refused(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    get(tmp_path)
    (tmp_path / NAMES[1]).write_bytes(BODIES[NAMES[1]][:1000])
    for offline in (False, True):
        message = refusal(CheckFailed, tmp_path, capfd, offline=offline)
        assert all(word in message for word in (NAMES[1], "1,000 bytes", f"{SIZES[1][1]:,}", "Remove it")), message


def test_a_place_that_cannot_be_written_is_named(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    message = refusal(OutsideError, tmp_path, capfd)
    assert str(tmp_path / "data") in message
    assert "cannot be written" in message


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
    command = [sys.executable, "-c", FETCH, str(tmp_path)]
    done = subprocess.run(
        command, stdout=theirs, stderr=theirs, env=environment(server, tmp_path / "home"), check=False
    )
    os.write(theirs, b"end")
    assert os.read(ours, 10_000) == b"end"
    assert done.returncode == 0
    assert {name: (tmp_path / name).read_bytes() for name in NAMES} == BODIES
    os.close(ours)
    os.close(theirs)
