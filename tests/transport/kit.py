"""What the tests of the talk between nodes share: nodes that are wired up, servers in threads, and peers that misbehave."""

from __future__ import annotations

import asyncio
import os
import socket
import subprocess
import sys
import threading
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator
from contextlib import closing, contextmanager
from pathlib import Path
from time import monotonic, sleep
from typing import Any, TypeVar

from clustersession.config import Address, Limits, Timeouts, TlsConfig
from clustersession.core.calls import Applied, Apply, Call, Fetch, Found, Reply
from clustersession.core.keyring import KeyRing
from clustersession.core.node import Member
from clustersession.core.record import Patch, Record, Stamp
from clustersession.transport.link import Handler
from clustersession.transport.server import PeerServer
from clustersession.transport.wiring import Wiring

T = TypeVar("T")

RING = KeyRing.parse("1:v8Jq2mN5xR7tB1kZ4wP9cL3dF6hG0sYa")
OTHER_RING = KeyRing.parse("1:Hs7Dk2Lq9Wm4Xz1Vb6Nc3Pf8Rt5Yj0Gu")  # the same number, another secret
KEY = b"k" * 16
DONE_IN_S = 10.0  # for what happens at once, on a machine that is busy


class SystemEntropy:
    def bytes(self, count: int) -> bytes:
        return os.urandom(count)


class Events(Counter[str]):
    """An `Observer` that remembers."""

    def count(self, event: str, by: int = 1) -> None:
        self[event] += by


def wiring(identity: str, **changes: Any) -> Wiring:
    """A node of the tests' cluster, its time-outs long enough for a busy machine unless the test is about them."""
    fields: dict[str, Any] = {
        "me": lambda: Member(identity, "127.0.0.1", 1, 7),
        "ring": lambda: RING,
        "cluster": "tests",
        "limits": Limits(),
        "timeouts": Timeouts(connect_s=2.0, request_s=5.0, stale_request_s=5.0),
        "clock": monotonic,
        "entropy": SystemEntropy(),
        "observer": Events(),
    }
    return Wiring(**(fields | changes))


def events(wired: Wiring) -> Events:
    assert isinstance(wired.observer, Events)
    return wired.observer


def fetch() -> Fetch:
    return Fetch(KEY, 0.0)


def patch(number: int = 1, size: int = 100) -> Apply:
    return Apply(KEY, 1, Patch(number.to_bytes(8), {"cart": b"x" * size}))


def record(size: int = 100) -> Record:
    return Record(1, 2, ("b", "a"), {"cart": (Stamp(1, 2, "b"), b"x" * size)})


def answer(call: Call, peer: str) -> Reply:
    """A handler that has one session."""
    return Found(record(), serving=True) if isinstance(call, Fetch) else Applied(1, 2, ("b", "a"))


def eventually(condition: Callable[[], object], within_s: float = DONE_IN_S) -> None:
    """Wait until it holds, or fail."""
    deadline = monotonic() + within_s
    while not condition():
        assert monotonic() < deadline, "what was waited for did not happen"
        sleep(0.005)


class ServerThread:
    """A `PeerServer` on an event loop in a thread of its own."""

    def __init__(self, wired: Wiring, handler: Handler = answer, port: int = 0) -> None:
        self.wiring = wired
        self._port = port
        self._handler = handler
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._live, name=f"server {wired.me().identity}")
        self._thread.start()
        self.server = self.run(self._started())
        self.stopped = False

    async def _started(self) -> PeerServer:
        server = PeerServer(self._handler, self.wiring)
        self.address = await server.start(Address(host="127.0.0.1", port=self._port))
        return server

    @property
    def member(self) -> Member:
        me = self.wiring.me()
        return Member(me.identity, self.address.host, self.address.port, me.incarnation)

    @property
    def events(self) -> Events:
        return events(self.wiring)

    def run(self, coroutine: Coroutine[Any, Any, T]) -> T:
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(DONE_IN_S)

    def stop(self) -> None:
        if self.stopped:
            return
        self.stopped = True
        try:
            self.run(self.server.stop())
        finally:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(DONE_IN_S)

    def _live(self) -> None:
        self._loop.run_forever()
        self._loop.run_until_complete(self._loop.shutdown_asyncgens())
        self._loop.close()


@contextmanager
def serving(wired: Wiring | None = None, handler: Handler = answer, port: int = 0) -> Iterator[ServerThread]:
    """A node "b" that serves, unless another one is given."""
    server = ServerThread(wired or wiring("b"), handler, port)
    try:
        yield server
    finally:
        server.stop()


@contextmanager
def rogue(behaviour: Callable[[socket.socket], object]) -> Iterator[Member]:
    """A peer that calls itself "b" and does with each connection what `behaviour` says, in a thread for each."""
    listener = socket.create_server(("127.0.0.1", 0))
    accepted: list[socket.socket] = []
    threads: list[threading.Thread] = []

    def serve() -> None:
        while True:
            try:
                sock, _ = listener.accept()
            except OSError:
                return
            accepted.append(sock)
            thread = threading.Thread(target=behave, args=(sock,))
            threads.append(thread)
            thread.start()

    def behave(sock: socket.socket) -> None:
        try:
            behaviour(sock)
        except OSError:
            pass  # the client or the test has closed it
        finally:
            sock.close()

    accepting = threading.Thread(target=serve)
    accepting.start()
    try:
        yield Member("b", "127.0.0.1", listener.getsockname()[1], 7)
    finally:
        listener.shutdown(socket.SHUT_RDWR)
        listener.close()
        for sock in accepted:
            with closing(sock):
                quietly_shut(sock)
        for thread in (accepting, *threads):
            thread.join(DONE_IN_S)
            assert not thread.is_alive()


def quietly_shut(sock: socket.socket) -> None:
    try:
        sock.shutdown(socket.SHUT_RDWR)
    except OSError:
        return  # closed already


def until_closed(sock: socket.socket) -> bytes:
    """Everything that comes until the other side closes."""
    pieces = []
    sock.settimeout(DONE_IN_S)
    try:
        while piece := sock.recv(65536):
            pieces.append(piece)
    except ConnectionResetError:
        pass
    return b"".join(pieces)


class Proxy:
    """Stands between a client and a server, remembers what passes, and may change what goes back and forth."""

    def __init__(self, target: Member) -> None:
        self.target = target
        self.upstream: list[bytes] = []
        self.downstream: list[bytes] = []
        self.change_request: Callable[[bytes], bytes] = lambda data: data
        self.change_reply: Callable[[bytes], bytes] = lambda data: data

    def __call__(self, sock: socket.socket) -> None:
        with socket.create_connection((self.target.host, self.target.port)) as onward:
            down = threading.Thread(target=self._pass, args=(onward, sock, self.downstream, "change_reply"))
            down.start()
            self._pass(sock, onward, self.upstream, "change_request")
            down.join(DONE_IN_S)

    def _pass(self, source: socket.socket, target: socket.socket, log: list[bytes], change: str) -> None:
        try:
            while data := source.recv(65536):
                log.append(data)
                target.sendall(getattr(self, change)(data))
        except OSError:
            pass  # one side has closed
        quietly_shut(target)
        quietly_shut(source)


@contextmanager
def peer_process(port: int = 0, identity: str = "b", incarnation: int = 7) -> Iterator[tuple[subprocess.Popen[str], Member]]:
    """A node in a process of its own, for kill and SIGSTOP."""
    command = [sys.executable, "-m", "tests.transport.peer_process", identity, str(port), str(incarnation)]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, cwd=Path(__file__).parents[2])
    try:
        assert process.stdout is not None
        yield process, Member(identity, "127.0.0.1", int(process.stdout.readline()), incarnation)
    finally:
        process.kill()
        process.communicate(timeout=DONE_IN_S)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def tls_files(directory: Path, authority: Any, *names: str, **more: Any) -> TlsConfig:
    """A certificate for `names` of a trustme authority, as files."""
    directory.mkdir(parents=True, exist_ok=True)
    issued = authority.issue_cert(*names, **more)
    cert, key, ca = directory / "cert.pem", directory / "key.pem", directory / "ca.pem"
    issued.cert_chain_pems[0].write_to_path(str(cert))
    issued.private_key_pem.write_to_path(str(key))
    authority.cert_pem.write_to_path(str(ca))
    return TlsConfig(cert=str(cert), key=str(key), ca=str(ca))
