"""The answer a client gets when its session could not be reached or its change came too late."""

from __future__ import annotations

from typing import NamedTuple

from ..errors import LateWrite, SessionUnavailable
from .headers import Header, SessionHeaders, joined


class Refusal(NamedTuple):
    """A whole response. `phrase` is the reason phrase of the status."""

    status: int
    phrase: str
    headers: list[Header]
    body: bytes


def refusal(error: SessionUnavailable | LateWrite, session: SessionHeaders) -> Refusal:
    """503 or 409, both to be repeated; `session` is what must go out all the same (a logout's deletion of the cookie)."""
    if isinstance(error, LateWrite):
        status, phrase, retry_after_s = 409, "Conflict", 0
        text = "The session was changed by another request meanwhile. Please repeat the request."
    else:
        status, phrase, retry_after_s = 503, "Service Unavailable", error.retry_after_s
        text = "The session cannot be reached at the moment. Please repeat the request."
    body = f"{text}\n".encode()
    headers = [
        ("Content-Type", "text/plain; charset=utf-8"),
        ("Content-Length", str(len(body))),
        ("Retry-After", str(retry_after_s)),
        ("Cache-Control", "no-store"),
    ]
    return Refusal(status, phrase, joined(headers, session._replace(vary=True)), body)
