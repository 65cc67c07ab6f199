"""Where the app hosts live: each in its own network namespace where that is allowed, else on addresses of the loopback.

With namespaces (root, `ip` and `nft`) a host has its own interface at a bridge in one more namespace, the hub, where the
balancer is. A host falls silent when nft drops every packet at its port of the bridge: the link stays up, nobody is
told, as with a dead switch. The machine's own network is not touched, and the names carry the demo's process id.
Without root the hosts share the loopback, and a host falls silent by stopping its processes.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import random
import shutil
import subprocess
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Protocol

from .processes import left_behind

_CLONE_NEWNET = 0x40000000
_PREFIX = "clustersession-demo-"
_SUBNET = "10.77.0"


class Network(Protocol):
    """What the cluster needs to know of either place."""

    addresses: dict[str, str]
    drops_packets: bool

    def wrap(self, host: str, command: Sequence[str]) -> list[str]:
        """`command` as it runs on `host`."""
        ...

    def silence(self, host: str) -> None:
        """From now on no packet leaves or reaches `host`."""
        ...

    def unsilence(self, host: str) -> int:
        """End it; returns how many packets were dropped."""
        ...

    def inside(self) -> contextlib.AbstractContextManager[None]:
        """What this thread opens and starts within can reach the hosts."""
        ...

    def close(self) -> None: ...


class Loopback:
    """Hosts on addresses of 127.0.0.0/8 chosen by chance, so that two demos do not meet."""

    drops_packets = False

    def __init__(self, names: Sequence[str]) -> None:
        net = f"127.{random.randint(16, 250)}.{random.randint(1, 250)}"
        self.addresses = {name: f"{net}.{number}" for number, name in enumerate(names, 1)}

    def wrap(self, host: str, command: Sequence[str]) -> list[str]:
        return list(command)

    def silence(self, host: str) -> None:
        raise OSError("packets can be dropped only where the demo has root and nft")

    def unsilence(self, host: str) -> int:
        raise OSError("packets can be dropped only where the demo has root and nft")

    def inside(self) -> contextlib.AbstractContextManager[None]:
        return contextlib.nullcontext()

    def close(self) -> None:
        pass


class Namespaces:
    """One network namespace a host and one for the bridge."""

    drops_packets = True

    def __init__(self, names: Sequence[str]) -> None:
        self._prefix = f"{_PREFIX}{os.getpid()}-"
        self._hub = self._prefix + "hub"
        self.addresses = {name: f"{_SUBNET}.{number}" for number, name in enumerate(names, 1)}
        try:
            self._build()
        except BaseException:
            self.close()
            raise

    def _build(self) -> None:
        _run("ip", "netns", "add", self._hub)
        _run("ip", "-n", self._hub, "link", "set", "lo", "up")
        _run("ip", "-n", self._hub, "link", "add", "bridge0", "type", "bridge")
        _run("ip", "-n", self._hub, "address", "add", f"{_SUBNET}.254/24", "dev", "bridge0")
        _run("ip", "-n", self._hub, "link", "set", "bridge0", "up")
        for name, address in self.addresses.items():
            space, port = self._prefix + name, _port(name)
            _run("ip", "netns", "add", space)
            _run("ip", "-n", self._hub, "link", "add", port, "type", "veth", "peer", "name", "uplink", "netns", space)
            _run("ip", "-n", self._hub, "link", "set", port, "master", "bridge0", "up")
            _run("ip", "-n", space, "address", "add", f"{address}/24", "dev", "uplink")
            _run("ip", "-n", space, "link", "set", "lo", "up")
            _run("ip", "-n", space, "link", "set", "uplink", "up")

    def wrap(self, host: str, command: Sequence[str]) -> list[str]:
        return ["ip", "netns", "exec", self._prefix + host, *command]

    def silence(self, host: str) -> None:
        rule = "type filter hook {hook} device " + f'"{_port(host)}" priority 0; counter drop;'
        chains = "".join(f"chain {hook} {{ {rule.format(hook=hook)} }}\n" for hook in ("ingress", "egress"))
        _run("ip", "netns", "exec", self._hub, "nft", "-f", "-", text=f"table netdev {_table(host)} {{\n{chains}}}\n")

    def unsilence(self, host: str) -> int:
        listed = _run("ip", "netns", "exec", self._hub, "nft", "-j", "list", "table", "netdev", _table(host))
        _run("ip", "netns", "exec", self._hub, "nft", "delete", "table", "netdev", _table(host))
        rules = [entry["rule"]["expr"] for entry in json.loads(listed)["nftables"] if "rule" in entry]
        return sum(part["counter"]["packets"] for rule in rules for part in rule if "counter" in part)

    @contextlib.contextmanager
    def inside(self) -> Iterator[None]:
        with Path("/proc/thread-self/ns/net").open("rb") as here, Path(f"/run/netns/{self._hub}").open("rb") as hub:
            _enter(hub.fileno())
            try:
                yield
            finally:
                _enter(here.fileno())

    def close(self) -> None:
        for space in _spaces():
            if space.startswith(self._prefix):
                _works("ip", "netns", "delete", space)


def open_network(names: Sequence[str], *, loopback: bool = False) -> Network:
    """Namespaces where this process may make them, unless `loopback` is asked for."""
    if loopback or not _may_make_namespaces():
        return Loopback(names)
    remove_leftovers()
    return Namespaces(names)


def remove_leftovers() -> None:
    """Delete the namespaces of demos that ended without tidying up (killed with -9)."""
    for space in _spaces():
        if left_behind(space, _PREFIX):
            _works("ip", "netns", "delete", space)


def _may_make_namespaces() -> bool:
    if os.geteuid() != 0 or not all(shutil.which(tool) for tool in ("ip", "nft")):
        return False
    probe = f"{_PREFIX}{os.getpid()}-probe"
    if not _works("ip", "netns", "add", probe):
        return False
    able = _works("ip", "netns", "exec", probe, "nft", "add", "table", "netdev", "probe")
    _works("ip", "netns", "delete", probe)
    return able


def _spaces() -> list[str]:
    place = Path("/run/netns")
    return [entry.name for entry in place.iterdir()] if place.is_dir() else []


def _port(host: str) -> str:
    return f"to-{host}"[:15]  # the kernel's limit for the name of an interface


def _table(host: str) -> str:
    return "silence_" + host.replace("-", "_")


def _enter(descriptor: int) -> None:
    libc = ctypes.CDLL(None, use_errno=True)  # os.setns came with Python 3.12
    if libc.setns(descriptor, _CLONE_NEWNET) != 0:
        number = ctypes.get_errno()
        raise OSError(number, os.strerror(number))


def _run(*command: str, text: str = "") -> str:
    done = subprocess.run(command, input=text, text=True, check=False, capture_output=True)
    if done.returncode != 0:
        raise OSError(f"{' '.join(command)} failed: {done.stderr.strip() or done.returncode}")
    return done.stdout


def _works(*command: str) -> bool:
    return subprocess.run(command, check=False, capture_output=True).returncode == 0
