"""A proxy on 127.0.0.1 for plain HTTP: it passes requests on, and may want a login."""

from __future__ import annotations

import http.client
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Self
from urllib.parse import urlsplit

from tests.support import HANG

NOT_PASSED_ON = {"connection", "proxy-connection", "proxy-authorization", "keep-alive", "transfer-encoding"}


class Proxy:
    """Passes requests on while it is used in a `with`; for `name`, which no other machine knows, to `address`."""

    def __init__(self, name: str, address: str, login: str | None = None) -> None:
        self.names = {name: urlsplit(address).netloc}
        self.login = login
        """The `Proxy-Authorization` that a request must carry."""
        self.asked: list[str] = []
        self._server = ThreadingHTTPServer(("127.0.0.1", 0), type("Handler", (_Handler,), {"proxy": self}))
        self._server.daemon_threads = True
        self.netloc = f"127.0.0.1:{self._server.server_address[1]}"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, args=(0.01,), daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._server.shutdown()
        self._server.server_close()


class _Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    proxy: Proxy

    def log_message(self, format: str, *args: Any) -> None:
        """Say nothing: the tests look at standard error."""

    def do_HEAD(self) -> None:
        self._pass_on()

    def do_GET(self) -> None:
        self._pass_on()

    def _pass_on(self) -> None:
        target = urlsplit(self.path)
        self.proxy.asked.append(target.netloc)
        if self.proxy.login is not None and self.headers.get("Proxy-Authorization") != self.proxy.login:
            self.send_response(407)
            self.send_header("Content-Length", "0")
            self.end_headers()
            return
        connection = http.client.HTTPConnection(self.proxy.names.get(target.netloc, target.netloc), timeout=HANG)
        headers = {name: value for name, value in self.headers.items() if name.lower() not in NOT_PASSED_ON}
        connection.request(self.command, target.path, headers=headers)
        answer = connection.getresponse()
        self.send_response(answer.status)
        for name, value in answer.getheaders():
            if name.lower() not in NOT_PASSED_ON:
                self.send_header(name, value)
        self.end_headers()
        self.wfile.write(answer.read())
        connection.close()
