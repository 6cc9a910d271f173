"""One process at a time in a place: the second waits or is refused by name; the dead hold nothing."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from duckling_data.base.errors import InputError
from duckling_data.base.locks import LOCK, beside, held, remove_leftovers, wait_until_free
from tests.support import HANG, forked
from tests.support.data import Cli, snapshot, stages_that
from tests.support.train import TINY_SHAPE, make_workspace, sentences

HOLDER = """
import sys, time
from pathlib import Path
from duckling_data.base.locks import held
with held(Path(sys.argv[1]), Path(sys.argv[2]), None):
    print("held", flush=True)
    sys.stdin.read()
"""


def hold(path: Path, place: Path) -> subprocess.Popen[str]:
    """Start a process that holds the lock until its standard input ends."""
    process = subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(path), str(place)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def let_go(process: subprocess.Popen[str]) -> None:
    assert process.stdin is not None
    process.stdin.close()
    assert process.wait(HANG) == 0


def test_a_second_process_is_refused_with_the_holders_pid_and_host(tmp_path: Path) -> None:
    holder = hold(tmp_path / LOCK, tmp_path)
    with pytest.raises(InputError, match=f"{tmp_path}: process {holder.pid} on {socket.gethostname()}, or one that"):
        held(tmp_path / LOCK, tmp_path, None).__enter__()
    let_go(holder)
    with held(tmp_path / LOCK, tmp_path, None):
        assert (tmp_path / LOCK).read_text() == f"{os.getpid()} {socket.gethostname()}\n"
    assert list(tmp_path.iterdir()) == []


def test_a_killed_holder_keeps_no_lock_and_its_file_is_taken_over(tmp_path: Path) -> None:
    holder = hold(tmp_path / LOCK, tmp_path)
    holder.send_signal(signal.SIGKILL)
    holder.wait(HANG)
    assert (tmp_path / LOCK).exists()
    with held(tmp_path / LOCK, tmp_path, None):
        pass
    assert not (tmp_path / LOCK).exists()


def test_a_child_that_inherits_the_lock_holds_it_when_its_parent_was_killed(tmp_path: Path) -> None:
    script = HOLDER.replace("None):", "None) as handle:\n    import subprocess").replace(
        'print("held", flush=True)', "subprocess.run(['sh', '-c', 'echo held; exec cat'], pass_fds=[handle])"
    )
    holder = subprocess.Popen(
        [sys.executable, "-c", script, tmp_path / LOCK, tmp_path], stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    assert holder.stdout is not None
    assert holder.stdin is not None
    assert holder.stdout.readline() == b"held\n"
    holder.kill()
    holder.wait(20)
    with pytest.raises(InputError, match=f"process {holder.pid} on .*, or one that it started, is at work there"):
        held(tmp_path / LOCK, tmp_path, None).__enter__()
    holder.stdin.close()  # which ends the child
    wait_until_free(tmp_path, lambda line: None)
    with held(tmp_path / LOCK, tmp_path, None):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_locked_is_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unlockable(handle: int, kind: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr(fcntl, "flock", unlockable)
    with pytest.raises(InputError, match=f"{tmp_path}: its file system has no locks .No locks available"):
        held(tmp_path / LOCK, tmp_path, None).__enter__()


def test_a_lock_that_comes_and_goes_leaves_the_folders_time(tmp_path: Path) -> None:
    before = tmp_path.stat().st_mtime_ns
    with held(tmp_path / LOCK, tmp_path, None):
        assert tmp_path.stat().st_mtime_ns > before
    assert tmp_path.stat().st_mtime_ns == before
    with held(tmp_path / LOCK, tmp_path, None):
        time.sleep(0.02)  # the system's clock for files is coarse
        (tmp_path / "new").touch()
    assert tmp_path.stat().st_mtime_ns > before


def test_threads_take_turns(tmp_path: Path) -> None:
    inside, most = 0, 0

    def work() -> None:
        nonlocal inside, most
        for _ in range(20):
            with held(tmp_path / LOCK, tmp_path, waiting=lambda line: None):
                inside += 1
                most = max(most, inside)
                time.sleep(0.0005)
                inside -= 1

    threads = [threading.Thread(target=work) for _ in range(5)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(HANG)
    assert (inside, most) == (0, 1)
    assert list(tmp_path.iterdir()) == []


def test_a_reader_waits_for_the_holder_and_writes_nothing(tmp_path: Path) -> None:
    said: list[str] = []
    wait_until_free(tmp_path, said.append)
    assert (said, list(tmp_path.iterdir())) == ([], [])
    holder = hold(tmp_path / LOCK, tmp_path)
    reader = threading.Thread(target=wait_until_free, args=(tmp_path, said.append))
    reader.start()
    reader.join(0.3)
    assert reader.is_alive()
    let_go(holder)
    reader.join(HANG)
    assert not reader.is_alive()
    assert len(said) == 1
    assert f"waiting for process {holder.pid} on " in said[0]


def test_leftovers_go_and_a_users_files_stay(cli: Cli, made: Path) -> None:
    expected = snapshot(made)
    for name in ("notes.partial", "tmp1234", "corpus/mine.partial", "other.lock"):
        (made / name).write_text("mine")
    mine = snapshot(made)
    (made / LOCK).write_text("1 elsewhere\n")
    (made / "manifest.json.partial").write_text("{")
    (made / "corpus/source.json.partial").touch()
    for name in ("tokenized_dataset.partial", "tokenized_dataset.old.partial", "report.old.partial"):
        (made / name / "deep").mkdir(parents=True)
    assert stages_that("made", cli("pack", "-w", made)) == []
    assert snapshot(made) == mine
    assert mine.keys() - expected.keys() == {"notes.partial", "tmp1234", "corpus/mine.partial", "other.lock"}
    assert not list(made.glob("*.old.partial"))


def test_a_leftover_that_is_a_link_is_removed_and_not_followed(tmp_path: Path) -> None:
    (tmp_path / "far").mkdir()
    (tmp_path / "far" / "file").touch()
    (tmp_path / "place.partial").symlink_to(tmp_path / "far")
    remove_leftovers(tmp_path, ["place"])
    assert not (tmp_path / "place.partial").is_symlink()
    assert (tmp_path / "far" / "file").exists()


def test_a_command_waits_says_for_whom_and_then_works(made: Path, tmp_path: Path) -> None:
    holder = hold(made / LOCK, made)
    waiting = forked.start("duckling_data.cli", "pack", "-w", made, "--ctx", "16", output=tmp_path / "waiting")
    deadline = time.monotonic() + HANG
    while "waiting for" not in (waiting.stderr if Path(f"{waiting.output}.stderr").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    line = f"waiting for process {holder.pid} on {socket.gethostname()}, which is at work in {made} (Ctrl-C leaves)\n"
    assert waiting.stderr == line
    let_go(holder)
    assert waiting.wait() == 0
    assert "pack         made tokenized_dataset/" in waiting.stderr


def test_ctrl_c_leaves_the_queue(made: Path, tmp_path: Path) -> None:
    before = snapshot(made)
    holder = hold(made / LOCK, made)
    waiting = forked.start("duckling_data.cli", "pack", "-w", made, output=tmp_path / "waiting")
    deadline = time.monotonic() + HANG
    while "waiting for" not in (waiting.stderr if Path(f"{waiting.output}.stderr").exists() else ""):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    waiting.kill(signal.SIGINT)
    assert waiting.wait() == 130
    let_go(holder)
    assert snapshot(made) == before


def test_a_second_trainer_in_one_run_is_refused_by_name(tmp_path: Path) -> None:
    workspace = make_workspace(tmp_path / "w", sentences(30), live=448, dead=64, context=64)
    run_dir = tmp_path / "w" / "runs" / "one"
    run_dir.mkdir(parents=True)
    (run_dir / "config.json.partial").write_text("{")  # from a run that was killed while it wrote its settings
    settings = ("--out", run_dir, "-w", workspace, *TINY_SHAPE, "--steps", "2", "--quiet")
    done = forked.run("duckling_train.cli", *settings, output=tmp_path / "first")
    assert done.wait() == 0, done.stderr
    assert not list(run_dir.glob("*.partial"))
    before = snapshot(run_dir)
    holder = hold(beside(run_dir), run_dir)
    name = f"process {holder.pid} on {socket.gethostname()}, or one that it started"
    for where in ((*settings, "--overwrite"), ("--resume", run_dir, "-w", workspace)):
        second = forked.run("duckling_train.cli", *where, output=tmp_path / "second")
        assert second.wait() == 2
        assert second.stderr == f"duckling-train: {run_dir}: {name}, is at work there: wait, or stop it.\n"
        assert snapshot(run_dir) == before
    let_go(holder)
    assert [path.name for path in run_dir.parent.iterdir()] == ["one"]
