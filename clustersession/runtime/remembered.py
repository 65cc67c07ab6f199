"""What is remembered until the end of an adoption: which sessions were taken over, and when users have logged out since.

It lies under keys that do not depend on the cluster's secret, so that no change of its ring brings an old cookie back to life
(decision 0015).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable, Mapping
from time import time
from typing import TYPE_CHECKING, Final

from ..core.effects import Operation, Wait
from ..core.operations import Loaded, Unavailable, first_record, found_anywhere, put
from ..core.record import Key, Lifetime, Patch, Record, live_items
from ..core.session_id import STORE_KEY_BYTES
from ..core.values import HIDDEN, decode_value, encode_value
from ..errors import SessionUnavailable
from .stored import patch

if TYPE_CHECKING:
    from .engine import Engine

KEPT_S: Final = 400 * 86400.0  # without an end of the adoption: no browser keeps a cookie for longer (RFC 6265bis 5.5)
TRIES_AGAIN: Final = 2
AGAIN_S: Final = 0.2
ALL_DEVICES: Final = "all"  # no device's name
DEVICES_MAX: Final = 128  # of one user; a logout on a further one is one on all
DEVICE_BYTES: Final = 8
NOBODYS: Final = f"{HIDDEN}adoption"  # the principal of records that are nobody's


class Memory:
    """For one source of sessions of before, until `until()` (Unix seconds; None: as long as it is configured)."""

    def __init__(self, source: str, until: Callable[[], float | None]) -> None:
        self._source, self._until = source, until

    def guard_key(self, name: bytes) -> Key:
        """Where it is kept that the session with this old ID was taken over."""
        return self._key(b"guard", name)

    def guard(self, engine: Engine, key: Key) -> Record:
        return self._lasting(engine, key, patch(engine, {}, None))

    def logged_out(self, engine: Engine, user: str, device: str) -> Operation[float | Unavailable | None]:
        """When the user has last logged out on this device, Unix s; None: never."""
        outcome = yield from found_anywhere(engine.cluster(), self._not_before(user))
        if isinstance(outcome, Unavailable):
            return outcome
        held = live_items(outcome.record) if isinstance(outcome, Loaded) else {}
        return max((_moment(held[name]) for name in (device, ALL_DEVICES) if name in held), default=None)

    def log_out(self, engine: Engine, user: str, devices: Iterable[str], at: float) -> Operation[None]:
        """Remember that the user has logged out on these devices `at`, Unix s, or later. Raises `SessionUnavailable`."""
        key, names = self._not_before(user), set(devices)

        def later(held: Record) -> Patch:
            return patch(engine, _logouts(live_items(held), names, at), None)

        for again in range(TRIES_AGAIN + 1):
            if again:
                yield Wait(AGAIN_S)  # one of its owners may be handing over all it has just now
            first = self._lasting(engine, key, patch(engine, _logouts({}, names, at), None))
            if (yield from put(engine.cluster(), key, first, later)):
                return
        raise SessionUnavailable("that cookies of before are over could not be stored")

    def _not_before(self, user: str) -> Key:
        return self._key(b"not before", user.encode(errors="surrogatepass"))

    def _key(self, purpose: bytes, name: bytes) -> Key:
        text = b"\0".join((b"clustersession adopted", purpose, self._source.encode(), name))
        return hashlib.sha256(text).digest()[:STORE_KEY_BYTES]

    def _lasting(self, engine: Engine, key: Key, first: Patch) -> Record:
        """As if of a user, so that a full store does not drop it."""
        now, until = engine.now(), self._until()
        lifetime = Lifetime(None, now + (KEPT_S if until is None else max(0.0, until - time())))
        record = first_record(engine.cluster(), key, now=now, patch=first, created=now, lifetime=lifetime)
        return record.but(principal=NOBODYS)


def device_named(data: bytes | None) -> str:
    """The device, by what the app has marked it with; "" without that."""
    return "" if data is None else hashlib.blake2b(data, digest_size=DEVICE_BYTES).hexdigest()


def _logouts(held: Mapping[str, bytes], names: set[str], at: float) -> dict[str, bytes | None]:
    """What to write: no time that is remembered gets earlier, and the devices no more than so many."""
    if len(held.keys() | names) > DEVICES_MAX:
        names = {ALL_DEVICES}
    return {name: encode_value(max(at, _moment(held[name])) if name in held else at) for name in names}


def _moment(data: bytes) -> float:
    return float(str(decode_value(data)))
