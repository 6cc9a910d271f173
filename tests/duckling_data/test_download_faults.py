"""A download ends in the right files or in one clear line, whatever the hub does; what may pass is tried again.

Our waits between tries are cut to nothing in this process; what is tried again is not touched.
"""

from __future__ import annotations

import subprocess
import sys
import time
from email.utils import formatdate
from pathlib import Path
from types import SimpleNamespace

import huggingface_hub
import pytest

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.corpus.hub import HubDataset, download
from tests.support import HANG
from tests.support.hub.case import (
    BODIES,
    DATASET,
    FETCH,
    NAMES,
    REPO,
    SIZES,
    TRIES,
    WAYS_OUT,
    environment,
    get,
    incomplete,
    point_at,
    refusal,
    served,
)
from tests.support.hub.server import (
    BEHIND,
    CIRCLE,
    CLOSE,
    CUT,
    LONG,
    MOVED,
    NO_HUB,
    RESET,
    SHORT,
    SILENT_HASH,
    SILENT_SIZE,
    STALL,
    WRONG,
    HubServer,
)


def whole(folder: Path) -> bool:
    return {name: (folder / name).read_bytes() for name in NAMES} == BODIES


@pytest.mark.parametrize(
    ("method", "fault", "says", "tries"),
    [
        ("HEAD", 404, "the hub answered 404", 1),
        ("HEAD", 401, "the hub answered 401", 1),
        ("HEAD", 403, "the hub answered 403", 1),
        ("HEAD", 429, "the hub answered 429", TRIES),
        ("HEAD", 500, "the hub answered 500", TRIES),
        ("HEAD", 503, "the hub answered 503", TRIES),
        ("HEAD", CLOSE, "disconnected", TRIES),
        ("HEAD", CIRCLE, "redirect", 1),
        ("GET", 404, "the hub answered 404", 1),
        ("GET", 429, "the hub answered 429", TRIES),
        ("GET", 500, "the hub answered 500", TRIES),
        ("GET", CLOSE, "disconnected", TRIES),
        ("GET", CIRCLE, "redirect", 1),
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
    assert fault == CIRCLE or len(server.asked(method)) == tries
    assert incomplete(tmp_path) == {}


@pytest.mark.parametrize("fault", [503, 429, CLOSE])
@pytest.mark.parametrize("method", ["HEAD", "GET"])
def test_what_passes_by_itself_is_tried_again(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], method: str, fault: int | str
) -> None:
    server.fail(method, fault, TRIES - 1)
    get(tmp_path, quiet=False)
    assert whole(tmp_path)
    said = capfd.readouterr().err.splitlines()
    assert ["trying again" in line for line in said] == [False, True, True, False, False]


@pytest.mark.parametrize("fault", [CUT, SHORT, RESET])
def test_a_body_that_ends_early_is_resumed(server: HubServer, tmp_path: Path, fault: str) -> None:
    server.fail("GET", fault, 1)
    get(tmp_path)
    assert whole(tmp_path)
    starts = [request.start for request in server.requests if request.method == "GET"]
    assert starts == [0, SIZES[0][1] // 2, 0, 0]


@pytest.mark.parametrize("fault", [CUT, SHORT, RESET])
def test_a_body_that_always_ends_early_still_comes_where_the_store_can_resume(
    server: HubServer, tmp_path: Path, fault: str
) -> None:
    cuts = 7  # more than there are tries, but each brings a half of what is missing
    assert cuts > TRIES
    server.fail("GET", fault, cuts)
    get(tmp_path)
    assert whole(tmp_path)


@pytest.mark.parametrize("fault", [CUT, SHORT, RESET])
def test_a_body_that_always_ends_early_is_given_up_where_the_store_cannot_resume(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str], fault: str
) -> None:
    server.ranges = False
    server.fail("GET", fault)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], server.endpoint, *WAYS_OUT)), message
    assert len(server.asked("GET")) == TRIES


def test_a_store_that_resumes_at_another_byte_is_asked_for_all(server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", CUT, 1)
    server.fail("GET", BEHIND, 1)
    get(tmp_path)
    assert whole(tmp_path)
    starts = [request.start for request in server.requests if request.method == "GET"]
    assert starts == [0, SIZES[0][1] // 2, 0, 0, 0]


def test_other_bytes_are_refused_and_kept_aside(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("GET", WRONG)
    message = refusal(OutsideError, tmp_path, capfd, left={NAMES[0] + ".refused"})
    aside = tmp_path / f"{NAMES[0]}.refused"
    assert all(word in message for word in (NAMES[0], server.endpoint, "SHA-256", str(aside), "not used")), message
    assert aside.read_bytes() == bytes(255 - byte for byte in BODIES[NAMES[0]])
    assert incomplete(tmp_path) == {}


def test_a_body_that_is_too_long_is_refused(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("GET", LONG)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "more bytes", f"{SIZES[0][1]:,}", server.endpoint)), message
    assert incomplete(tmp_path) == {}


def test_a_file_of_another_size_is_not_even_downloaded(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files = served(bodies=BODIES | {NAMES[0]: b"PAR1 something else PAR1"})
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "24 bytes", f"{SIZES[0][1]:,}", server.endpoint)), message
    assert server.asked("GET") == []


def test_a_file_of_another_size_is_not_used_where_the_hub_does_not_say_it(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.files = served(bodies=BODIES | {NAMES[0]: b"PAR1 something else PAR1"})
    server.fail("HEAD", SILENT_SIZE)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "24 bytes", f"{SIZES[0][1]:,}")), message


def test_a_hub_without_hashes_is_said_and_the_size_checked(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("HEAD", SILENT_HASH)
    get(tmp_path, quiet=False)
    assert whole(tmp_path)
    assert capfd.readouterr().err.count("gives no SHA-256") == len(NAMES)


def test_another_revision_is_refused(server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    server.fail("HEAD", MOVED)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], "f" * 40, DATASET.revision, server.endpoint)), message
    assert server.asked("GET") == []


def test_a_revision_that_is_not_there(server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    other = HubDataset(REPO, "f" * 40, DATASET.splits)
    assert "answered 404" in refusal(OutsideError, tmp_path, capfd, dataset=other)


def test_an_answer_that_is_no_hubs_is_the_networks_fault_or_that_of_hf_endpoint(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    server.fail("HEAD", NO_HUB)
    assert "something else than the hub answers" in refusal(OutsideError, tmp_path, capfd)
    monkeypatch.setenv("HF_ENDPOINT", server.endpoint)
    assert f"HF_ENDPOINT {server.endpoint}: not a Hugging Face hub" in refusal(InputError, tmp_path, capfd)


def test_a_refused_connection_is_one_clear_line(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    with HubServer({}) as gone:
        pass
    point_at(gone.endpoint, monkeypatch)
    message = refusal(OutsideError, tmp_path, capfd)
    assert all(word in message for word in (NAMES[0], gone.endpoint, "refused", *WAYS_OUT)), message


TOMORROW = formatdate(time.time() + 86400, usegmt=True)


@pytest.mark.parametrize(
    ("method", "header", "asked", "waited"),
    [
        ("HEAD", "Retry-After", "7", 7.0),
        ("GET", "Retry-After", "7", 7.0),
        ("GET", "Retry-After", "1000000", 300.0),
        ("HEAD", "Retry-After", TOMORROW, 300.0),
        ("HEAD", "Retry-After", "soon", 0.0),
        ("GET", "RateLimit", '"resolvers";r=0;t=271', 271.0),
    ],
    ids=["head", "get", "long", "date", "nonsense", "rate limit"],
)
def test_a_wait_that_the_hub_asks_for_is_kept_but_not_beyond_our_own_limit(
    server: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    method: str,
    header: str,
    asked: str,
    waited: float,
) -> None:
    waits: list[float] = []
    monkeypatch.setattr(download, "time", SimpleNamespace(sleep=waits.append))
    server.refusal_headers = {header: asked}
    server.fail(method, 429, 1)
    get(tmp_path, quiet=False)
    assert whole(tmp_path)
    assert waits == [waited]
    assert f"the hub answered 429; trying again in {waited:.0f} s" in capfd.readouterr().err


@pytest.mark.parametrize("times", [1, 1000])
def test_a_body_that_stalls_is_resumed_or_given_up(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], times: int
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_DOWNLOAD_TIMEOUT", 0.5)
    server.ranges = times == 1
    server.fail("GET", STALL, times)
    if times == 1:
        get(tmp_path)
        assert whole(tmp_path)
    else:
        message = refusal(OutsideError, tmp_path, capfd)
        assert all(word in message for word in (NAMES[0], "no answer in time", *WAYS_OUT)), message
        assert len(server.asked("GET")) == TRIES


def test_a_place_that_cannot_be_written_is_named(
    server: HubServer, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "data").write_text("a file where the folder should be")
    message = refusal(InputError, tmp_path, capfd)
    assert message == f"{tmp_path / 'data'}: a file, expected a folder. Move it away."


def test_a_full_disk_is_said_and_what_came_is_resumed(server: HubServer, tmp_path: Path) -> None:
    limited = "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (8000, 8000))\n" + FETCH
    command = [sys.executable, "-c", limited, str(tmp_path), "quiet"]
    env = environment(server, tmp_path / "home")
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANG, check=False)
    assert done.returncode == 3, done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert all(word in done.stderr for word in (".incomplete", "cannot be written")), done.stderr
    assert list(incomplete(tmp_path).values()) == [8000]
    get(tmp_path)
    assert whole(tmp_path)
    assert [request.start for request in server.requests if request.method == "GET"] == [0, 8000, 0, 0]
