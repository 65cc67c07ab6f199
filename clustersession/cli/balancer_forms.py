"""What `clustersession lb` writes, as text: a backend for HAProxy, maps and upstreams for nginx.

Both route by the first 8 characters of the ID (the master's identity under one key of the ring), then by the 8 at 18 (the
backup's). An ID is not verified here: one that was made up chooses a host, which any client may.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Final, NamedTuple

from ..config import Address

_ADMIN_HEADER: Final = ' hdr authorization "Bearer ${CLUSTERSESSION_ADMIN_TOKEN}"'  # HAProxy takes it from its own environment
_KIB_PER_SERVER: Final = 1


class AppHost(NamedTuple):
    """A host as the balancer sees it. `tags`: the 8 characters that name it as an owner, one text for each key of the ring."""

    identity: str
    address: Address
    tags: tuple[str, ...]


class Check(NamedTuple):
    """How HAProxy finds out who is up. Without a path and a port: by a TCP connection to the app."""

    path: str | None = None
    host: str = "localhost"
    node_port: int | None = None
    needs_token: bool = False


class Plan(NamedTuple):
    """All that a configuration is made from. `cookies`: the names in the order in which they are looked for."""

    hosts: tuple[AppHost, ...]
    kids: tuple[int, ...]
    cookies: tuple[str, ...]
    check: Check = Check()


def _heading(plan: Plan, balancer: str) -> Iterator[str]:
    keys, names = ", ".join(map(str, sorted(plan.kids))), ", ".join(plan.cookies)
    yield f"# Made by `clustersession lb {balancer}` from the keys {keys} and the cookie {names}; not to be edited."
    yield "# A request goes to the master of its session, else to the backup, else to any host that is up; each of them is right."
    yield "# The tags depend on the keys and on the hosts' identities: make this file again when a key or a host is added or"
    yield f"# dropped. `clustersession lb {balancer}` with the same options and `--check FILE` exits with 1 when that is due."


# --- HAProxy ---------------------------------------------------------------------------------------------------------------


def haproxy(plan: Plan) -> str:
    """A backend named `clustersession`, for HAProxy 2.2 (`http-check connect`) and later."""
    return _text(
        [*_heading(plan, "haproxy"), *_HAPROXY_USE, *_haproxy_routes(plan), *_haproxy_checks(plan.check), *_haproxy_hosts(plan)]
    )


_HAPROXY_USE: Final = (
    "# Use: haproxy -f haproxy.cfg -f THIS_FILE, with `default_backend clustersession` in the frontend.",
    "",
    "backend clustersession",
    "    mode http",
    "    balance roundrobin",
    "    timeout connect 500ms",
    "    timeout check 500ms",
    "    # A connection for each request. Another host is tried where none could be made; for GET and HEAD also where it was cut",
    "    # without an answer (RFC 9110, 9.2.2). Nothing else that a host may have accepted is sent twice.",
    "    option http-server-close",
    "    http-reuse never",
    "    retries 3",
    "    retry-on conn-failure empty-response",
    "    http-request disable-l7-retry if !METH_GET",
    "    option redispatch 1",
    "",
)


def _haproxy_routes(plan: Plan) -> Iterator[str]:
    for place, name in enumerate(plan.cookies):
        condition = " if !{ var(txn.clustersession) -m found }" if place else ""
        yield f"    http-request set-var(txn.clustersession) req.cook({name}){condition}"
    yield "    http-request set-var(txn.clustersession_master) var(txn.clustersession),bytes(0,8)"
    yield "    http-request set-var(txn.clustersession_backup) var(txn.clustersession),bytes(18,8)"
    yield "    # A rule whose host is down does not apply."
    for owner in ("master", "backup"):
        for host in plan.hosts:
            yield f"    use-server {host.identity} if {{ var(txn.clustersession_{owner}) -m str {' '.join(host.tags)} }}"
    yield ""


def _haproxy_checks(check: Check) -> Iterator[str]:
    if check.path is None and check.node_port is None:
        return
    yield "    option httpchk"
    if check.node_port is not None:
        yield f"    http-check connect port {check.node_port}"
        yield from _haproxy_asks(check, "/readyz", _ADMIN_HEADER if check.needs_token else "")
    yield "    http-check connect"
    if check.path is not None:
        yield from _haproxy_asks(check, check.path)
    yield ""


def _haproxy_asks(check: Check, path: str, header: str = "") -> Iterator[str]:
    yield f"    http-check send meth GET uri {path} ver HTTP/1.1 hdr host {check.host}{header}"
    yield "    http-check expect status 200"


def _haproxy_hosts(plan: Plan) -> Iterator[str]:
    yield "    default-server init-addr last,libc,none"
    yield "    # When the checks have taken every host out, all of them get their turn."
    yield "    option allbackups"
    for host in plan.hosts:
        yield f"    server unchecked:{host.identity} {host.address} backup"
    yield "    default-server check inter 500ms fastinter 100ms fall 2 rise 2 observe layer4 error-limit 2 on-error mark-down"
    for host in plan.hosts:
        yield f"    server {host.identity} {host.address}"


# --- nginx -----------------------------------------------------------------------------------------------------------------


def nginx(plan: Plan) -> str:
    """Maps and upstreams for the `http` block; `$clustersession` is the upstream to pass to. For nginx 1.11.2 and later."""
    return _text([*_heading(plan, "nginx"), *_NGINX_USE, *_nginx_maps(plan), *_nginx_upstreams(plan)])


_NGINX_USE: Final = (
    "# Use: include it in the `http` block, and have in the server",
    "#     location / {",
    "#         proxy_pass http://$clustersession;",
    "#         proxy_connect_timeout 500ms;",
    "#         proxy_set_header Host $host;",
    "#     }",
    "",
)


def _nginx_maps(plan: Plan) -> Iterator[str]:
    yield "map $http_cookie $clustersession_master {"
    yield from _nginx_captures(plan.cookies, "master", "")
    yield "}"
    yield "map $http_cookie $clustersession_backup {"
    yield from _nginx_captures(plan.cookies, "backup", "[0-9a-f]{8}-[0-9a-f]{8}-")
    yield "}"
    for owner, variable, default in (
        ("backup", "clustersession_without_master", _upstream("any")),
        ("master", "clustersession", "$clustersession_without_master"),
    ):
        yield f"map $clustersession_{owner} ${variable} {{"
        yield f"    default {default};"
        for host in plan.hosts:
            yield from (f"    {tag} {_upstream_of(host)};" for tag in host.tags)
        yield "}"
    yield ""


def _nginx_captures(cookies: Iterable[str], owner: str, before: str) -> Iterator[str]:
    for number, name in enumerate(cookies):
        capture = f"cs_{owner}_{number}"
        yield f'    "~(?:^|; *){re.escape(name)}={before}(?<{capture}>[0-9a-f]{{8}})-" ${capture};'


def _nginx_upstreams(plan: Plan) -> Iterator[str]:
    zone = f"    zone clustersession {64 + _KIB_PER_SERVER * len(plan.hosts) * (len(plan.hosts) + 1)}k;"
    yield f"upstream {_upstream('any')} {{"
    yield zone
    yield from (_nginx_server(host) for host in plan.hosts)
    yield "}"
    for owner in plan.hosts:
        yield f"upstream {_upstream_of(owner)} {{"
        yield zone
        yield _nginx_server(owner)
        yield from (_nginx_server(host, " backup") for host in plan.hosts if host is not owner)
        yield "}"


def _nginx_server(host: AppHost, role: str = "") -> str:
    return f"    server {host.address} max_fails=1 fail_timeout=2s{role};"


def _upstream_of(host: AppHost) -> str:
    return _upstream("host_" + host.identity.replace(":", "="))  # in an address ':' begins the port; no identity has '='


def _upstream(name: str) -> str:
    return f"clustersession_{name}"


def _text(lines: Iterable[str]) -> str:
    return "".join(f"{line}\n" for line in lines)
