"""Sessions of the old system in Redis or Valkey."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any, Final

from ..errors import ConfigError
from .shelf import PAGE, Errors, Kept, answers, seconds_left

_GONE: Final = -2
_SPECIAL: Final = re.compile(r"[\\*?\[\]]")


class RedisShelf:
    """`client` is a redis-py client without `decode_responses`; `errors` is what it raises, `(redis.RedisError,)`."""

    kind = "redis"

    def __init__(self, client: Any, *, errors: Errors) -> None:
        self._client, self._errors = client, errors

    def get(self, key: str, now: float) -> Kept | None:
        """The value, and the end that its TTL says."""
        with answers(self.kind, self._errors), self._client.pipeline() as pipe:
            pipe.get(key)
            pipe.pttl(key)
            data, left_ms = pipe.execute()
        if data is None or left_ms == _GONE:
            return None
        return Kept(data.encode() if isinstance(data, str) else data, now + left_ms / 1000 if left_ms >= 0 else None)

    def put(self, key: str, data: bytes, expires: float, now: float, *, new: bool) -> bool:
        """One SET, with NX or XX."""
        left_ms = round(seconds_left(expires, now) * 1000)
        with answers(self.kind, self._errors):
            return bool(self._client.set(key, data, px=left_ms, nx=new, xx=not new))

    def drop(self, key: str) -> None:
        """DEL."""
        with answers(self.kind, self._errors):
            self._client.delete(key)

    def keys(self, prefix: str, cursor: str) -> Iterator[tuple[list[str], str]]:
        """By SCAN. Its cursor is the server's: after a restart or a failover the listing begins again."""
        server, _, text = cursor.rpartition(":")
        place, match = 0, _SPECIAL.sub(r"\\\g<0>", prefix) + "*"
        with answers(self.kind, self._errors):
            run = str(self._client.info("server").get("run_id", ""))
        if run and run == server:
            place = int(text)
        while True:
            with answers(self.kind, self._errors):
                place, found = self._client.scan(place, match=match, count=PAGE)
            if not isinstance(place, int):
                raise ConfigError(
                    "client", "a Redis Cluster is not listed as a whole", "Hand in a client for each of its servers"
                )
            keys = [key if isinstance(key, str) else key.decode("utf-8", "replace") for key in found]
            yield keys, f"{run}:{place}" if place else ""
            if not place:
                return
