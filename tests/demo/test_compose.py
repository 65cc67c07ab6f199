"""The compose file, the Dockerfile and HAProxy's configuration say the same as the demo that runs without containers."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path
from typing import Any

import pytest
import yaml

from demo_app import balancer
from demo_app.cluster import NAMES
from demo_app.commands import ADMIN_PORT, APP_PORT, PEER_PORT, Site, environment, host_command

DEMO = Path(balancer.__file__).parent


@pytest.fixture(scope="module")
def services() -> dict[str, Any]:
    loaded = yaml.safe_load((DEMO / "compose.yaml").read_text())["services"]
    assert isinstance(loaded, dict)
    return loaded


def test_the_hosts_of_compose_run_the_same_command(services: dict[str, Any]) -> None:
    """Each app host of compose is started by the command that the local demo uses, and so is the image by itself."""
    expected = host_command("flask", "0.0.0.0")
    assert [services[name]["command"] for name in NAMES] == [expected] * 3
    _, _, command = (DEMO / "Dockerfile").read_text().rpartition("CMD ")
    assert re.findall(r'"([^"]+)"', command) == expected


def test_the_hosts_of_compose_get_the_same_settings(services: dict[str, Any]) -> None:
    """Compose sets nothing that the local demo does not set; values that no address is part of are the same."""
    local = environment(Site("app1", "10.0.0.1", "place"), ["10.0.0.1"], secret="s", admin_token="t")
    for name in NAMES:
        given = services[name]["environment"]
        assert given.keys() <= local.keys()
        assert given["CLUSTERSESSION_NODE"] == name
        assert given["CLUSTERSESSION_PEERS"] == f"dns://app:{PEER_PORT}"
        assert given["CLUSTERSESSION_LISTEN"].endswith(f":{PEER_PORT}")
        for same in ("CLUSTERSESSION_CLUSTER", "CLUSTERSESSION_COOKIE_SECURE"):
            assert given[same] == local[same]
        assert services[name]["networks"]["default"]["aliases"] == ["app"]


def test_haproxy_balances_the_hosts_of_compose_as_the_demo_does(services: dict[str, Any]) -> None:
    """Every host is in the configuration, with the intervals of the demo's balancer and without stickiness."""
    text = (DEMO / "haproxy.cfg").read_text()
    assert re.findall(r"^ *server (\S+) (\S+)$", text, re.MULTILINE) == [(name, f"{name}:{APP_PORT}") for name in NAMES] * 2
    milliseconds = {"inter": balancer.CHECK_EVERY_S, "check": balancer.CHECK_TIMEOUT_S, "connect": balancer.CONNECT_TIMEOUT_S}
    for word, seconds in milliseconds.items():
        assert f"{word} {seconds * 1000:.0f}ms" in text
    assert f"fall {balancer.FALL} rise {balancer.RISE} on-marked-down shutdown-sessions" in text
    assert "cookie" not in text
    assert "stick" not in text.replace("stickiness", "")
    assert services["balancer"]["depends_on"] == list(NAMES)


def test_haproxy_asks_the_app_and_its_node(services: dict[str, Any]) -> None:
    """A host gets requests once its app answers and its node is in sync, asked with the token that the nodes have."""
    text = (DEMO / "haproxy.cfg").read_text()
    steps = [line.strip().removeprefix("http-check ") for line in text.splitlines() if line.strip().startswith("http-check ")]
    asked = [re.sub(r" (ver|hdr) .*", "", step) for step in steps]
    app = ["connect", "send meth GET uri /healthz", "expect status 200"]
    assert asked == [*app, f"connect port {ADMIN_PORT}", "send meth GET uri /readyz", "expect status 200"]
    assert f'hdr authorization "Bearer ${{{balancer.TOKEN}}}"' in text
    token = services["app1"]["environment"][balancer.TOKEN]
    assert services["balancer"]["environment"][balancer.TOKEN].startswith(token.partition(":")[0])
    assert services["app1"]["environment"]["CLUSTERSESSION_ADMIN_LISTEN"] == f"0.0.0.0:{ADMIN_PORT}"


def test_haproxy_accepts_its_configuration() -> None:
    """HAProxy itself finds no error in the file."""
    haproxy = shutil.which("haproxy")
    if haproxy is None:
        pytest.skip("haproxy is not installed: its configuration was NOT checked")
    done = subprocess.run([haproxy, "-c", "-f", str(DEMO / "haproxy.cfg")], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert "Configuration file is valid" in done.stdout
