import asyncio
import json
from collections.abc import Callable, Coroutine
from typing import TypeVar

import httpx
import pytest

from clustersession.config import Address
from clustersession.errors import ConfigError
from clustersession.node import admin
from clustersession.node.admin import AdminListener, Sources

T = TypeVar("T")
LOOPBACK = Address(host="127.0.0.1", port=0)
EVERYWHERE = Address(host="0.0.0.0", port=0)
TOKEN = "t" * 24


async def explained(key: bytes) -> bytes:
    return json.dumps({"asked about": key.hex()}).encode()


async def examined() -> bytes:
    return b'{"asked": "a"}'


ordered: list[tuple[str, int]] = []


def sources(*, ready: bool = True) -> Sources:
    return Sources(
        status=lambda: {"node": "a", "members": []},
        ready=lambda: (ready, "ready" if ready else "in the first sync"),
        counters=lambda: {"loads_total": 3},
        drain=lambda: None,
        explain=explained,
        doctor=examined,
        switch=lambda mode, percent: ordered.append((mode, percent)),
    )


def with_listener(
    talk: Callable[[Address], Coroutine[None, None, T]],
    *,
    where: Address = LOOPBACK,
    token: str | None = None,
    ready: bool = True,
) -> T:
    """What `talk` gives, with a listener that runs meanwhile."""

    async def run() -> T:
        listener = AdminListener(where, token, sources(ready=ready))
        address = await listener.start()
        try:
            return await talk(Address(host="127.0.0.1", port=address.port))
        finally:
            await listener.close()

    return asyncio.run(run())


def answer(
    path: str,
    *,
    method: str = "GET",
    sent: str | None = None,
    where: Address = LOOPBACK,
    token: str | None = None,
    ready: bool = True,
) -> httpx.Response:
    async def ask(address: Address) -> httpx.Response:
        async with httpx.AsyncClient(trust_env=False) as client:
            return await client.request(
                method, f"http://{address}{path}", headers={} if sent is None else {"Authorization": sent}
            )

    return with_listener(ask, where=where, token=token, ready=ready)


def raw(data: bytes) -> bytes:
    """What comes back for these very bytes, until the listener hangs up."""

    async def ask(address: Address) -> bytes:
        reader, writer = await asyncio.open_connection(address.host, address.port)
        writer.write(data)
        async with asyncio.timeout(10):
            found = await reader.read()
        writer.close()
        return found

    return with_listener(ask)


def test_it_says_that_it_lives() -> None:
    """/healthz answers as soon as the process serves."""
    assert (answer("/healthz").status_code, answer("/healthz").text) == (200, "ok\n")


@pytest.mark.parametrize(("ready", "status", "text"), [(True, 200, "ready\n"), (False, 503, "in the first sync\n")])
def test_readiness_comes_with_its_reason(ready: bool, status: int, text: str) -> None:
    """/readyz is 200 or 503, and says why."""
    found = answer("/readyz", ready=ready)
    assert (found.status_code, found.text) == (status, text)


def test_counters_are_shown_as_metrics() -> None:
    """/metrics has the counters and whether the node is ready, as Prometheus reads them."""
    found = answer("/metrics", ready=False)
    assert found.headers["content-type"] == "text/plain; version=0.0.4; charset=utf-8"
    assert "clustersession_loads_total 3\n" in found.text
    assert "clustersession_ready 0\n" in found.text


def test_the_status_is_json() -> None:
    """/status is what the node says of itself; a query string changes nothing, and nobody may keep it."""
    found = answer("/status?x=1")
    assert found.json() == {"node": "a", "members": []}
    assert found.headers["cache-control"] == "no-store"


def test_a_session_is_explained_by_its_handle() -> None:
    """/explain/HANDLE hands the session's key to the node, which may take its time to ask others."""
    handle = "0a" * 16
    assert answer(f"/explain/{handle}").json() == {"asked about": handle}


@pytest.mark.parametrize("handle", ["", "0a" * 15, "0A" * 16, "0g" * 16, "0a" * 16 + "/", "%30a" + "0a" * 15])
def test_what_is_no_handle_is_refused(handle: str) -> None:
    """There is one spelling of a handle; anything else is a 400 that says so, and nobody is asked."""
    found = answer(f"/explain/{handle}")
    assert (found.status_code, "32 digits" in found.text) == (400, True)


def test_other_paths_and_methods_are_refused() -> None:
    """Only what is there is served, and only read."""
    assert answer("/sessions").status_code == 404
    assert answer("/status", method="POST").status_code == 405


@pytest.mark.parametrize("path", ["/healthz", "/readyz", "/metrics", "/status", f"/explain/{'0a' * 16}", "/nothing"])
def test_beyond_loopback_each_request_needs_the_token(path: str) -> None:
    """On an address that others reach, nothing at all is said without the bearer token."""
    assert answer(path, where=EVERYWHERE, token=TOKEN).status_code == 401
    assert answer(path, where=EVERYWHERE, token=TOKEN, sent=f"Bearer {TOKEN}x").status_code == 401
    assert answer(path, where=EVERYWHERE, token=TOKEN, sent=f"Basic {TOKEN}").status_code == 401
    assert answer(path, where=EVERYWHERE, token=TOKEN, sent=f"bearer {TOKEN}").status_code in (200, 404)


def test_beyond_loopback_it_does_not_start_without_a_token() -> None:
    """An open control listener for the whole network is refused, with the setting that is missing."""
    with pytest.raises(ConfigError) as caught:
        answer("/healthz", where=EVERYWHERE)
    assert caught.value.setting == "CLUSTERSESSION_ADMIN_TOKEN"


def test_a_port_in_use_is_said_with_the_setting() -> None:
    """Two nodes with one control port: the second one says which setting to change."""

    async def second(address: Address) -> None:
        await AdminListener(address, None, sources()).start()

    with pytest.raises(ConfigError, match="CLUSTERSESSION_ADMIN_LISTEN: cannot listen on 127.0.0.1"):
        with_listener(second)


@pytest.mark.parametrize(
    "data",
    [b"\x16\x03\x01\x00\x00\r\n\r\n", b"GET /" + b"a" * 20_000, b"GET /status HTTP/1.1\r\nX: " + b"a" * 20_000, b"HELO a\r\n"],
    ids=["tls", "long path", "long header", "smtp"],
)
def test_what_is_no_request_is_answered_and_cut(data: bytes) -> None:
    """Rubbish and endless requests get a 400 and no more."""
    assert raw(data).startswith(b"HTTP/1.1 400 Bad Request\r\n")


def test_an_upgrade_is_not_taken() -> None:
    """A client that wants another protocol is answered in this one."""
    assert raw(b"GET /healthz HTTP/1.1\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").startswith(b"HTTP/1.1 ")


def test_a_silent_client_is_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """A client that sends nothing keeps its connection only for the time of one request."""
    monkeypatch.setattr(admin, "REQUEST_S_MAX", 0.05)
    assert raw(b"") == b""


def test_a_silent_client_does_not_hold_up_the_end() -> None:
    """Closing the listener cuts what is still connected."""

    async def run() -> bytes:
        listener = AdminListener(LOOPBACK, None, sources())
        address = await listener.start()
        reader, writer = await asyncio.open_connection(address.host, address.port)
        async with asyncio.timeout(4):  # less than a silent client may stay
            await listener.close()
            found = await reader.read()
        writer.close()
        return found

    assert asyncio.run(run()) == b""


def test_the_mode_is_switched_by_a_post() -> None:
    """With the per cent of the sessions; what is no mode, or no per cent, changes nothing."""
    ordered.clear()
    done = answer("/mode/mirror/25", method="POST")
    assert done.status_code == 202
    assert "switched to mirror, 25 per cent" in done.text
    for wrong in (
        "/mode/dev/100",
        "/mode/on/101",
        "/mode/on",
        "/mode/on/x",
        "/mode/",
        f"/mode/on/{'1' * 5000}",
        "/mode/on/%C2%B2",
    ):
        assert answer(wrong, method="POST").status_code == 400
    assert answer("/mode/on/100").status_code == 404
    assert ordered == [("mirror", 25)]
