"""What was downloaded is compared ever after: corpus/source.json keeps the SHA-256 that the hub gave."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import pytest

from duckling_data.corpus import hub
from tests.support.data import SMALL, Cli, read_json, snapshot
from tests.support.hub.case import BODIES, DATASET, NAMES, REVISION
from tests.support.hub.server import CLOSE, CUT, HubServer

DIGESTS = {f"{REVISION}/{name}": hashlib.sha256(body).hexdigest() for name, body in BODIES.items()}


@pytest.fixture(autouse=True)
def _small_tinystories(server: HubServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(hub, "TINYSTORIES", DATASET)


def record(workspace: Path) -> dict[str, str]:
    kept: dict[str, str] = read_json(workspace / "corpus" / "source.json")["hub"]
    return kept


def damage(path: Path) -> None:
    """Change the last byte, without which it is no Parquet file, and not the size."""
    body = path.read_bytes()
    path.write_bytes(body[:-1] + bytes([body[-1] ^ 1]))


def test_the_hashes_that_the_hub_gave_are_recorded(cli: Cli, tmp_path: Path) -> None:
    assert cli("download", "-w", tmp_path).exit_code == 0
    assert record(tmp_path) == DIGESTS
    before = snapshot(tmp_path)
    assert cli("download", "-w", tmp_path).exit_code == 0
    assert snapshot(tmp_path) == before


def test_a_hash_is_recorded_before_its_file_is_whole(cli: Cli, server: HubServer, tmp_path: Path) -> None:
    server.fail("GET", CUT, 1)
    server.fail("GET", CLOSE)
    assert cli("download", "-w", tmp_path).exit_code == 3
    assert record(tmp_path).items() <= DIGESTS.items()
    assert len(record(tmp_path)) == 1


@pytest.mark.parametrize("command", ["download", "count", "pack"])
def test_a_file_that_changed_since_is_refused_by_every_command(cli: Cli, tmp_path: Path, command: str) -> None:
    assert cli("download", "-w", tmp_path).exit_code == 0
    place = tmp_path / "corpus" / NAMES[1]
    damage(place)
    before = snapshot(tmp_path)
    for options in (["--offline"], ["--dry-run"]):
        refused = cli(command, "-w", tmp_path, "-q", *options)
        assert refused.exit_code == 1, refused.stderr
        assert all(word in refused.stderr for word in (str(place), DIGESTS[f"{REVISION}/{NAMES[1]}"], "Move it away"))
        assert snapshot(tmp_path) == before
    refused = cli(command, "-w", tmp_path, "-q")
    assert refused.exit_code == 1, refused.stderr
    assert len(refused.stderr.splitlines()) == 1
    assert "kept as" in refused.stderr
    assert snapshot(tmp_path) == {
        name + ".refused" * (name == f"corpus/{NAMES[1]}"): digest for name, digest in before.items()
    }
    again = cli(command, "-w", tmp_path, "-q", *(SMALL if command == "pack" else ()))
    assert again.exit_code == 0, again.stderr
    assert place.read_bytes() == BODIES[NAMES[1]]


def test_of_several_changed_files_one_a_command_is_named_and_kept_aside(cli: Cli, tmp_path: Path) -> None:
    assert cli("download", "-w", tmp_path).exit_code == 0
    for name in NAMES:
        damage(tmp_path / "corpus" / name)
    for number, name in enumerate(NAMES, 1):
        refused = cli("download", "-w", tmp_path, "-q")
        assert refused.exit_code == 1
        assert name in refused.stderr
        assert len(list(tmp_path.rglob("*.refused"))) == number
    assert cli("download", "-w", tmp_path).exit_code == 0


def test_files_that_a_person_put_there_are_recorded_as_they_are(cli: Cli, server: HubServer, tmp_path: Path) -> None:
    for name, body in BODIES.items():
        place = tmp_path / "corpus" / name
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(body)
    made = cli("count", "-w", tmp_path, "--offline", "--sample", "all")
    assert made.exit_code == 0, made.stderr
    assert server.requests == []
    assert record(tmp_path) == DIGESTS
    damage(tmp_path / "corpus" / NAMES[0])
    assert cli("count", "-w", tmp_path, "--offline").exit_code == 1


def test_hashes_of_another_revision_do_not_count_and_are_kept(cli: Cli, tmp_path: Path) -> None:
    assert cli("download", "-w", tmp_path).exit_code == 0
    older = {f"{'f' * 40}/{name}": "0" * 64 for name in NAMES}
    place = tmp_path / "corpus" / "source.json"
    place.write_text(json.dumps(read_json(place) | {"hub": older}))
    assert cli("download", "-w", tmp_path).exit_code == 0
    assert record(tmp_path) == older | DIGESTS


def test_the_record_outlives_another_source(cli: Cli, stories: Path, tmp_path: Path) -> None:
    workspace = tmp_path / "w"
    assert cli("download", "-w", workspace).exit_code == 0
    assert cli("download", "-w", workspace, "--source", stories).exit_code == 0
    assert record(workspace) == DIGESTS
