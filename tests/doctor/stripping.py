"""A proxy before an app host that drops Set-Cookie from every answer, as a cache with a wrong rule does."""

from __future__ import annotations

import http.client
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.end_to_end.cluster import free_port
from tests.end_to_end.servers import Address

PASSED = ("content-type", "vary")


@contextmanager
def stripping(target: Address) -> Iterator[tuple[Address, list[str]]]:
    """Where it listens, and the Set-Cookie values that it has dropped."""
    dropped: list[str] = []

    class Proxy(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            connection = http.client.HTTPConnection(*target, timeout=10)
            try:
                cookie = self.headers.get("Cookie")
                connection.request("GET", self.path, headers={"Cookie": cookie} if cookie else {})
                answer = connection.getresponse()
                body = answer.read()
            finally:
                connection.close()
            self.send_response(answer.status)
            for name, value in answer.getheaders():
                if name.lower() in PASSED:
                    self.send_header(name, value)
                elif name.lower() == "set-cookie":
                    dropped.append(value)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            """Nobody reads it."""

    server = ThreadingHTTPServer((target[0], free_port(target[0])), Proxy)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), name="stripping proxy")
    thread.start()
    try:
        yield (str(server.server_address[0]), int(server.server_address[1])), dropped
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
