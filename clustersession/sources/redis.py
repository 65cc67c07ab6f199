"""Sessions of the old system in Redis or Valkey."""

from __future__ import annotations

from typing import Any, Final

from .shelf import Errors, Kept, answers, seconds_left

_GONE: Final = -2


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
