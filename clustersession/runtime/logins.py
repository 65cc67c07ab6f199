"""What a login brings with it beyond a new ID: from where it came, and how many of its user there may be."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, Final

import msgspec

from ..core.bars import Device, device_extra
from ..core.effects import Operation
from ..core.operations import Listing, Placement, sessions_of
from ..core.record import Key, Patch, Record
from ..errors import SessionUnavailable, TooManySessions
from .stored import end_graces, end_session

if TYPE_CHECKING:
    from .engine import Engine

AGENT_CHARS_MAX: Final = 256
REFUSE: Final = "refuse"


def device_from(origin: Mapping[str, Any]) -> Device:
    """Who asks, by a WSGI environ, Django's META or an ASGI scope: the address as the app's server has it, which behind a proxy
    is that of the user only if the server was told to trust the proxy's word."""
    if "REMOTE_ADDR" in origin or "HTTP_USER_AGENT" in origin:
        address, agent = origin.get("REMOTE_ADDR", ""), origin.get("HTTP_USER_AGENT", "")
    else:
        address = (origin.get("client") or ("",))[0]
        agent = next((value.decode("latin-1") for name, value in origin.get("headers", ()) if name == b"user-agent"), "")
    return Device(str(address), str(agent)[:AGENT_CHARS_MAX])


def with_device(engine: Engine, change: Patch, user: str | None, origin: Mapping[str, Any]) -> Patch:
    """`change` as the first of a login."""
    if user is None or not origin or not engine.config.devices:
        return change
    return msgspec.structs.replace(change, extra=device_extra(device_from(origin)))


def admitted(engine: Engine, user: str | None) -> Operation[list[tuple[Key, Record]]]:
    """Before a login is stored: the sessions that end for it, as they logged in first. Raises `TooManySessions`, and
    `SessionUnavailable` while nobody knows how many there are."""
    limit = engine.config.user_sessions_max
    if user is None or limit is None:
        return []
    sessions = (yield from listed(engine, user)).sessions
    if len(sessions) < limit:
        return []
    if engine.config.user_sessions_over == REFUSE:
        engine.count("login_over_limit")
        raise TooManySessions(limit)
    return sorted(sessions.items(), key=lambda item: item[1].logged_in)[: len(sessions) + 1 - limit]


def made_room(engine: Engine, oldest: list[tuple[Key, Record]]) -> Operation[None]:
    """After a login was stored. It stands: an end that gets no answer waits wherever it could be left, and the next login of
    that user finds what still has not ended."""
    for key, record in oldest:
        engine.count("login_over_limit")
        try:
            yield from end_session(engine, key, Placement(record.epoch, record.owners), "too many sessions")
            yield from end_graces(engine, record)
        except SessionUnavailable:  # counted and logged there
            continue


def listed(engine: Engine, user: str) -> Operation[Listing]:
    """The live sessions of the user. Two nodes without an answer may be both owners of one: raises `SessionUnavailable`."""
    listing = yield from sessions_of(engine.cluster(), engine.host.bars.labels(user))
    if len(listing.silent) > 1:
        raise SessionUnavailable(f"{', '.join(listing.silent)} gave no answer, and may hold sessions of this user")
    return listing
