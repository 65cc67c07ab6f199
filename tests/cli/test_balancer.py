"""`clustersession lb`: the exact text, whom it names, and what it refuses. The balancers themselves run in tests/end_to_end."""

import json
import shutil
import subprocess
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from clustersession.cli.balancer_forms import AppHost, Check, Plan, haproxy, nginx
from clustersession.cli.main import main
from clustersession.config import Address
from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import node_tag
from clustersession.settings import new_key

RING = f"{new_key(2)},{new_key(1)}"

A = AppHost("a", Address(host="10.0.0.1", port=8000), ("a2a2a2a2", "a1a1a1a1"))
B = AppHost("b:6", Address(host="fd00::2", port=8001), ("b2b2b2b2", "b1b1b1b1"))
PLAN = Plan((A, B), (2, 1), ("__Host-cs", "cs"), Check("/healthz", "shop.test", 10061, needs_token=True))
BARE = Plan((A,), (2,), ("cs",))

HEADING = """\
# Made by `clustersession lb {name}` from the keys 1, 2 and the cookie __Host-cs, cs; not to be edited.
# A request goes to the master of its session, else to the backup, else to any host that is up; each of them is right.
# The tags depend on the keys and on the hosts' identities: make this file again when a key or a host is added or
# dropped. `clustersession lb {name}` with the same options and `--check FILE` exits with 1 when that is due.
"""

HAPROXY = """\
# Use: haproxy -f haproxy.cfg -f THIS_FILE, with `default_backend clustersession` in the frontend.

backend clustersession
    mode http
    balance roundrobin
    timeout connect 500ms
    timeout check 500ms
    # A connection for each request. Another host is tried where none could be made; for GET and HEAD also where it was cut
    # without an answer (RFC 9110, 9.2.2). Nothing else that a host may have accepted is sent twice.
    option http-server-close
    http-reuse never
    retries 3
    retry-on conn-failure empty-response
    http-request disable-l7-retry if !METH_GET
    option redispatch 1

    http-request set-var(txn.clustersession) req.cook(__Host-cs)
    http-request set-var(txn.clustersession) req.cook(cs) if !{ var(txn.clustersession) -m found }
    http-request set-var(txn.clustersession_master) var(txn.clustersession),bytes(0,8)
    http-request set-var(txn.clustersession_backup) var(txn.clustersession),bytes(18,8)
    # A rule whose host is down does not apply.
    use-server a if { var(txn.clustersession_master) -m str a2a2a2a2 a1a1a1a1 }
    use-server b:6 if { var(txn.clustersession_master) -m str b2b2b2b2 b1b1b1b1 }
    use-server a if { var(txn.clustersession_backup) -m str a2a2a2a2 a1a1a1a1 }
    use-server b:6 if { var(txn.clustersession_backup) -m str b2b2b2b2 b1b1b1b1 }

    option httpchk
    http-check connect port 10061
    http-check send meth GET uri /readyz ver HTTP/1.1 hdr host shop.test hdr authorization "Bearer ${CLUSTERSESSION_ADMIN_TOKEN}"
    http-check expect status 200
    http-check connect
    http-check send meth GET uri /healthz ver HTTP/1.1 hdr host shop.test
    http-check expect status 200

    default-server init-addr last,libc,none
    # When the checks have taken every host out, all of them get their turn.
    option allbackups
    server unchecked:a 10.0.0.1:8000 backup
    server unchecked:b:6 [fd00::2]:8001 backup
    default-server check inter 500ms fastinter 100ms fall 2 rise 2 observe layer4 error-limit 2 on-error mark-down
    server a 10.0.0.1:8000
    server b:6 [fd00::2]:8001
"""

NGINX = r"""# Use: include it in the `http` block, and have in the server
#     location / {
#         proxy_pass http://$clustersession;
#         proxy_connect_timeout 500ms;
#         proxy_set_header Host $host;
#     }

map $http_cookie $clustersession_master {
    "~(?:^|; *)__Host\-cs=(?<cs_master_0>[0-9a-f]{8})-" $cs_master_0;
    "~(?:^|; *)cs=(?<cs_master_1>[0-9a-f]{8})-" $cs_master_1;
}
map $http_cookie $clustersession_backup {
    "~(?:^|; *)__Host\-cs=[0-9a-f]{8}-[0-9a-f]{8}-(?<cs_backup_0>[0-9a-f]{8})-" $cs_backup_0;
    "~(?:^|; *)cs=[0-9a-f]{8}-[0-9a-f]{8}-(?<cs_backup_1>[0-9a-f]{8})-" $cs_backup_1;
}
map $clustersession_backup $clustersession_without_master {
    default clustersession_any;
    a2a2a2a2 clustersession_host_a;
    a1a1a1a1 clustersession_host_a;
    b2b2b2b2 clustersession_host_b=6;
    b1b1b1b1 clustersession_host_b=6;
}
map $clustersession_master $clustersession {
    default $clustersession_without_master;
    a2a2a2a2 clustersession_host_a;
    a1a1a1a1 clustersession_host_a;
    b2b2b2b2 clustersession_host_b=6;
    b1b1b1b1 clustersession_host_b=6;
}

upstream clustersession_any {
    zone clustersession 70k;
    server 10.0.0.1:8000 max_fails=1 fail_timeout=2s;
    server [fd00::2]:8001 max_fails=1 fail_timeout=2s;
}
upstream clustersession_host_a {
    zone clustersession 70k;
    server 10.0.0.1:8000 max_fails=1 fail_timeout=2s;
    server [fd00::2]:8001 max_fails=1 fail_timeout=2s backup;
}
upstream clustersession_host_b=6 {
    zone clustersession 70k;
    server [fd00::2]:8001 max_fails=1 fail_timeout=2s;
    server 10.0.0.1:8000 max_fails=1 fail_timeout=2s backup;
}
"""


def test_the_form_for_haproxy() -> None:
    """Rules for the masters, then for the backups, with a tag for each key; the token stays out of the text."""
    assert haproxy(PLAN) == HEADING.format(name="haproxy") + HAPROXY


def test_the_form_for_nginx() -> None:
    """The master's tag chooses the upstream, else the backup's does, else any host; the owner is first, the others back it up."""
    assert nginx(PLAN) == HEADING.format(name="nginx") + NGINX


@pytest.mark.parametrize(
    "check", [Check(), Check("/healthz"), Check(node_port=10061), Check("/healthz", "shop.test", 10061, needs_token=True)]
)
def test_haproxy_accepts_its_form(check: Check, tmp_path: Path) -> None:
    """HAProxy finds nothing wrong, nor to warn of, with every way to check the hosts."""
    program = shutil.which("haproxy", path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("haproxy is not installed: its generated configuration was NOT checked")
    front = "defaults\n  mode http\n  timeout client 9s\n  timeout server 9s\nfrontend f\n  bind :80\n"
    (tmp_path / "front.cfg").write_text(f"{front}  default_backend clustersession\n")
    (tmp_path / "made.cfg").write_text(haproxy(PLAN._replace(check=check)))
    done = subprocess.run(
        [program, "-c", "-f", "front.cfg", "-f", "made.cfg"], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    assert "WARNING" not in done.stderr


def test_nginx_accepts_its_form(tmp_path: Path) -> None:
    """nginx finds nothing wrong, also with one host and with an identity that has a ':'."""
    program = shutil.which("nginx", path="/usr/sbin:/usr/bin:/sbin:/usr/local/sbin:/usr/local/bin")
    if program is None:
        pytest.skip("nginx is not installed: its generated configuration was NOT checked")
    temps = "".join(f"{each}_temp_path {each};" for each in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi"))
    server = "server { listen 127.0.0.1:1; location / { proxy_pass http://$clustersession; } }"
    (tmp_path / "nginx.conf").write_text(
        f"pid pid;\nevents {{}}\nhttp {{ access_log off; {temps} include made.conf; {server} }}\n"
    )
    for plan in (PLAN, BARE):
        (tmp_path / "made.conf").write_text(nginx(plan))
        command = [program, "-t", "-q", "-e", "stderr", "-p", f"{tmp_path}/", "-c", "nginx.conf"]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert (done.returncode, done.stderr) == (0, "")


# --- the command -----------------------------------------------------------------------------------------------------------


class Node(BaseHTTPRequestHandler):
    """The control listener of a node that knows `members`."""

    members: list[dict[str, Any]]

    def do_GET(self) -> None:
        body = json.dumps({"members": self.members}).encode()
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nobody reads it."""


def member(identity: str, address: str, state: str = "alive") -> dict[str, Any]:
    ring = KeyRing.parse(RING)
    tags = {str(kid): node_tag(key, identity, 10060) for kid in ring.kids if (key := ring.get(kid))}
    return {"identity": identity, "address": address, "state": state, "tags": tags}


def tags_of(identity: str) -> str:
    return " ".join(tag[:8] for tag in member(identity, "")["tags"].values())


@pytest.fixture
def members(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[dict[str, Any]]]:
    """What the node of this host knows: `a`, and what the test adds."""
    found = [member("a", "10.0.0.1:10060")]
    server = HTTPServer(("127.0.0.1", 0), type("Told", (Node,), {"members": found}))
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    for name, text in {"MODE": "on", "SECRET": RING, "NODE": "a", "ADMIN_LISTEN": f"127.0.0.1:{server.server_port}"}.items():
        monkeypatch.setenv(f"CLUSTERSESSION_{name}", text)
    yield found
    server.shutdown()
    thread.join()
    server.server_close()


def lines(capsys: pytest.CaptureFixture[str], *arguments: str) -> list[str]:
    assert main(["lb", *arguments]) == 0
    return [line.strip() for line in capsys.readouterr().out.splitlines()]


def test_every_member_is_found_beside_its_node(members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """`--app-port` names each member's own host, also one that is dead for now; one that has left is not named."""
    states = [("b", "alive"), ("c", "suspect"), ("d", "dead"), ("e", "leaving"), ("f", "left")]
    members += [member(identity, f"fd00::{identity}:10060", state) for identity, state in states]
    found = lines(capsys, "haproxy", "--app-port", "8000")
    servers = [line.split()[1:3] for line in found if line.startswith("server ") and "unchecked" not in line]
    assert servers == [["a", "10.0.0.1:8000"], *([each, f"[fd00::{each}]:8000"] for each in "bcde")]
    for identity in "abcde":
        rules = [line for line in found if line.startswith(f"use-server {identity} ")]
        assert [tags_of(identity) in rule for rule in rules] == [True, True]
    assert any("req.cook(__Host-cs)" in line for line in found)


def test_app_goes_before_app_port_and_needs_no_node(members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """A host named by `--app` is there whether its node is or not, where it says so."""
    found = lines(capsys, "nginx", "--app", "a=[::1]:81", "--app", "z.z=shop:82", "--app-port", "8000")
    assert "server [::1]:81 max_fails=1 fail_timeout=2s;" in found
    assert "server shop:82 max_fails=1 fail_timeout=2s backup;" in found
    assert not any("8000" in line for line in found)
    assert all(f"{tag} clustersession_host_z.z;" in found for tag in tags_of("z.z").split())


def test_members_whose_app_is_nowhere_are_asked_for(members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """A configuration without one of the hosts would never use it, so there is none; a dead host is not waited for."""
    members += [member("b", "10.0.0.2:10060"), member("c", "10.0.0.3:10060", "dead")]
    with pytest.raises(SystemExit) as caught:
        main(["lb", "nginx", "--app", "a=10.0.0.1:80"])
    assert caught.value.code == 2
    assert "where is the app of b? Say --app b=HOST:PORT, or --app-port PORT for all" in capsys.readouterr().err
    assert lines(capsys, "nginx", "--app", "a=10.0.0.1:80", "--app", "b=10.0.0.2:80")


@pytest.mark.parametrize("address", ["0.0.0.0:10060", "[::]:10060", ":::10060", ":10060", "x;y{}:10060"])
def test_an_address_that_leads_nowhere_is_refused(
    address: str, members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """What a node says of itself becomes no line of the configuration unless it is an address."""
    members.append(member("b", address))
    with pytest.raises(SystemExit):
        main(["lb", "haproxy", "--app-port", "8000"])
    assert "the node does not know an address of b: say --app b=HOST:PORT" in capsys.readouterr().err


def test_a_member_is_never_a_line_of_its_own(members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]) -> None:
    """A name that no setting would allow is no host, whoever tells it."""
    before = lines(capsys, "haproxy", "--app-port", "80")
    members.append(member("b\n    server evil", "10.0.0.2:10060"))
    assert lines(capsys, "haproxy", "--app-port", "80") == before


def test_the_cookie_is_that_of_the_settings_or_of_the_command(
    members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """All names are read, in their order. `--cookie` is for a name that the app itself has set."""
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_NAME", "__Host-shop,__Host-cs")
    found = lines(capsys, "haproxy", "--app-port", "80")
    assert [line.split("req.cook")[1].split()[0] for line in found if "req.cook" in line] == ["(__Host-shop)", "(__Host-cs)"]
    found = lines(capsys, "haproxy", "--app-port", "80", "--cookie", "session")
    assert [line.split("req.cook")[1].split()[0] for line in found if "req.cook" in line] == ["(session)"]
    monkeypatch.setenv("CLUSTERSESSION_COOKIE_NAME", "cs#1")
    assert main(["lb", "haproxy", "--app-port", "80"]) == 78
    assert "CLUSTERSESSION_COOKIE_NAME: 'cs#1' cannot be written" in capsys.readouterr().err


def test_the_token_is_wanted_where_the_node_wants_it(
    members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The header of the check names HAProxy's own environment; the token itself is nowhere in the text."""
    arguments = ["haproxy", "--app-port", "80", "--node-port", "10061"]
    assert not any("authorization" in line for line in lines(capsys, *arguments))
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", "t" * 20)
    found = lines(capsys, *arguments)
    assert any('hdr authorization "Bearer ${CLUSTERSESSION_ADMIN_TOKEN}"' in line for line in found)
    assert not any("tttt" in line for line in found)


def test_other_keys_than_the_node_has_are_refused(
    members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Tags of another ring would send every request to a host that does not have its session."""
    monkeypatch.setenv("CLUSTERSESSION_SECRET", new_key(1))
    assert main(["lb", "nginx", "--app-port", "80"]) == 78
    assert "this host's node has other keys" in capsys.readouterr().err


def test_dev_mode_has_nothing_to_balance(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """There is no node to ask, and the error says so."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "dev")
    assert main(["lb", "nginx"]) == 78
    assert "dev mode has no node" in capsys.readouterr().err


@pytest.mark.parametrize("kind", ["haproxy", "nginx"])
def test_a_file_is_out_of_date_when_a_member_joins(
    kind: str, members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """`--check` says nothing and exits with 0, or says what differs and exits with 1. It never writes."""
    file = tmp_path / "made.conf"
    command = ["lb", kind, "--app-port", "8000", "--check", str(file)]
    assert main(command) == 1
    assert not file.exists()
    capsys.readouterr()
    main(command[:-2])
    file.write_text(made := capsys.readouterr().out)
    assert main(command) == 0
    assert capsys.readouterr() == ("", "")
    members.append(member("b", "10.0.0.2:10060"))
    assert main(command) == 1
    said = capsys.readouterr()
    assert "10.0.0.2:8000" in said.out
    assert "out of date" in said.err
    assert file.read_text() == made
    members.pop()
    members[0]["state"] = "suspect"
    assert main(command) == 0


def test_a_file_that_cannot_be_read_is_no_file_that_is_out_of_date(
    members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    """Nothing is known of it, so the command line is wrong."""
    with pytest.raises(SystemExit) as caught:
        main(["lb", "nginx", "--app-port", "80", "--check", str(tmp_path)])
    assert caught.value.code == 2
    assert "cannot be read: Is a directory" in capsys.readouterr().err


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["apache"],
        ["nginx", "--app", "a"],
        ["nginx", "--app", "a=10.0.0.1"],
        ["nginx", "--app", "a=10.0.0.1:0"],
        ["nginx", "--app", "a=10.0.0.1:80;"],
        ["nginx", "--app", "a=10.0.0.1;x:80"],
        ["nginx", "--app", "a b=10.0.0.1:80"],
        ["nginx", "--app", "a=10.0.0.1:80", "--app", "a=10.0.0.2:80"],
        ["nginx", "--app-port", "65536"],
        ["nginx", "--app-port", "80", "--cookie", "a b"],
        ["nginx", "--app-port", "80", "--health", "/healthz"],
        ["haproxy", "--app-port", "80", "--health", "healthz"],
        ["haproxy", "--app-port", "80", "--health", "/ hdr x y"],
        ["haproxy", "--app-port", "80", "--health-host", "a b"],
        ["haproxy", "--app-port", "80", "--node-port", "x"],
    ],
)
def test_what_cannot_be_meant_is_refused(
    arguments: list[str], members: list[dict[str, Any]], capsys: pytest.CaptureFixture[str]
) -> None:
    """A wrong option exits with 2 and prints no configuration."""
    with pytest.raises(SystemExit) as caught:
        main(["lb", *arguments])
    assert caught.value.code == 2
    found = capsys.readouterr()
    assert found.out == ""
    assert "usage: clustersession" in found.err
