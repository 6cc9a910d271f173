"""The executor on Ray: the local executor's laws on real nodes, and every failure in one line."""

from __future__ import annotations

import contextlib
import functools
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from duckling_data.base.errors import CheckFailed, DucklingError, InputError, OutsideError
from duckling_data.base.locks import holder
from duckling_data.base.ray_executor import RayExecutor
from tests.support import HANG
from tests.support.ray_cluster import Nodes, nodes

KINDS = {"input": InputError, "outside": OutsideError, "check": CheckFailed}


@pytest.fixture(scope="module")
def cluster() -> Iterator[Nodes]:
    with nodes(3) as running:
        yield running


@pytest.fixture(scope="module")
def connected() -> Iterator[list[RayExecutor]]:
    """The one connection of this process, if there is one: each has worker processes of its own, slow to start."""
    found: list[RayExecutor] = []
    yield found
    disconnect(found)


def disconnect(connected: list[RayExecutor]) -> None:
    while connected:
        connected.pop().__exit__(None, None, None)


@pytest.fixture
def ray(cluster: Nodes, connected: list[RayExecutor]) -> RayExecutor:
    connected.extend([] if connected else [RayExecutor(cluster.address).__enter__()])
    return connected[0]


@pytest.fixture
def address(cluster: Nodes, connected: list[RayExecutor]) -> str:
    """The cluster's address, for a connection of one's own."""
    disconnect(connected)
    return cluster.address


def wait_for(path: Path) -> None:
    deadline = time.monotonic() + HANG
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    assert path.exists()


def last_is_first(folder: Path, number: int) -> int:
    """End at once where the number is 2, else when the caller has that result."""
    if number < 2:
        wait_for(folder / "go")
    return number * number


def die_once(folder: Path, number: int) -> int:
    mark = folder / f"tried {number}"
    if number == 1 and not mark.exists():
        mark.touch()
        os.kill(os.getpid(), signal.SIGKILL)
    return number


def until_released(folder: Path, number: int) -> str:
    (folder / f"begun {number} {os.getpid()}").touch()
    wait_for(folder / "go")
    import ray

    return str(ray.get_runtime_context().get_node_id())


def fail(kind: str) -> None:
    raise KINDS[kind](f"{kind}: one line\nand another")


def variables(_: int) -> dict[str, str]:
    return dict(os.environ)


@pytest.mark.parametrize(("cpus", "gpus"), [(2.0, 0.0), (1.0, 1.0)])
def test_what_no_node_has_is_refused(address: str, cpus: float, gpus: float) -> None:
    wanted = f"a node with {cpus:g} CPUs and {gpus:g} GPUs; expected one, the nodes have: 1 CPUs and 0 GPUs"
    with pytest.raises(InputError, match=wanted), RayExecutor(address, cpus=cpus, gpus=gpus):
        pass


def test_another_version_of_ray_is_refused(address: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ray.__version__", "2.59.0")
    with pytest.raises(InputError, match=r"Version mismatch: .* Ray: 2\.60.* Ray: 2\.59\.0"):
        RayExecutor(address).__enter__()


def test_results_are_in_order_of_number_or_of_completion(ray: RayExecutor, tmp_path: Path) -> None:
    assert ray.slots == 3
    assert list(ray.map(abs, range(-20, 0), ordered=True)) == [(n, 20 - n) for n in range(20)]
    results = ray.map(functools.partial(last_is_first, tmp_path), range(3), ordered=False)
    assert next(results) == (2, 4)
    (tmp_path / "go").touch()
    assert set(results) == {(0, 0), (1, 1)}


def test_items_are_taken_as_they_are_needed(ray: RayExecutor) -> None:
    taken: list[int] = []
    results = ray.map(abs, (taken.append(number) or number for number in range(10**9)), ordered=True)
    assert [next(results) for _ in range(3)] == [(0, 0), (1, 1), (2, 2)]
    results.close()
    assert len(taken) <= 2 * ray.slots + 3


@pytest.mark.parametrize("kind", KINDS)
def test_an_error_of_ours_comes_back_as_itself(ray: RayExecutor, kind: str) -> None:
    with pytest.raises(KINDS[kind]) as here:
        fail(kind)
    with pytest.raises(DucklingError) as found:
        list(ray.map(fail, [kind], ordered=True))
    assert (type(found.value), str(found.value)) == (KINDS[kind], str(here.value))


def test_another_exception_is_one_line_that_names_it(ray: RayExecutor) -> None:
    with pytest.raises(OutsideError, match=r"a task failed: TypeError: object of type 'int' has no len\(\)$"):
        list(ray.map(len, [1], ordered=True))  # type: ignore[list-item]


def test_the_environment_reaches_the_workers(ray: RayExecutor, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_ENDPOINT", "http://127.0.0.1:1")
    monkeypatch.setenv("LC_ALL", "C")
    ((_, found),) = ray.map(variables, [0], ordered=True)
    wanted = {"LC_ALL": "C.UTF-8", "PYTHONHASHSEED": "0", "OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1",
              "RAYON_NUM_THREADS": "1", "TOKENIZERS_PARALLELISM": "false",
              "HF_ENDPOINT": "http://127.0.0.1:1"}  # fmt: skip
    assert {name: found.get(name) for name in wanted} == wanted


def test_a_killed_worker_is_replaced(ray: RayExecutor, tmp_path: Path) -> None:
    assert list(ray.map(functools.partial(die_once, tmp_path), range(3), ordered=True)) == [(0, 0), (1, 1), (2, 2)]


def test_without_retries_a_killed_worker_is_one_line(
    ray: RayExecutor, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ray, "retries", 0)
    with pytest.raises(OutsideError, match=r"a task's worker process was lost \(no retries\); call again to go on\.$"):
        list(ray.map(functools.partial(die_once, tmp_path), range(3), ordered=True))


def test_where_no_cluster_answers_is_refused(connected: list[RayExecutor]) -> None:
    disconnect(connected)
    with socket.socket() as unused:
        unused.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{unused.getsockname()[1]}"
        for given, why in ((address, "no cluster answers"), (f"ray://{address}", "Ray's client is not supported")):
            with pytest.raises(InputError, match=f"^Ray at {given}: {why}"):
                RayExecutor(given).__enter__()


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(InputError, match=r"^ray is not installed: pip install 'duckling\[ray\]'$"):
        RayExecutor().__enter__()


def test_a_small_shared_memory_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    small = shutil.disk_usage("/")._replace(free=64_000_000)
    monkeypatch.setattr(shutil, "disk_usage", lambda path: small)
    with pytest.raises(InputError, match=r"^/dev/shm: 64 MB are free; expected 84 MB .*--shm-size"):
        RayExecutor().__enter__()


def test_a_driver_that_ends_leaves_no_process_and_no_lock(tmp_path: Path) -> None:
    """A local cluster ends with its driver, however that ends; the driver holds a lock meanwhile."""
    for number, status in ((signal.SIGTERM, 143), (signal.SIGKILL, -9)):
        folder = tmp_path / str(int(number))
        folder.mkdir()
        driver = subprocess.Popen([sys.executable, "-c", DRIVER, str(folder)], stderr=subprocess.PIPE, text=True)
        wait_for(folder / "begun")
        assert holder(folder / ".lock") is not None
        driver.send_signal(number)
        assert driver.communicate()[1] == ("driver: stopped by SIGTERM; again\n" if number == signal.SIGTERM else "")
        assert driver.returncode == status
        assert holder(folder / ".lock") is None
        deadline = time.monotonic() + HANG
        while (left := of_session((folder / "begun").read_text())) and time.monotonic() < deadline:
            time.sleep(0.05)
        assert left == []


DRIVER = """
import sys, time, pathlib, functools, click
from duckling_data.base.command_line import run_command
from duckling_data.base.locks import held
from duckling_data.base.locks import holder
from duckling_data.base.ray_executor import RayExecutor
from tests.duckling_data.test_ray_executor import tell_and_sleep

@click.command()
@click.argument("folder", type=pathlib.Path)
def driver(folder):
    with held(folder / ".lock", folder, waiting=None), RayExecutor() as executor:
        list(executor.map(tell_and_sleep, [folder], ordered=True))

run_command(driver, "driver", resume="again")
"""


def tell_and_sleep(folder: Path) -> None:
    import ray

    (folder / "begun.partial").write_text(ray._private.worker._global_node.get_session_dir_path())
    (folder / "begun.partial").rename(folder / "begun")
    time.sleep(HANG)


def of_session(folder: str) -> list[str]:
    """The command lines of the processes of a Ray session."""
    lines = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with contextlib.suppress(OSError):
            lines.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
    return [line for line in lines if folder in line]


def test_a_killed_node_loses_no_task_and_says_nothing(
    cluster: Nodes, ray: RayExecutor, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def items() -> Iterator[int]:
        yield from range(3)
        deadline = time.monotonic() + HANG
        while len([*tmp_path.glob("begun *")]) < 3 and time.monotonic() < deadline:  # one on each node
            time.sleep(0.01)
        cluster.kill(2)
        (tmp_path / "go").touch()
        yield from range(3, 6)

    results = list(ray.map(functools.partial(until_released, tmp_path), items(), ordered=True))
    assert [number for number, _ in results] == list(range(6))
    assert len(set(map(str, (node for _, node in results)))) == 2
    assert len([*tmp_path.glob("begun *")]) == 7, "the lost task was run again"
    assert capfd.readouterr() == ("", "")


def test_a_lost_head_is_one_line(connected: list[RayExecutor], tmp_path: Path) -> None:
    """Without it Ray would end this process after a minute."""
    disconnect(connected)
    with nodes(1) as cluster:

        def items() -> Iterator[int]:
            yield 0
            deadline = time.monotonic() + HANG
            while not [*tmp_path.glob("begun *")] and time.monotonic() < deadline:
                time.sleep(0.01)
            cluster.nodes[0].kill_all_processes(check_alive=False, allow_graceful=False)

        with (
            RayExecutor(cluster.address) as executor,
            pytest.raises(OutsideError, match=r"(the cluster's head|a task's (node|worker process)) was lost"),
        ):
            list(executor.map(functools.partial(until_released, tmp_path), items(), ordered=True))
