"""How one app host is started: the very commands and variables of `compose.yaml`."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import NamedTuple

FRAMEWORKS = ("flask", "django", "fastapi")
WORKERS = 2
APP_PORT = 8000
PEER_PORT = 10060
ADMIN_PORT = 10061

_GUNICORN = {"flask": "demo_app.shop.flask_app:app", "django": "demo_app.shop.django_app:application"}


class Site(NamedTuple):
    """One app host: its name in the cluster, its address and where its session files are."""

    name: str
    address: str
    data_dir: str


def app_command(framework: str, bind: str) -> list[str]:
    """The app server alone, serving the shop on `bind` at `APP_PORT` with two worker processes."""
    if framework == "fastapi":
        options = ["--host", bind, "--port", str(APP_PORT), "--workers", str(WORKERS), "--no-access-log"]
        return ["uvicorn", *options, "demo_app.shop.fastapi_app:app"]
    options = ["--bind", f"{bind}:{APP_PORT}", "--workers", str(WORKERS), "--threads", "8", "--no-control-socket"]
    return ["gunicorn", *options, _GUNICORN[framework]]


def host_command(framework: str, bind: str) -> list[str]:
    """The app server under `clustersession run`, which keeps the host's node running beside it."""
    return ["clustersession", "run", "--", *app_command(framework, bind)]


def environment(site: Site, peers: Sequence[str], *, secret: str, admin_token: str) -> Mapping[str, str]:
    """All that clustersession is told. `peers`: addresses of the hosts, this one included."""
    return {
        "CLUSTERSESSION_SECRET": secret,
        "CLUSTERSESSION_CLUSTER": "demo",
        "CLUSTERSESSION_NODE": site.name,
        "CLUSTERSESSION_LISTEN": f"{site.address}:{PEER_PORT}",
        "CLUSTERSESSION_ADVERTISE": f"{site.address}:{PEER_PORT}",
        "CLUSTERSESSION_PEERS": ",".join(f"{peer}:{PEER_PORT}" for peer in peers),
        "CLUSTERSESSION_ADMIN_LISTEN": f"{site.address}:{ADMIN_PORT}",
        "CLUSTERSESSION_ADMIN_TOKEN": admin_token,
        "CLUSTERSESSION_DATA_DIR": site.data_dir,
        "CLUSTERSESSION_COOKIE_SECURE": "0",  # the demo speaks plain HTTP, also to browsers that know no secure localhost
    }
