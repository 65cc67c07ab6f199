"""What a node that a worker started was started with, so that workers with newer settings can tell that it is out of date.

Without this, an app that is restarted quickly with other settings would go on with the node it had before.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import Final, NamedTuple

from ..config import Config
from ..core.keyring import KeyRing
from ..settings import PREFIX, ring_fingerprint, to_environ

_NAME: Final = "node.imprint"
# What is the app's own and no business of the node: apps that differ in these share it.
_OF_THE_APP: Final = (
    "COOKIE_",
    "IDLE_",
    "ABSOLUTE_",
    "PROFILE",
    "PRINCIPAL",
    "MIN_COPIES",
    "UNAVAILABLE",
    "SPAWN",
    "READY_",
    "SECRET",
)


class Imprint(NamedTuple):
    """The fingerprint of the ring, as `ring_fingerprint` gives it, and a hash of the other settings that a node obeys."""

    keys: str
    settings: str


def imprint(config: Config) -> Imprint:
    """That of a node which is started with `config`."""
    settings = {name.removeprefix(PREFIX): text for name, text in to_environ(config).items()}
    of_node = {name: text for name, text in settings.items() if name != "SECRET" and not name.startswith(_OF_THE_APP)}
    digest = hashlib.sha256("\n".join(f"{name}={text}" for name, text in sorted(of_node.items())).encode())
    keys = "" if config.secret_file else ring_fingerprint(KeyRing.parse(config.secret))  # a file is watched by the node itself
    return Imprint(keys, digest.hexdigest())


def leave(place: Path, found: Imprint) -> None:
    """Writes it down for the workers."""
    fresh = place / f"{_NAME}.new"
    fresh.write_text("\n".join(found), encoding="ascii")
    fresh.replace(place / _NAME)


def forget(place: Path) -> None:
    """For a node that somebody runs on purpose: no worker may call it out of date."""
    (place / _NAME).unlink(missing_ok=True)


def left(place: Path) -> Imprint | None:
    """What was written down last; None if no worker started the node."""
    try:
        keys, _, settings = (place / _NAME).read_text(encoding="ascii").partition("\n")
    except FileNotFoundError:
        return None
    return Imprint(keys, settings)
