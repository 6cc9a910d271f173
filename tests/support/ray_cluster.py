"""A Ray cluster of several nodes on this machine: real raylets and object stores, on 127.0.0.1, without a driver."""

from __future__ import annotations

import contextlib
import os
import shutil
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from unittest import mock

STORE = 76 * 2**20
"""Bytes of each node's object store; Ray's minimum is 75 MiB."""


@dataclass
class Nodes:
    """A running cluster; node 0 is its head, to which drivers connect."""

    cluster: Any
    nodes: list[Any]

    @property
    def address(self) -> str:
        """The `--ray-address`."""
        return str(self.cluster.address)

    def kill(self, index: int) -> None:
        """Kill a node that is not the head: its raylet with SIGKILL, and with it its workers."""
        assert index > 0, "a cluster ends with its head"
        self.cluster.remove_node(self.nodes[index], allow_graceful=False)


@contextlib.contextmanager
def nodes(count: int, cpus: float = 1, gpus: float = 0) -> Iterator[Nodes]:
    """Yield a cluster of `count` nodes with so many CPUs and (claimed) GPUs each."""
    folder = tempfile.mkdtemp(prefix="rc-", dir="/tmp")  # sockets lie in it: a short path
    from ray.cluster_utils import Cluster

    cluster = Cluster()
    node = {
        "node_ip_address": "127.0.0.1", "num_cpus": cpus, "num_gpus": gpus, "object_store_memory": STORE,
        "include_dashboard": False, "include_log_monitor": False,
    }  # fmt: skip
    # RAY_TMPDIR: not beside the users' clusters, which "auto" finds.
    environment = mock.patch.dict(os.environ, RAY_TMPDIR=folder, RAY_USAGE_STATS_ENABLED="0")
    environment.start()
    try:
        yield Nodes(cluster, [cluster.add_node(**node) for _ in range(count)])
    finally:
        cluster.shutdown()
        environment.stop()
        shutil.rmtree(folder, ignore_errors=True)
