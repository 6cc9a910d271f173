"""The download keeps to the user's settings, says so in one line where they are at fault, and never shows a secret.

A setting that huggingface_hub reads when it is imported is tested in a process of its own.
"""

from __future__ import annotations

import base64
import subprocess
import sys
from pathlib import Path

import huggingface_hub
import pytest

from duckling_data.base.errors import InputError, OutsideError
from duckling_data.corpus.hub.errors import redacted
from tests.support import HANG
from tests.support.data import Cli
from tests.support.hub.case import BODIES, NAMES, TRIES, environment, fetch_apart, get, point_at, refusal
from tests.support.hub.proxy import Proxy
from tests.support.hub.server import STALL, HubServer

TOKEN = "hf_" + "abcDEF0123456789abcDEF0123456789ab"
PASSWORD = "correct-horse"
LOGIN = "Basic " + base64.b64encode(f"someone:{PASSWORD}".encode()).decode()


def whole(folder: Path) -> bool:
    return {name: (folder / name).read_bytes() for name in NAMES} == BODIES


def texts(folder: Path) -> str:
    """Everything below a folder, as text."""
    return "".join(path.read_bytes().decode("latin-1") for path in folder.rglob("*") if path.is_file())


def test_the_token_goes_to_the_hub_and_to_nobody_else(server: HubServer, tmp_path: Path) -> None:
    done = fetch_apart(server, tmp_path / "w", tmp_path / "home", "talk", HF_TOKEN=TOKEN)
    assert done.returncode == 0, done.stderr
    assert whole(tmp_path / "w")
    logins = {(request.method, request.login) for request in server.requests}
    assert logins == {("HEAD", f"Bearer {TOKEN}"), ("GET redirect", f"Bearer {TOKEN}"), ("GET", None)}
    assert TOKEN not in done.stdout + done.stderr + texts(tmp_path)


def test_the_token_of_hf_home_is_used(server: HubServer, tmp_path: Path) -> None:
    (tmp_path / "home").mkdir()
    (tmp_path / "home" / "token").write_text(TOKEN)
    done = fetch_apart(server, tmp_path / "w", tmp_path / "home")
    assert done.returncode == 0, done.stderr
    assert server.requests[0].login == f"Bearer {TOKEN}"


@pytest.mark.parametrize("status", [401, 403])
def test_a_token_that_is_refused_is_the_users_to_mend(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str], status: int
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    server.fail("HEAD", status)
    message = refusal(InputError, tmp_path, capfd)
    assert all(word in message for word in ("refuses your token", str(status), "HF_TOKEN")), message
    assert TOKEN not in message


def test_the_clients_own_offline_mode_is_respected(server: HubServer, tmp_path: Path) -> None:
    done = fetch_apart(server, tmp_path / "w", tmp_path / "home", TRANSFORMERS_OFFLINE="1")
    assert done.returncode == 2
    assert all(word in done.stderr for word in ("TRANSFORMERS_OFFLINE", NAMES[0])), done.stderr
    assert server.requests == []


def test_the_proxy_is_used(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    point_at("http://hub.invalid", monkeypatch)
    with Proxy("hub.invalid", server.endpoint, LOGIN) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://someone:{PASSWORD}@{proxy.netloc}")
        get(tmp_path, quiet=False)
    assert whole(tmp_path)
    assert "hub.invalid" in proxy.asked
    assert server.store.removeprefix("http://") in proxy.asked
    assert PASSWORD not in capfd.readouterr().err + texts(tmp_path)


def test_no_proxy_is_respected(server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
    get(tmp_path)
    assert whole(tmp_path)


def test_a_proxy_that_wants_a_login_is_the_users_to_mend(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    point_at("http://hub.invalid", monkeypatch)
    with Proxy("hub.invalid", server.endpoint, LOGIN) as proxy:
        monkeypatch.setenv("HTTP_PROXY", f"http://someone:{PASSWORD}-no@{proxy.netloc}")
        message = refusal(InputError, tmp_path, capfd)
    assert all(word in message for word in ("407", "HTTP_PROXY")), message
    assert PASSWORD not in message
    assert set(proxy.asked) == {"hub.invalid"}
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_ENDPOINT", "huggingface.co"),
        ("HF_ENDPOINT", f"ftp://someone:{PASSWORD}@127.0.0.1"),
        ("HF_ENDPOINT", "http://127.0.0.1:99999"),
        ("HF_ENDPOINT", f"http://someone:{PASSWORD}@[::1"),
        ("HF_ENDPOINT", f"http://someone:{PASSWORD}/@127.0.0.1:9"),
        ("HF_HUB_ETAG_TIMEOUT", "soon"),
        ("HF_HUB_DOWNLOAD_TIMEOUT", "1.5"),
    ],
)
def test_a_setting_that_cannot_be_imported_is_named_in_one_line_without_its_secret(
    server: HubServer, tmp_path: Path, name: str, value: str
) -> None:
    done = fetch_apart(server, tmp_path / "w", tmp_path / "home", **{name: value})
    assert done.returncode == 2, done.stderr
    assert name in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert done.stdout == ""
    assert PASSWORD not in done.stderr
    assert server.requests == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("HF_TOKEN", f"{PASSWORD}-é"),
        ("HF_TOKEN", f"{PASSWORD}\x0bx"),
        ("HTTP_PROXY", f"nonsense://someone:{PASSWORD}@127.0.0.1:1"),
        ("HTTP_PROXY", f"http://someone:{PASSWORD}@127.0.0.1:port"),
        ("SSL_CERT_FILE", "/no/such/file"),
    ],
)
def test_a_setting_that_cannot_be_used_is_named_in_one_line_without_its_secret(
    server: HubServer,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
    name: str,
    value: str,
) -> None:
    monkeypatch.setenv(name, value)
    message = refusal(InputError, tmp_path, capfd)
    assert name in message
    assert PASSWORD not in message
    assert server.requests == []


@pytest.mark.parametrize(
    "variables",
    [
        {"HF_ENDPOINT": f"http://someone:{PASSWORD}@127.0.0.1:9/?key={TOKEN}"},
        {"HTTP_PROXY": f"http://someone:{PASSWORD}@127.0.0.1:9", "HF_DEBUG": "1"},
    ],
)
def test_not_even_the_traceback_of_debug_shows_a_secret(
    server: HubServer, tmp_path: Path, variables: dict[str, str]
) -> None:
    script = "from duckling_data import cli; from duckling_data.corpus.hub import download\n"
    script += "download.WAITS = (0.0,); cli.main()"
    command = [sys.executable, "-c", script, "download", "-w", str(tmp_path / "w"), "--debug"]
    env = environment(server, tmp_path / "home") | {"HF_TOKEN": TOKEN} | variables
    done = subprocess.run(command, capture_output=True, text=True, env=env, timeout=HANG, check=False)
    assert done.returncode in (2, 3), done.stderr
    assert_no_secret(done.stdout + done.stderr, tmp_path)


@pytest.mark.parametrize(
    ("name", "value"),
    [("HF_TOKEN", f"{TOKEN}\x0bx"), ("HTTP_PROXY", f"http://someone:{PASSWORD}@127.0.0.1:port")],
)
def test_nor_does_that_of_a_setting_that_cannot_be_used(
    server: HubServer, cli: Cli, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    monkeypatch.setenv(name, value)
    done = cli("download", "-w", tmp_path / "w", "--debug")
    assert done.exit_code == 2, done.stderr
    assert_no_secret(done.stdout + done.stderr, tmp_path)


def assert_no_secret(said: str, folder: Path) -> None:
    assert "Traceback" in said
    kept = said + texts(folder)
    assert not any(secret in kept for secret in (TOKEN, PASSWORD, LOGIN.split()[1])), said


def test_an_endpoint_with_a_password_is_asked_with_it_and_named_without(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    point_at(server.endpoint.replace("http://", f"http://someone:{PASSWORD}@"), monkeypatch)
    server.fail("HEAD", 404)
    message = refusal(OutsideError, tmp_path, capfd)
    assert server.requests[0].login == LOGIN
    assert server.endpoint in message
    assert PASSWORD not in message


def test_a_hub_that_does_not_answer_in_time_is_tried_again_and_given_up(
    server: HubServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_ETAG_TIMEOUT", 0.2)
    server.fail("HEAD", STALL)
    assert "no answer in time" in refusal(OutsideError, tmp_path, capfd)
    assert len(server.asked("HEAD")) == TRIES


def test_an_address_keeps_its_place_and_loses_what_is_secret() -> None:
    signed = f"for url 'https://someone:{PASSWORD}@store.example:8443/a/b.parquet?Signature={TOKEN}&Expires=1'"
    assert redacted(signed) == "for url 'https://store.example:8443/a/b.parquet?…'"
    assert redacted(f"Illegal header value b'Bearer {TOKEN}'") == "Illegal header value b'Bearer ***'"
    assert redacted("https://huggingface.co: refused") == "https://huggingface.co: refused"
