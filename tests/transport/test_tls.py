"""TLS between nodes: both sides show a certificate of their own authority, or there is no connection."""

from __future__ import annotations

import asyncio
import socket
import ssl
from datetime import UTC, datetime, timedelta
from pathlib import Path
from time import monotonic
from typing import Any

import pytest
import trustme

from clustersession.config import Timeouts, TlsConfig
from clustersession.core.calls import Applied, Reply, Unreachable
from clustersession.core.node import Member
from clustersession.errors import ConfigError
from clustersession.ports import Outgoing
from clustersession.transport.asynchronous import AsyncioTransport
from clustersession.transport.blocking import BlockingTransport
from clustersession.transport.tls import certified, client_context, server_context
from clustersession.transport.wiring import Wiring
from tests.transport.kit import ServerThread, events, eventually, patch, serving, tls_files, until_closed, wiring

APPLIED = Applied(1, 2, ("b", "a"))


@pytest.fixture
def authority() -> trustme.CA:
    return trustme.CA()


@pytest.fixture(params=[BlockingTransport, AsyncioTransport])
def kind(request: pytest.FixtureRequest) -> type[BlockingTransport | AsyncioTransport]:
    found: type[BlockingTransport | AsyncioTransport] = request.param
    return found


def asked(kind: Any, wired: Wiring, server: ServerThread, host: str = "127.0.0.1", size: int = 100) -> list[Reply]:
    """Two calls by a transport of this kind, the second on the connection of the first."""
    member = Member("b", host, server.address.port, 7)

    async def on_loop() -> list[Reply]:
        transport = AsyncioTransport(wired)
        replies = [await transport.ask(member, patch(number, size), monotonic() + 10.0) for number in range(2)]
        await transport.close()
        return replies

    if kind is AsyncioTransport:
        return asyncio.run(on_loop())
    transport = BlockingTransport(wired)
    try:
        return [transport.ask(member, patch(number, size), monotonic() + 10.0) for number in range(2)]
    finally:
        transport.close()


@pytest.mark.parametrize("names", [("a", "b"), ("127.0.0.1", "127.0.0.1")], ids=["identity", "address"])
def test_peers_with_certificates_of_their_authority_talk(
    kind: Any, authority: trustme.CA, tmp_path: Path, names: tuple[str, str]
) -> None:
    """By identity or by address, small calls and large ones."""
    caller = wiring("a", tls=tls_files(tmp_path / "a", authority, names[0]))
    with serving(wiring("b", tls=tls_files(tmp_path / "b", authority, names[1]))) as server:
        assert asked(kind, caller, server) == [APPLIED] * 2
        assert asked(kind, caller, server, size=2_000_000) == [APPLIED] * 2
        assert server.events == {}
    assert events(caller) == {}


def test_a_hedge_works_over_tls(authority: trustme.CA, tmp_path: Path) -> None:
    """Several handshakes at once in one thread."""
    transport = BlockingTransport(wiring("a", tls=tls_files(tmp_path / "a", authority, "a")))
    with (
        serving(wiring("b", tls=tls_files(tmp_path / "b", authority, "b"))) as one,
        serving(wiring("c", tls=tls_files(tmp_path / "c", authority, "c"))) as other,
    ):
        batch = [Outgoing(server.member, patch(1)) for server in (one, other)]
        assert transport.exchange(batch, monotonic() + 10.0) == [APPLIED, APPLIED]
        transport.close()


def expired(authority: trustme.CA, directory: Path, name: str) -> TlsConfig:
    return tls_files(directory, authority, name, not_after=datetime.now(UTC) - timedelta(days=1))


@pytest.mark.parametrize("which", ["authority", "expired", "name"])
@pytest.mark.parametrize("side", ["caller", "server"])
def test_a_certificate_that_is_not_in_order_ends_the_connection(
    kind: Any, authority: trustme.CA, tmp_path: Path, which: str, side: str
) -> None:
    """Another authority, expired, another node's name: whichever side has it, no call is made, and it is counted."""

    def files(identity: str, *, bad: bool) -> TlsConfig:
        directory = tmp_path / identity
        if bad and which == "expired":
            return expired(authority, directory, identity)
        if bad and which == "authority":
            stranger = tls_files(directory, trustme.CA(), identity)
            return TlsConfig(cert=stranger.cert, key=stranger.key, ca=tls_files(tmp_path / "ours", authority, "x").ca)
        return tls_files(directory, authority, "somebody.example" if bad else identity)

    caller = wiring("a", tls=files("a", bad=side == "caller"))
    with serving(wiring("b", tls=files("b", bad=side == "server"))) as server:
        assert asked(kind, caller, server) == [Unreachable("auth")] * 2
        if side == "caller":
            eventually(lambda: server.events["peer.tls"] + server.events["peer.rejected"] == 2)
        else:
            assert events(caller)["peer.tls"] == 2
        eventually(lambda: server.server.connections == 0)


def test_a_client_without_a_certificate_is_not_let_in(authority: trustme.CA, tmp_path: Path) -> None:
    """It trusts the server, and has nothing to show."""
    context = ssl.create_default_context(cafile=tls_files(tmp_path / "a", authority, "a").ca)
    context.check_hostname = False
    with serving(wiring("b", tls=tls_files(tmp_path / "b", authority, "b"))) as server:
        with socket.create_connection((server.address.host, server.address.port)) as sock:
            assert _said_to(context, sock) == b""
        eventually(lambda: server.events["peer.tls"] == 1)


def _said_to(context: ssl.SSLContext, sock: socket.socket) -> bytes:
    try:
        with context.wrap_socket(sock) as secure:
            secure.sendall(b"POST /v1/hello")
            return secure.recv(1)
    except OSError:
        return b""


def test_plain_text_is_not_spoken_with_a_server_that_has_tls(kind: Any, authority: trustme.CA, tmp_path: Path) -> None:
    """There is no fall-back: the connection is closed, and it is counted."""
    with serving(wiring("b", tls=tls_files(tmp_path / "b", authority, "b"))) as server:
        replies = asked(kind, wiring("a"), server)
        assert set(replies) <= {Unreachable("refused"), Unreachable("garbage")}
        eventually(lambda: server.events["peer.tls"] == 2)


def test_tls_is_not_given_up_for_a_server_that_has_none(kind: Any, authority: trustme.CA, tmp_path: Path) -> None:
    """There is no fall-back on this side either."""
    caller = wiring("a", tls=tls_files(tmp_path / "a", authority, "a"))
    with serving() as server:
        assert asked(kind, caller, server) == [Unreachable("auth")] * 2
        assert server.events["peer.rejected"] == 2


def test_an_old_version_of_tls_is_refused(authority: trustme.CA, tmp_path: Path) -> None:
    """TLS 1.2 is the oldest."""
    files = tls_files(tmp_path / "a", authority, "a")
    assert client_context(files).minimum_version is ssl.TLSVersion.TLSv1_2
    assert server_context(files).minimum_version is ssl.TLSVersion.TLSv1_2
    assert server_context(files).verify_mode is ssl.CERT_REQUIRED


def test_a_handshake_that_stands_still_is_dropped(authority: trustme.CA, tmp_path: Path) -> None:
    """Sockets that say nothing, or only the beginning of a handshake, cost the header time-out and no more."""
    wired = wiring("b", tls=tls_files(tmp_path / "b", authority, "b"), timeouts=Timeouts(header_s=0.2))
    with serving(wired) as server:
        with socket.create_connection((server.address.host, server.address.port)) as sock:
            sock.sendall(b"\x16\x03\x01\x02\x00")
            assert until_closed(sock) == b""
        eventually(lambda: server.server.connections == 0)
        assert server.events["peer.slow"] == 1


def test_idle_sockets_keep_nobody_out_of_tls(authority: trustme.CA, tmp_path: Path) -> None:
    """The bound on newcomers holds before the handshake too."""
    caller = wiring("a", tls=tls_files(tmp_path / "a", authority, "a"))
    with serving(wiring("b", tls=tls_files(tmp_path / "b", authority, "b"))) as server:
        idle = [socket.create_connection((server.address.host, server.address.port)) for _ in range(300)]
        assert asked(BlockingTransport, caller, server) == [APPLIED] * 2
        for sock in idle:
            sock.close()
        assert server.events["peer.crowded_out"] > 100


@pytest.mark.parametrize(
    ("names", "identity", "host", "belongs"),
    [
        ([("DNS", "b")], "b", "10.0.0.1", True),
        ([("DNS", "B")], "b", "10.0.0.1", True),
        ([("DNS", "x"), ("DNS", "node.example")], "b", "node.example", True),
        ([("IP Address", "10.0.0.1")], "b", "10.0.0.1", True),
        ([("IP Address", "10.0.0.1")], "", "::ffff:10.0.0.1", True),
        ([("IP Address", "FE80:0:0:0:0:0:0:1")], "b", "fe80::1%eth0", True),
        ([("DNS", "10.0.0.1")], "b", "10.0.0.1", False),
        ([("DNS", "*")], "b", "10.0.0.1", False),
        ([("DNS", "bb")], "b", "10.0.0.1", False),
        ([("DNS", "")], "", "10.0.0.1", False),
        ([("URI", "b")], "b", "10.0.0.1", False),
        ([], "b", "10.0.0.1", False),
    ],
)
def test_whom_a_certificate_belongs_to(names: list[tuple[str, str]], identity: str, host: str, belongs: bool) -> None:
    """Identity or host as a DNS name, or the address; equal, never by pattern."""
    assert certified({"subjectAltName": tuple(names)}, identity, host) is belongs


def test_without_a_certificate_nobody_is_certified() -> None:
    """As the TLS library gives it for a peer that showed none."""
    assert not certified(None, "b", "10.0.0.1")
    assert not certified({}, "b", "10.0.0.1")


@pytest.mark.parametrize(("missing", "setting"), [("cert", "CLUSTERSESSION_TLS_CERT"), ("ca", "CLUSTERSESSION_TLS_CA")])
def test_a_file_that_cannot_be_read_is_named(authority: trustme.CA, tmp_path: Path, missing: str, setting: str) -> None:
    """The error says which setting, what is wrong, and what to do."""
    files = tls_files(tmp_path / "a", authority, "a")
    paths = {"cert": files.cert, "key": files.key, "ca": files.ca} | {missing: str(tmp_path / "nowhere.pem")}
    with pytest.raises(ConfigError, match="PEM file") as caught:
        client_context(TlsConfig(**paths))
    assert caught.value.setting == setting
