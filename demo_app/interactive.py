"""`python -m demo_app`: the hosts, the balancer and the control panel in one terminal, until Ctrl-C or `q`."""

from __future__ import annotations

import argparse
import asyncio
import signal
import socket
import sys

from .balancer import Balancer, Host, Node
from .cluster import Cluster, FaultFailed
from .commands import ADMIN_PORT, APP_PORT
from .network import open_network
from .panel import Panel

_KEYS = {"k": "kill", "p": "pause", "s": "silence", "c": "resume", "r": "restart", "a": "start"}


def run(options: argparse.Namespace) -> int:
    """Returns the exit code."""
    names = [f"app{number}" for number in range(1, options.nodes + 1)]
    try:
        listening = socket.create_server(("127.0.0.1", options.port), backlog=256)
    except OSError as error:
        print(f"port {options.port} cannot be used ({error.strerror}); choose another one with --port", file=sys.stderr)
        return 2
    network = open_network(names, loopback=options.loopback)
    cluster = Cluster(options.framework, network, names)
    try:
        with network.inside():
            asyncio.run(_serve(cluster, listening))
    except FaultFailed as failure:
        print(failure, file=sys.stderr)
        return 2
    finally:
        cluster.close()
        listening.close()
    return 0


async def _serve(cluster: Cluster, listening: socket.socket) -> None:
    ended = asyncio.Event()
    loop = asyncio.get_running_loop()
    for number in (signal.SIGINT, signal.SIGTERM):
        loop.add_signal_handler(number, ended.set)
    node = Node(ADMIN_PORT, cluster.admin_token)
    balancer = Balancer(Host(name, cluster.address(name), APP_PORT, node) for name in cluster.names)
    panel = Panel(cluster, balancer.status)
    balancer.panel = panel.answer
    port = listening.getsockname()[1]
    print(f"Starting {len(cluster.names)} app hosts ({cluster.framework}) ...", flush=True)
    for name in cluster.names:
        cluster.start(name)
    if not await _all_ready(cluster, ended):
        return
    await balancer.start(listening)
    _greet(cluster, panel, port)
    keys = asyncio.create_task(_keys(panel, cluster, ended))
    await ended.wait()
    print("\nEnding.", flush=True)
    keys.cancel()
    await balancer.stop()


async def _all_ready(cluster: Cluster, ended: asyncio.Event) -> bool:
    """False when the demo is ended before."""
    end = asyncio.ensure_future(ended.wait())
    ready = asyncio.ensure_future(cluster.all_ready())
    await asyncio.wait([ready, end], return_when=asyncio.FIRST_COMPLETED)
    end.cancel()
    if ready.done():
        ready.result()
        return True
    ready.cancel()
    return False


def _greet(cluster: Cluster, panel: Panel, port: int) -> None:
    keys = ", ".join(f"{key}1 {action}" for key, action in _KEYS.items() if action in panel.actions)
    print(f"\n    http://127.0.0.1:{port}/_demo/\n", flush=True)
    print(f"Or type a key and the number of a host: {keys}; q ends. Logs: {cluster.place}/*.log", flush=True)


async def _keys(panel: Panel, cluster: Cluster, ended: asyncio.Event) -> None:
    """Orders from the terminal, a line each; without a terminal there are none."""
    loop = asyncio.get_running_loop()
    if not sys.stdin or not sys.stdin.isatty():
        return
    lines: asyncio.Queue[str] = asyncio.Queue()
    loop.add_reader(sys.stdin.fileno(), lambda: lines.put_nowait(sys.stdin.readline()))
    try:
        while not ended.is_set():
            line = await lines.get()
            word = line.strip().lower()
            if word == "q" or not line:
                ended.set()
            elif word:
                print(await _one(panel, cluster, word), flush=True)
    finally:
        loop.remove_reader(sys.stdin.fileno())


async def _one(panel: Panel, cluster: Cluster, word: str) -> str:
    action, number = _KEYS.get(word[0]), word[1:].strip()
    if action is None or not number.isdigit() or not 1 <= int(number) <= len(cluster.names):
        return f"Type one of {', '.join(_KEYS)} and the number of a host, like k1; q ends."
    return await panel.order(cluster.names[int(number) - 1], action)
