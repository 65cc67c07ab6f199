"""Where the store's files are: one directory for each cluster and node, private to the user that runs them.

All processes of a host must come to the same place, so only what is the same for all of them decides: the setting, the
directories that the environment names, whether they can be written to. Room does not: it changes from one process to the next.
"""

from __future__ import annotations

import hashlib
import os
import pwd
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Final

from ..config import Config
from ..errors import ConfigError, StoreRefused

SHARED_MEMORY: Final = Path("/dev/shm")  # noqa: S108  (a private directory in it, checked)
DATA_DIR: Final = "CLUSTERSESSION_DATA_DIR"
_NAME_BYTES_MAX: Final = 100
_PLAIN: Final = frozenset(b"ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._")


def place_for(config: Config, environ: Mapping[str, str]) -> Path:
    """The directory of this node's files: nothing is created or checked yet.

    `config.data_dir`, else the first of `$RUNTIME_DIRECTORY`, `$XDG_RUNTIME_DIR`, /dev/shm and the user's state directory
    that this process can write to. Raises `ConfigError` if there is none.
    """
    name = _part(config.cluster, plain=_PLAIN) + "-" + _part(config.node, plain=_PLAIN | set(b"-"))
    if config.data_dir is not None:
        return Path(config.data_dir) / name
    for base, parent in _candidates(environ):
        if os.access(parent, os.W_OK | os.X_OK):
            return base / name
    tried = ", ".join(str(parent) for _, parent in _candidates(environ))
    raise ConfigError(DATA_DIR, f"it is not set, and none of {tried} can be written to", "Let it name a directory that can be.")


def _candidates(environ: Mapping[str, str]) -> Iterator[tuple[Path, Path]]:
    """Bases of places, each with the existing directory it needs."""
    for variable in ("RUNTIME_DIRECTORY", "XDG_RUNTIME_DIR"):
        named = environ.get(variable, "").split(":")[0]  # systemd lists several
        if named.startswith("/"):
            yield Path(named) / "clustersession", Path(named)
    yield SHARED_MEMORY / f"clustersession-{os.geteuid()}", SHARED_MEMORY
    home = Path(environ.get("HOME") or _home())
    state = environ.get("XDG_STATE_HOME", "")
    yield (Path(state) if state.startswith("/") else home / ".local" / "state") / "clustersession", home


def _home() -> str:
    try:
        return pwd.getpwuid(os.geteuid()).pw_dir
    except KeyError:
        return "/"  # a user without an entry, as in many containers


def _part(name: str, plain: frozenset[int]) -> str:
    """`name` as a part of a file name: readable, without separators, different for different names."""
    raw = name.encode("utf-8", "surrogatepass")
    safe = "".join(chr(byte) if byte in plain else f"%{byte:02x}" for byte in raw)
    if len(safe) > _NAME_BYTES_MAX:
        return safe[:_NAME_BYTES_MAX] + "~" + hashlib.sha256(raw).hexdigest()[:16]
    return safe or "%"


def make_private(place: Path) -> None:
    """Creates `place` and the directory above it, where missing, for this user alone.

    Raises `StoreRefused` if either is a symbolic link, `place` is open to others, or others could put their own there.
    """
    for directory in (place.parent, place):
        try:
            directory.parent.mkdir(parents=True, exist_ok=True)
            directory.mkdir(mode=0o700, exist_ok=True)
            found = directory.lstat()
        except OSError as error:
            raise StoreRefused(f"{directory}: {error.strerror}. Make it a directory of this user, or set {DATA_DIR}.") from error
        problem, remedy = _above(found) if directory == place.parent else _private(found)
        if problem:
            raise StoreRefused(f"{directory}: {problem}. {remedy}, or set {DATA_DIR} to another place.")


def _above(found: os.stat_result) -> tuple[str, str]:
    """What is wrong with the directory above, and the remedy; empty if nothing is."""
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link", "Name the directory itself"
    if found.st_uid not in (os.geteuid(), 0):
        return f"it belongs to user {found.st_uid}, who could replace the store", "Give it to this user or to root"
    if found.st_mode & stat.S_IWOTH and not found.st_mode & stat.S_ISVTX:
        return "everybody may replace files in it", "chmod o-w it"
    return "", ""


def _private(found: os.stat_result) -> tuple[str, str]:
    """What is wrong with the place itself, and the remedy; empty if nothing is."""
    if stat.S_ISLNK(found.st_mode):
        return "it is a symbolic link", "Remove it"
    if found.st_uid != os.geteuid():
        return f"it belongs to user {found.st_uid}", f"Run every process of the node as one user, not as {os.geteuid()} too"
    if found.st_mode & 0o077:
        return "other users can look into it", "chmod it to 0700"
    return "", ""
