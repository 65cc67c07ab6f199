"""`clustersession settings`, `status`, `drain`, `tags` and `key new`: what is printed."""

from __future__ import annotations

import argparse
import json
import math
import time
from typing import TYPE_CHECKING, Any, Final

from ..config import Address
from ..core.keyring import KeyRing
from ..errors import ClusterSessionError, ConfigError
from ..node.launch import OWED_EXIT
from ..settings import load_admin, load_settings, new_key, process_environ, reference_page, shown

if TYPE_CHECKING:
    import httpx

DRAIN_LOOK_S: Final = 0.25
_REFUSALS: Final = (400, 401, 404)


def settings(options: argparse.Namespace) -> int:
    """Every setting with its value in force, secrets masked; or the reference page."""
    if options.reference:
        print(reference_page(), end="")
        return 0
    environ = process_environ()
    for line in shown(load_settings(environ, under_test=False), environ):
        print(f"{line.setting.name:<34} {'set' if line.given else '':<4} {line.value}".rstrip())
    return 0


def key_new(options: argparse.Namespace) -> int:
    """A fresh key on standard output, and nothing else."""
    print(new_key(_free_kid() if options.kid is None else options.kid))
    return 0


def _free_kid() -> int:
    try:
        config = load_settings(under_test=False)
    except ConfigError:
        return 1  # there is no ring yet, or none that could be kept
    taken: tuple[int, ...] = () if config.mode == "dev" else KeyRing.parse(config.secret).kids
    return next((kid for kid in range(1, 256) if kid not in taken), 0)


def status(options: argparse.Namespace) -> int:
    """What the node says of itself. Exits with 1 while it is not ready."""
    found, ready = asked_status(), asked("/readyz")
    if options.json:
        print(json.dumps(found, indent=2))
    else:
        print(f"{'ready' if ready.is_success else 'not ready'}: {ready.text.strip()}")
        print("\n".join(_lines(found)))
    return 0 if ready.is_success else 1


def drain(options: argparse.Namespace) -> int:
    """Has this host's node hand over its sessions, and says what is still owed until nothing is."""
    asked("/drain", method="POST")
    deadline = time.monotonic() + options.timeout
    said = ""
    while True:
        found = asked_status()
        owed: int | None = found["debt"]
        if owed is None and not _has_successor(found):
            print("there is no other host that could take the sessions: they stay in the files of this one", flush=True)
            return OWED_EXIT if found["store"]["entries"] else 0
        words = "counting" if owed is None else f"{owed} sessions to hand over"
        if words != said:
            print(words, flush=True)
        if owed == 0:
            return 0
        if time.monotonic() >= deadline:
            break
        said = words
        time.sleep(DRAIN_LOOK_S)
    left = "the node still counts what it has" if owed is None else f"{owed} sessions are still to be handed over"
    print(f"{left} after {options.timeout:g} s; it goes on, `clustersession drain` shows how far it is", flush=True)
    return OWED_EXIT


def _has_successor(found: dict[str, Any]) -> bool:
    """Whether another host can take over what this one has, now or perhaps in a moment."""
    others = [member for member in found["members"] if member["identity"] != found["node"]]
    return any(member["state"] in ("alive", "suspect") for member in others)


def seconds(text: str) -> float:
    """A time to wait, from the command line."""
    try:
        found = float(text)
    except ValueError:
        found = math.nan
    if not 0 <= found < math.inf:
        raise argparse.ArgumentTypeError("a number of seconds, 0 or more")
    return found


def tags(_: argparse.Namespace) -> int:
    """A line for each member and key: the tag that the IDs begin with whose master it is, its name, its state, the key."""
    for member in asked_status()["members"]:
        for kid, tag in member["tags"].items():
            print(f"{tag} {member['identity']} {member['state']} key {kid}")
    return 0


def _lines(found: dict[str, Any], indent: str = "") -> list[str]:
    """The status for people: one line for a plain value, indented ones for what has parts."""
    lines: list[str] = []
    for name, value in found.items():
        if isinstance(value, dict):
            lines += [f"{indent}{name}:", *_lines(value, indent + "  ")]
        elif isinstance(value, list) and all(isinstance(each, dict) for each in value):
            rows = ["  ".join(f"{key}={part}" for key, part in each.items()) for each in value]
            lines += [f"{indent}{name}:", *(f"{indent}  {row}" for row in rows)]
        else:
            lines.append(f"{indent}{name}: {value}")
    return lines


def asked_status() -> dict[str, Any]:
    """What the node knows, as its /status has it. Raises `ClusterSessionError` as `asked` does."""
    answer = asked("/status")
    try:
        found = answer.json()
    except ValueError:
        found = None
    if not isinstance(found, dict) or not isinstance(found.get("members"), list):
        raise _stranger(answer.url.netloc.decode())
    return found


def asked(path: str, method: str = "GET", timeout_s: float = 5.0) -> httpx.Response:
    """The control listener's answer. Raises `ClusterSessionError` if there is none, it refuses, or it is none of ours."""
    try:
        import httpx
    except ImportError:
        raise ClusterSessionError("asking the node needs httpx: install clustersession[cli]") from None
    address, token = load_admin()
    if address is None:
        raise ConfigError("CLUSTERSESSION_ADMIN_LISTEN", "the control listener is off", "Set it to ask the node.")
    try:
        with httpx.Client(trust_env=False, timeout=timeout_s) as client:
            headers = {} if token is None else {"Authorization": f"Bearer {token}"}
            answer = client.request(method, f"http://{_reachable(address)}{path}", headers=headers)
    except (httpx.TransportError, httpx.InvalidURL) as error:
        raise ClusterSessionError(f"no node answers on {address} ({error}); is it running, with the same settings?") from error
    if answer.status_code in _REFUSALS and answer.headers.get("content-type", "").startswith("text/plain"):
        raise ClusterSessionError(f"what listens on {address} refuses: {answer.text.strip()}")
    if answer.status_code not in ((202,) if method == "POST" else (200, 503)):
        raise _stranger(str(address))
    return answer


def _stranger(address: str) -> ClusterSessionError:
    return ClusterSessionError(
        f"what listens on {address} is no control listener of this release; is CLUSTERSESSION_ADMIN_LISTEN the same here as for "
        "the node?"
    )


def _reachable(address: Address) -> Address:
    """Where a listener on every address of the host is asked from the host itself."""
    loopback = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  (not bound)
    return Address(host=loopback.get(address.host, address.host), port=address.port)
