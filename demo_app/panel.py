"""The control panel under `/_demo/`: the shop in a frame, each host with its state and a button for every fault."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from typing import Any
from urllib.parse import parse_qs

from .cluster import Cluster, FaultFailed
from .http1 import Request, Response

ACTIONS = {  # in which states of a host each makes sense
    "kill": ("running", "paused", "silent"),
    "pause": ("running",),
    "silence": ("running",),
    "resume": ("paused", "silent"),
    "restart": ("running", "paused"),
    "start": ("dead",),
}
_NAMES = {"flask": "Flask", "django": "Django", "fastapi": "FastAPI"}

_PAGE = """<!doctype html><html lang="en"><head><meta charset="utf-8"><title>clustersession demo</title>
<meta name="viewport" content="width=device-width,initial-scale=1"><style>
body{font:15px/1.5 system-ui,sans-serif;margin:0;background:#eef;color:#222;display:grid;grid-template-rows:auto 1fr;height:100vh}
#panel{padding:.6rem 1rem;background:#fff;border-bottom:1px solid #ccd}h1{font-size:1.1rem;margin:.2rem 0}
table{border-collapse:collapse}td{padding:.15rem .9rem .15rem 0;white-space:nowrap}td:nth-child(2),td:nth-child(3){min-width:4rem}
p{margin:.2rem 0;color:#555}button{font:inherit;padding:.05rem .6rem;margin-right:.2rem}#said{color:#222;min-height:1.5em}
.up{color:#171}.down{color:#a11}iframe{border:0;width:100%;height:100%}
</style></head><body><div id="panel"><h1>The shop in FRAMEWORK on HOSTS app hosts</h1>
<p>Log in below and fill the cart. Each click goes to the next host. Then kill the master of your session, and go on clicking.</p>
<table id="hosts"></table><p id="said"></p></div><iframe src="/" title="the shop"></iframe><script>
const actions = ACTIONS, said = document.getElementById("said"), table = document.getElementById("hosts");
let shown = "";
async function order(host, action) {
  said.textContent = action + " " + host + " ...";
  const answer = await fetch("/_demo/order", {method: "POST", body: new URLSearchParams({host, action})});
  said.textContent = await answer.text();
}
function row(name, host) {
  const tr = document.createElement("tr"), cells = [name, host.state, host.up ? "in turn" : "out", host.served + " served"];
  for (const text of cells) tr.appendChild(document.createElement("td")).textContent = text;
  tr.children[1].className = host.state === "running" ? "up" : "down";
  tr.children[2].className = host.up ? "up" : "down";
  const td = tr.appendChild(document.createElement("td"));
  for (const [action, states] of Object.entries(actions)) {
    const button = td.appendChild(document.createElement("button"));
    button.textContent = action; button.disabled = !states.includes(host.state); button.onclick = () => order(name, action);
  }
  return tr;
}
async function refresh() {
  try {
    const hosts = await (await fetch("/_demo/hosts")).json(), seen = JSON.stringify(hosts);
    if (seen !== shown && !table.matches(":active")) {
      table.replaceChildren(...Object.entries(hosts).map(([name, host]) => row(name, host)));
      shown = seen;
    }
  } catch (error) { said.textContent = "the demo has ended"; }
  setTimeout(refresh, 500);
}
refresh();
</script></body></html>"""


class Panel:
    """Answers under `/_demo/`. `status` gives the balancer's view of the hosts."""

    def __init__(self, cluster: Cluster, status: Callable[[], dict[str, dict[str, Any]]]) -> None:
        self._cluster, self._status = cluster, status
        self.actions = [action for action in ACTIONS if action != "silence" or cluster.network.drops_packets]

    async def answer(self, request: Request) -> Response:
        if request.method == b"POST" and request.target == b"/_demo/order":
            return await self._ordered(request)
        if request.target == b"/_demo/hosts":
            return _text(json.dumps(self._hosts()), b"application/json")
        if request.target == b"/_demo/":
            return _text(self._page(), b"text/html; charset=utf-8")
        return _text("There is no such page.\n", status=404)

    async def order(self, host: str, action: str) -> str:
        """Carry out one action; returns what happened, for people."""
        if host not in self._cluster.names or action not in self.actions:
            return f"There is no host {host} or nothing like {action} can be done to it."
        try:
            return f"{host}: {await self._carry_out(host, action)}"
        except (FaultFailed, OSError) as error:
            return f"{host}: {error}"

    async def _carry_out(self, host: str, action: str) -> str:
        running = bool(self._cluster.processes(host))
        if action in ("start", "restart") and not running:
            self._cluster.start(host)
            return "started"
        if not running:
            return "is not running; start it first"
        if action == "start":
            return "is running already"
        deeds: dict[str, Callable[[str], Awaitable[str]]] = {
            "kill": self._kill,
            "pause": self._pause,
            "silence": self._silence,
            "resume": self._resume,
            "restart": self._restart,
        }
        return await deeds[action](host)

    async def _kill(self, host: str) -> str:
        return f"killed with -9, {await self._cluster.kill(host)} processes"

    async def _pause(self, host: str) -> str:
        return f"paused, {await self._cluster.pause(host)} processes"

    async def _silence(self, host: str) -> str:
        if host in self._cluster.silent:
            return "is silent already"
        self._cluster.silence(host)
        return "silent: every packet is dropped"

    async def _resume(self, host: str) -> str:
        self._cluster.resume(host)
        dropped = self._cluster.unsilence(host) if host in self._cluster.silent else 0
        return "runs again" + (f", {dropped} packets were dropped" if dropped else "")

    async def _restart(self, host: str) -> str:
        if host in self._cluster.paused:
            self._cluster.resume(host)
        code = await self._cluster.stop(host)
        self._cluster.start(host)
        return f"ended with exit code {code}, started again"

    async def _ordered(self, request: Request) -> Response:
        form = parse_qs(request.body.decode("ascii", errors="replace"))
        return _text(await self.order(form.get("host", [""])[-1], form.get("action", [""])[-1]))

    def _hosts(self) -> dict[str, dict[str, Any]]:
        return {name: {**seen, "state": self._state(name)} for name, seen in self._status().items()}

    def _state(self, name: str) -> str:
        if name in self._cluster.silent:
            return "silent"
        if name in self._cluster.paused:
            return "paused"
        return "running" if self._cluster.processes(name) else "dead"

    def _page(self) -> str:
        page = _PAGE.replace("FRAMEWORK", _NAMES[self._cluster.framework]).replace("HOSTS", str(len(self._cluster.names)))
        return page.replace("ACTIONS", json.dumps({action: ACTIONS[action] for action in self.actions}))


def _text(text: str, kind: bytes = b"text/plain; charset=utf-8", status: int = 200) -> Response:
    return Response(status, [(b"content-type", kind), (b"cache-control", b"no-store")], text.encode())
