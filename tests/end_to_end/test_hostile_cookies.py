"""Cookies that nobody issued, on a running host: no session, no cookie back, nothing stored, nobody called, nothing logged."""

from __future__ import annotations

import random
import secrets
import socket
import statistics
import time
from collections.abc import Iterator

import psutil
import pytest

from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import IdContext, encode, node_tag
from clustersession.settings import new_key

from .browser import Browser, send
from .cluster import SECRET, Cluster, Host, session_of
from .conftest import NewCluster
from .servers import FLASK, STARLETTE, gunicorn, uvicorn

HEADER_BYTES = 60_000
ANSWERED_S = 0.1
UNAVAILABLE = 503
SEED = 3
SERVERS = {
    "flask": lambda host: gunicorn(FLASK, host.app, "--limit-request-field_size", "70000", workers=1),
    "starlette": lambda host: uvicorn(STARLETTE, host.app, "--h11-max-incomplete-event-size", "200000"),
}


def forged(
    *, secret: str = SECRET, cluster: str = "default", name: str = "cs", master: str = "n1", port: int = 1, minutes: int = 0
) -> str:
    """An ID that is perfect in its form, made with `secret` for `cluster` and cookie `name` so many `minutes` ago."""
    key = KeyRing.parse(secret).signing
    return encode(
        token=secrets.token_bytes(16),
        born=int(time.time()) // 60 - minutes,
        master=node_tag(key, master, port),
        backup=None,
        epoch=1,
        version=1,
        key=key,
        context=IdContext(cluster, name),
    )


def with_bit_flipped(text: str, rng: random.Random) -> str:
    """Printable still: what is not, the servers refuse by themselves."""
    place = rng.randrange(len(text))
    flipped = [chr(ord(text[place]) ^ 1 << bit) for bit in range(7)]
    return text[:place] + rng.choice([each for each in flipped if each.isprintable()]) + text[place + 1 :]


def hostile(real: str, peer: Host) -> dict[str, list[str]]:
    """Cookie fields by what is wrong with them. None of them may cost a call to `peer`, whom some of them name."""
    rng = random.Random(SEED)
    whole = f"cs={real}"
    other = forged(master=peer.name, port=peer.peer[1], secret=new_key(1))
    return {
        "another secret": [f"cs={other}"],
        "another secret, naming a peer, twice": [f"cs={other}; cs={other[::-1]}"],
        "another cluster": [f"cs={forged(cluster='other', master=peer.name, port=peer.peer[1])}"],
        "another cookie name": [f"cs={forged(name='__Host-cs', master=peer.name, port=peer.peer[1])}"],
        "an unknown key": [f"cs={forged(secret=new_key(9))}"],
        "random": [f"cs={secrets.token_hex(52)}a"],
        "empty": ["cs="],
        "upper case": [f"cs={real.upper()}"],
        "quoted": [f'cs="{real}"'],
        "percent": [f"cs={real.replace('-', '%2d')}"],
        "prefix of a name": [f"xcs={real}; cs.={real}; CS={real}"],
        "nothing but our name": ["cs"],
        "long value": [f"cs={real}{'0' * HEADER_BYTES}"],
        "long neighbour": [f"a={'x' * HEADER_BYTES}; cs={other}"],
        "many neighbours": ["; ".join(f"a{number}=1" for number in range(5000)) + f"; cs={other}"],
        "many of ours": ["; ".join([f"cs={other}"] * 500)],
        "four, one of them real": [f"{'; '.join(f'cs={forged(secret=new_key(1))}' for _ in range(3))}; {whole}"],
        "two real ones": [f"{whole}; cs={forged(master='n1')}"],
        "bytes that are no text": ["cs=\xff\xfe\x80" + real[3:]],
        **{f"cut at {place}": [whole[:place]] for place in (10, 60, len(whole) - 1)},
        **{f"bit {number}": [f"cs={with_bit_flipped(real, rng)}"] for number in range(60)},
    }


@pytest.fixture(scope="module", params=SERVERS)
def cluster(request: pytest.FixtureRequest, module_cluster: NewCluster) -> Iterator[Cluster]:
    """n1 serves the app and meets the cookies; the others take its backups."""
    with module_cluster(3) as made:
        made["n1"].run(SERVERS[request.param](made["n1"]))
        for host in made.others("n1"):
            host.run()
        made.await_whole()
        yield made
        assert made.complaints() == []


def calls_of_workers(host: Host) -> set[object]:
    """Connections that the app's own processes have opened: by process and address."""
    workers = [pid for pid in host.pids if pid not in host.nodes]
    found = ((pid, each) for pid in workers for each in psutil.Process(pid).net_connections(kind="inet"))
    return {(pid, each.raddr) for pid, each in found if each.status != psutil.CONN_LISTEN and each.laddr != host.app}


def test_hostile_cookies_are_no_session_and_cost_nothing(cluster: Cluster) -> None:
    """Whatever is wrong with them: 200 with an empty session, no Set-Cookie, no entry, no call to a peer, in no time."""
    home, peer = cluster["n1"], cluster["n2"]
    there = session_of(peer, cluster["n3"])
    assert calls_of_workers(home) == set()
    entries = cluster.entries()
    seconds = {}
    for what, fields in hostile(there.jar["cs"], peer).items():
        answer = send(home.app, "/look", fields)
        assert (answer.status, answer.items, answer.set_cookies) == (200, {}, []), what
        seconds[what] = answer.seconds
    assert calls_of_workers(home) == set(), "a cookie has opened a connection"
    assert cluster.entries() == entries
    slow = sorted(seconds.items(), key=lambda each: each[1])[-3:]
    print("slowest:", {what: f"{each * 1e3:.1f} ms" for what, each in slow})
    assert statistics.median(seconds.values()) <= ANSWERED_S
    assert home.look(there).items["cart"] == "apple"
    assert calls_of_workers(home) != set(), "this check sees no connections"


def test_a_duplicate_beside_a_valid_cookie_does_not_hide_it(cluster: Cluster) -> None:
    """Cookies that fail are passed over: a neighbour on another path must not log a user out."""
    home = cluster["n1"]
    browser = Browser()
    browser.get(home.app, "/set", _user_id="u")
    real, bad = f"cs={browser.jar['cs']}", f"cs={forged(secret=new_key(1))}"
    for field in (f"{bad}; {real}", f"{real}; {bad}", f'a="; {real}', f"{real}; {real}"):
        assert send(home.app, "/look", [field]).items == {"_user_id": "u"}, field


def test_an_id_with_a_valid_mac_that_names_nobody_contacts_nobody(cluster: Cluster) -> None:
    """Even with the cluster's own key: an address is never taken from an ID, and a search by members ends in no session. One
    that is not two minutes old may be of hosts that have just joined, so that is a 503."""
    home = cluster["n1"]
    entries = cluster.entries()
    with socket.create_server((cluster.address, 0)) as listener:
        listener.settimeout(0.5)
        port: int = listener.getsockname()[1]
        for master in (f"{cluster.address}:{port}", "evil", "n4"):
            answer = send(home.app, "/look", [f"cs={forged(master=master, port=port, minutes=3)}"])
            assert (answer.status, answer.items, answer.set_cookies) == (200, {}, [])
            assert send(home.app, "/look", [f"cs={forged(master=master, port=port)}"]).status == UNAVAILABLE
        with pytest.raises(TimeoutError):
            listener.accept()
    assert cluster.entries() == entries


def test_an_invented_session_of_the_host_itself_is_never_stored(cluster: Cluster) -> None:
    """A valid MAC does not make a session: reading finds nothing, and writing begins another one with an ID of its own."""
    home = cluster["n1"]
    text = forged(master="n1", port=home.peer[1])
    browser = Browser({"cs": text})
    entries = cluster.entries()
    assert browser.get(home.app, "/look").items == {}
    assert cluster.entries() == entries
    browser.get(home.app, "/set", cart="apple")
    assert browser.jar["cs"] != text
    assert browser.jar["cs"].rpartition("-")[2] != text.rpartition("-")[2]
    assert home.look(Browser({"cs": text})).items == {}
    assert browser.get(home.app, "/look").items == {"cart": "apple"}
