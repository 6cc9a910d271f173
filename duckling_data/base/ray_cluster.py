"""Ray clusters as a driver reaches them: one that runs, or one of its own on this machine, reachable from it only."""

from __future__ import annotations

import contextlib
import os
import secrets
import shutil
import signal
import socket
import sys
import tempfile
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from duckling_data.base.errors import InputError
from duckling_data.base.executor import default_workers

if sys.platform != "win32":
    import fcntl

STORE = 80 * 2**20
"""Bytes of the object store of a local cluster, near Ray's minimum: results are small, data goes by shared files."""
SHARED_MEMORY = "/dev/shm"
TEMPORARY_LIMIT = 40
"""Characters of a temporary folder's path: Ray adds 62 of its own to a socket's, and a socket's may have 107."""
FOLDER = "duckling-ray-"
"""How the temporary folder of a local cluster begins."""
REACH = 5.0
"""Seconds in which a cluster has to answer."""


def one_line(error: BaseException) -> str:
    """Return an exception's text as one line of bounded length."""
    return " ".join(str(error).split())[:500]


def reached(address: str) -> str:
    """Return the address if something listens there: Ray itself waits for minutes. Raises InputError otherwise."""
    from ray._private import services

    if "://" in address:
        raise InputError(
            f"Ray at {address}: Ray's client is not supported; give auto or HOST:PORT, on a node of the cluster "
            "(ray job submit, ray exec)."
        )
    try:
        with loopback():
            found = services.canonicalize_bootstrap_address(address, None) or address
    except (ConnectionError, ValueError) as error:
        raise InputError(f"Ray at {address}: no cluster found: {one_line(error)}") from error
    try:
        socket.create_connection(host_and_port(found), REACH).close()
    except (OSError, ValueError) as error:
        raise InputError(
            f"Ray at {address}: no cluster answers ({error}); start one, or give another address."
        ) from error
    return found


def host_and_port(address: str) -> tuple[str, int]:
    """Return the two parts of `HOST:PORT`. Raises ValueError for anything else."""
    host, _, port = address.rpartition(":")
    return host.strip("[]"), int(port)


@contextlib.contextmanager
def local_cluster() -> Iterator[dict[str, Any]]:
    """Yield the arguments of `ray.init` for a cluster on this machine, in a temporary folder of its own."""
    with contextlib.suppress(FileNotFoundError):  # macOS has none, and Ray does not want it there
        if (free := shutil.disk_usage(SHARED_MEMORY).free) < STORE:
            raise InputError(
                f"{SHARED_MEMORY}: {free / 1e6:.0f} MB are free; expected {STORE / 1e6:.0f} MB for Ray's object store; "
                "free some, or give the container more (docker run --shm-size=1g)."
            )
    # Who can reach a cluster can run code in it. Without a token Ray would write one into the home folder.
    if not {"RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH"} & os.environ.keys():
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    usual = tempfile.gettempdir()
    parent = usual if len(usual) < TEMPORARY_LIMIT - 21 else "/tmp"
    for left in Path(parent).glob(f"{FOLDER}*"):  # of drivers that were killed
        with contextlib.suppress(OSError), _locked(left):
            shutil.rmtree(left, ignore_errors=True)
    folder = tempfile.mkdtemp(prefix=FOLDER, dir=parent)
    try:
        with _locked(Path(folder)):
            yield {
                "address": "local", "num_cpus": default_workers(), "include_dashboard": False,
                "object_store_memory": STORE, "_temp_dir": folder,
            }  # fmt: skip
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextlib.contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Hold the kernel's lock on a folder, which ends with this process. Raises BlockingIOError where another has it."""
    handle = os.open(folder, os.O_RDONLY | os.O_NOFOLLOW | os.O_DIRECTORY)
    try:
        fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        yield
    finally:
        os.close(handle)


@contextlib.contextmanager
def loopback() -> Iterator[None]:
    """Have Ray take 127.0.0.1 for what it is: it would use this machine's outer address instead, open to others."""
    from ray._private import ray_constants

    before, ray_constants.ENABLE_RAY_CLUSTER = ray_constants.ENABLE_RAY_CLUSTER, False
    try:
        yield
    finally:
        ray_constants.ENABLE_RAY_CLUSTER = before


@contextlib.contextmanager
def own_signals() -> Iterator[None]:
    """Restore the handler of SIGTERM, which Ray replaces by its own."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
