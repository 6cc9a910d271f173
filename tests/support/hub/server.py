"""A hub on 127.0.0.1: the part of the Hugging Face hub's protocol that downloads a file, over real HTTP.

`/datasets/{repo}/resolve/{revision}/{file}` answers as the hub does for a large file: with the metadata in the headers
and a redirect to a store, which is another server here too. Faults can be ordered, and every request for a file is
written down.
"""

from __future__ import annotations

import hashlib
import json
import os
import socket
import struct
import threading
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, NamedTuple, Self

ALWAYS = 1 << 30

CUT = "cut"
"""Announce the whole body, send half of it and close the connection."""
CLOSE = "close"
"""Close the connection without an answer."""
SHORT = "short"
"""Send half of the body as if that were all."""
STALL = "stall"
"""Send half of the body and then nothing until the server ends; to HEAD, nothing at all."""
SILENT_SIZE = "silent size"
"""Leave out what says how long the file is."""
SILENT_HASH = "silent hash"
"""Leave out the SHA-256, as a server that only stands in for the hub may."""
RESET = "reset"
"""Announce the whole body, send half of it and reset the connection."""
WRONG = "wrong"
"""Send as many bytes as there should be, but others."""
LONG = "long"
"""Send more than the whole file, without saying how much."""
BEHIND = "behind"
"""Resume at another byte than was asked for."""
CIRCLE = "circle"
"""Redirect to the same address."""
MOVED = "moved"
"""Answer with another revision than was asked for."""
NO_HUB = "no hub"
"""Answer as any web server does."""


class Request(NamedTuple):
    """One request for a file."""

    method: str
    """HEAD, GET, or `GET redirect` where the hub sends no body but the way to the store."""
    path: str
    start: int
    """The first byte asked for."""
    login: str | None = None
    """What stands in the header that carries a token."""


class HubServer:
    """Serves `files` (bytes by `{repo}/resolve/{revision}/{name}`) while it is used in a `with`."""

    def __init__(self, files: Mapping[str, bytes], *, large: bool = True) -> None:
        self.files = dict(files)
        self.large = large
        """Whether the files are in the store and the hub redirects to it, as it does for all but small ones."""
        self.ranges = True
        """Whether a body can be had from some byte on."""
        self.refusal_headers: dict[str, str] = {}
        """What an answer with an error says besides."""
        self.requests: list[Request] = []
        self.stalled = threading.Event()
        self.ended = threading.Event()
        self._faults: dict[str, list[list[Any]]] = {"HEAD": [], "GET": []}
        self._hub = self._serve(_Hub)
        self._store = self._serve(_Store)
        self.endpoint = self._address(self._hub)
        self.store = self._address(self._store).replace("127.0.0.1", "localhost")  # another host, as the hub's is

    def fail(self, method: str, fault: int | str, times: int = ALWAYS) -> None:
        """Answer so many of the next requests with a status of HTTP or one of the faults above.

        GET stands for the requests for a body, which the store answers for large files.
        """
        self._faults[method].append([fault, times])

    def next_fault(self, method: str) -> int | str | None:
        """Return the fault that is due, and count it."""
        for fault in self._faults[method]:
            if fault[1]:
                fault[1] -= 1
                due: int | str = fault[0]
                return due
        return None

    def asked(self, method: str) -> list[str]:
        """Return the paths asked for with this method, in order; with GET where a body was due."""
        return [request.path for request in self.requests if request.method == method]

    def _serve(self, kind: type[_Handler]) -> ThreadingHTTPServer:
        server = ThreadingHTTPServer(("127.0.0.1", 0), type(kind.__name__, (kind,), {"hub": self}))
        server.daemon_threads = True
        return server

    @staticmethod
    def _address(server: ThreadingHTTPServer) -> str:
        return f"http://127.0.0.1:{server.server_address[1]}"

    def __enter__(self) -> Self:
        for server in (self._hub, self._store):
            threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self.ended.set()
        for server in (self._hub, self._store):
            server.shutdown()
            server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    hub: HubServer

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests look at standard error."""

    def note(self) -> int:
        """Write the request down. Returns the first byte it asks for."""
        start = int(self.headers.get("Range", "bytes=0-").removeprefix("bytes=").split("-")[0])
        redirect = " redirect" * (self.command == "GET" and self.hub.large and "/resolve/" in self.path)
        self.hub.requests.append(Request(self.command + redirect, self.path, start, self.headers.get("Authorization")))
        return start

    def refuse(self, status: int, code: str = "") -> None:
        """Answer with an error, and with the hub's own word for it."""
        self.send_response(status)
        if code:
            self.send_header("X-Error-Code", code)
        for name, value in self.hub.refusal_headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def refused(self, fault: int | str | None) -> bool:
        """Answer with the fault if it leaves no body to send."""
        if isinstance(fault, int):
            self.refuse(fault, {404: "EntryNotFound", 401: "RepoNotFound"}.get(fault, ""))
        elif fault == CLOSE:
            self.close_connection = True
        elif fault == STALL and self.command == "HEAD":
            self.hub.ended.wait()
            self.close_connection = True
        elif fault == CIRCLE:
            self.send_response(302)
            self.send_header("Location", self.path)
            self.send_header("Content-Length", "0")
            self.end_headers()
        return isinstance(fault, int) or fault in (CLOSE, CIRCLE) or (fault == STALL and self.command == "HEAD")

    def send_file(self, body: bytes, start: int, fault: int | str | None) -> None:
        """Send the body from `start` on, or as much as the fault lets through."""
        if fault == WRONG:
            body = bytes(255 - byte for byte in body)
        if fault == LONG:
            body += body
        if fault == BEHIND:
            start //= 2
        rest = body[start:] if self.hub.ranges else body
        sent = rest[: len(rest) // 2] if fault in (CUT, SHORT, STALL, RESET) else rest
        self.send_response(206 if len(rest) < len(body) else 200)
        if len(rest) < len(body):
            self.send_header("Content-Range", f"bytes {start}-{len(body) - 1}/{len(body)}")
        if fault != LONG:
            self.send_header("Content-Length", str(len(sent if fault == SHORT else rest)))
        self.end_headers()
        self.wfile.write(sent)
        if fault == STALL:
            self.hub.stalled.set()
            self.hub.ended.wait()
        if fault == RESET:
            self._reset()
        self.close_connection = fault in (CUT, STALL, RESET, LONG)

    def _reset(self) -> None:
        self.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
        os.close(self.connection.detach())


class _Hub(_Handler):
    """What stands at the hub's address: metadata, and a redirect to the store for large files."""

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        if self.path.startswith("/api/datasets/"):
            self._list()
            return
        key = self.path.removeprefix("/datasets/").removeprefix("/")  # a model has no such prefix
        if "/resolve/" not in key:  # the client also asks the hub about other things, for itself
            self.refuse(404)
            return
        start = self.note()
        body = self.hub.files.get(key)
        fault = None if self.command == "GET" and self.hub.large else self.hub.next_fault(self.command)
        if self.refused(fault):
            return
        if body is None:
            self.refuse(404, "EntryNotFound")
        elif self.command == "GET" and not self.hub.large:
            self.send_file(body, start, fault)
        else:
            self._describe(key, body, fault)

    def _list(self) -> None:
        """Say that a revision is there, or which files it has in a folder and below, as HfFileSystem asks."""
        path = self.path.removeprefix("/api/datasets/").partition("?")[0]
        answer: Any = {"id": path.partition("/revision/")[0], "sha": path.rpartition("/")[2]}
        if "/tree/" in path:
            repo, _, (revision, *below) = *path.partition("/tree/")[:2], path.partition("/tree/")[2].split("/")
            root, answer = f"{repo}/resolve/{revision}/", []
            files = {key.removeprefix(root): body for key, body in self.hub.files.items() if key.startswith(root)}
            folders = {"/".join(name.split("/")[:-1]) for name in files} - {""}
            answer += [{"type": "directory", "path": name, "oid": "0" * 40} for name in folders]
            for name, body in files.items():
                oid = hashlib.sha256(body).hexdigest()
                lfs = {"oid": oid, "size": len(body), "pointerSize": 100}
                answer.append({"type": "file", "path": name, "size": len(body), "oid": oid[:40], "lfs": lfs})
            inside = "/".join(below)
            deep = "recursive=True" in self.path
            answer = [one for one in answer if one["path"].startswith(f"{inside}/" if inside else "")]
            answer = [one for one in answer if deep or "/" not in one["path"][len(inside) :].strip("/")]
        body = json.dumps(answer).encode()
        self.send_response(200)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def _describe(self, key: str, body: bytes, fault: int | str | None) -> None:
        """Send the headers that describe a file, and the way to the store if it is there."""
        sha256 = hashlib.sha256(body).hexdigest()
        self.send_response(302 if self.hub.large else 200)
        if fault != NO_HUB:
            self.send_header("X-Repo-Commit", "f" * 40 if fault == MOVED else key.split("/resolve/")[1].split("/")[0])
        self.send_header("ETag", f'"{sha256[:40]}"')
        if self.hub.large:
            self.send_header("Location", f"{self.hub.store}/{sha256}")
            self.send_header("X-Linked-Etag", f'"{sha256[:40] if fault == SILENT_HASH else sha256}"')
            self.send_header("Content-Length", "0")
        if fault != SILENT_SIZE:
            self.send_header("X-Linked-Size" if self.hub.large else "Content-Length", str(len(body)))
        self.end_headers()


class _Store(_Handler):
    """The bodies of large files, by their SHA-256."""

    def do_GET(self) -> None:
        start = self.note()
        fault = self.hub.next_fault("GET")
        if self.refused(fault):
            return
        bodies = {hashlib.sha256(body).hexdigest(): body for body in self.hub.files.values()}
        body = bodies.get(self.path.removeprefix("/"))
        if body is None:
            self.refuse(404)
        else:
            self.send_file(body, start, fault)
