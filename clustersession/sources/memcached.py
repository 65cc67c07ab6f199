"""Sessions of the old system in memcached."""

from __future__ import annotations

from typing import Any, Final

from ..errors import ConfigError
from .shelf import Errors, Kept, answers, seconds_left

_RELATIVE_S_MAX: Final = 30 * 86400  # above it, memcached takes a time for Unix time


class MemcachedShelf:
    """`client` has get, add, replace and delete, as those of pymemcache, pylibmc and python-memcached; `errors` is what it
    raises, `(pymemcache.MemcacheError,)`.

    Only pymemcache's `raw_command` shows when an entry ends. With another client it is taken to be `lifetime_s` from now,
    which is as late as it can be. Raises `ConfigError` for a pymemcache client that hides what its server says.
    """

    kind = "memcached"
    unlisted = "memcached does not list its keys"

    def __init__(self, client: Any, *, errors: Errors, lifetime_s: float = 31 * 86400) -> None:
        for option in ("ignore_exc", "default_noreply"):
            if getattr(client, option, False) or getattr(client, "default_kwargs", {}).get(option):  # HashClient's
                raise ConfigError(
                    "client", f"it was made with {option}, so a server that is down looks like one without the session",
                    f"Make the client with {option}=False",
                )  # fmt: skip
        self._client, self._errors, self._lifetime_s = client, errors, lifetime_s

    def get(self, key: str, now: float) -> Kept | None:
        """The value, and when it ends as far as that can be known."""
        with answers(self.kind, self._errors):
            data = self._client.get(key)
            if data is None:
                return None
            left_s = self._seconds_left(key)
        return Kept(data.encode() if isinstance(data, str) else data, None if left_s is None else now + left_s)

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """An `add`, or a `replace`."""
        left_s = round(seconds_left(expires, now))
        limit = left_s if left_s <= _RELATIVE_S_MAX else round(now) + left_s
        with answers(self.kind, self._errors):
            return bool((self._client.add if new else self._client.replace)(key, data, limit))

    def drop(self, key: str) -> None:
        """A `delete`."""
        with answers(self.kind, self._errors):
            self._client.delete(key)

    def _seconds_left(self, key: str) -> float | None:
        """By the command `mg` of memcached 1.6; an older one does not know it."""
        raw = getattr(self._client, "raw_command", None)
        if raw is None:
            return self._lifetime_s
        word, _, flag = bytes(raw(b"mg " + getattr(self._client, "key_prefix", b"") + key.encode("ascii") + b" t")).partition(
            b" t"
        )
        if word != b"HD":
            return self._lifetime_s
        return float(flag) if int(flag) >= 0 else None
