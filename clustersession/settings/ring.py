"""The ring of keys as it is read, watched, made and compared: what `core.keyring` cannot do without files and entropy."""

from __future__ import annotations

import hashlib
import hmac
import logging
import secrets
from collections.abc import Callable
from pathlib import Path
from typing import Final, NamedTuple

from ..config import Config
from ..core.keyring import KeyRing
from ..errors import ConfigError
from .setting import PREFIX

LOOK_EVERY_S: Final = 1.0
FILE_BYTES_MAX: Final = 64 * 1024
FINGERPRINT_BOARD: Final = "secret"
log: Final = logging.getLogger("clustersession.settings")


def new_key(kid: int) -> str:
    """A fresh key for the ring, `kid:key`, with 256 random bits."""
    return f"{kid}:{secrets.token_urlsafe(32)}"


def read_secret_file(path: str) -> str:
    """The ring's text in `path`, checked. Raises `ConfigError` if it cannot be read or is no ring."""
    name = PREFIX + "SECRET_FILE"
    try:
        with Path(path).open("rb") as file:
            text = file.read(FILE_BYTES_MAX).decode().strip()
    except OSError as error:
        remedy = "Let it name a file that this process's user can read."
        raise ConfigError(name, f"{path} cannot be read ({error.strerror})", remedy) from None
    except UnicodeDecodeError:
        raise ConfigError(
            name, f"{path} is not text", "Write `kid:key,...` into it, as `clustersession key new` prints it."
        ) from None
    try:
        KeyRing.parse(text)
    except ConfigError as error:
        raise ConfigError(name, f"{path}: {error.problem}", error.remedy) from None
    return text


class _Read(NamedTuple):
    """A ring, when its file was last looked at, and which state of the file it is of."""

    ring: KeyRing
    looked: float
    mark: tuple[int, int, int] | None


class RingSource:
    """Gives the ring of `config` as it is now: a `SECRET_FILE` is looked at once per second and read when it has changed.

    `clock` gives seconds that never jump. The file is looked at from the start: the settings may have been read long ago, by a
    server that loads the app before it forks its workers. A new content that is broken, or a file that is gone, is logged and
    leaves the last good ring in use: a slip of the hand on one host must not end its sessions. Cheap enough for every request.
    """

    def __init__(self, config: Config, clock: Callable[[], float]) -> None:
        self._path, self._clock = config.secret_file, clock
        now = clock()
        self._read = _Read(KeyRing.parse(config.secret), now, _NEVER_LOOKED)
        if self._path is not None:
            self._read = self._looked(self._path, self._read, now)

    def __repr__(self) -> str:
        return f"<RingSource {self._path or 'fixed'}: {self._read.ring!r}>"

    def __call__(self) -> KeyRing:
        read = self._read
        if self._path is None:
            return read.ring
        now = self._clock()
        if now - read.looked < LOOK_EVERY_S:
            return read.ring
        self._read = read = self._looked(self._path, read, now)
        return read.ring

    def _looked(self, path: str, last: _Read, now: float) -> _Read:
        mark = _mark(path)
        if mark == last.mark:
            return last._replace(looked=now)
        try:
            ring = KeyRing.parse(read_secret_file(path))
        except ConfigError as error:
            log.error("%s The last good ring (keys %s) stays in use.", error, ", ".join(map(str, last.ring.kids)))  # noqa: TRY400
            return _Read(last.ring, now, mark)
        if ring_fingerprint(ring) != ring_fingerprint(last.ring):
            log.info("the ring was read again from %s: keys %s", path, ", ".join(map(str, ring.kids)))
        return _Read(ring, now, mark)


_NEVER_LOOKED: Final = (0, 0, 0)


def _mark(path: str) -> tuple[int, int, int] | None:
    """What changes when a file is written or replaced, also through a symbolic link; None: it is not there."""
    try:
        found = Path(path).stat()
    except OSError:
        return None
    return found.st_ino, found.st_mtime_ns, found.st_size


def ring_fingerprint(ring: KeyRing) -> str:
    """What names the keys of `ring` without giving them away: `kid:16 hex digits` of each, separated by spaces."""
    return " ".join(f"{kid}:{_fingerprint(ring, kid)}" for kid in sorted(ring.kids))


def _fingerprint(ring: KeyRing, kid: int) -> str:
    key = ring.get(kid)
    assert key is not None
    return hmac.new(key.hello, b"clustersession fingerprint of a key", hashlib.sha256).hexdigest()[:16]


def check_same_secret(
    read_board: Callable[[str], bytes | None],
    write_board: Callable[[str, bytes | None], None],
    fingerprint: str,
    *,
    is_node: bool = False,
) -> None:
    """Raises `ConfigError` if this process has no key in common with the others of its host: a random one per worker.

    `read_board` and `write_board` are `Store.board` and `Store.set_board`; `fingerprint` is `ring_fingerprint`. The node
    process (`is_node`) says what is right, at its start and whenever its ring changes, so that a new secret is accepted after a
    restart, and a rotated one by workers that start later; a worker only compares, and writes where nothing is written yet.
    """
    if not is_node:
        known = read_board(FINGERPRINT_BOARD)
        if known is not None and not set(known.decode().split()) & set(fingerprint.split()):
            raise ConfigError(
                PREFIX + "SECRET",
                "this process has another secret than the other processes of this host, as if each of them had made a random one",
                f"Set one fixed secret in the environment of all of them, or in {PREFIX}SECRET_FILE, and restart them together; "
                "to change it without a restart, rotate the ring.",
            )
        if known is not None:
            return
    write_board(FINGERPRINT_BOARD, fingerprint.encode())
