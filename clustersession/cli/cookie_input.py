"""What stands in a cookie that was given on standard input: the ID, verified with the ring of the settings, or why it is none."""

from __future__ import annotations

from collections.abc import Iterable
from time import time
from typing import NamedTuple

from ..config import Config
from ..core.cookie import scan
from ..core.keyring import KeyRing
from ..core.session_id import (
    SESSION_ID_LENGTH,
    IdContext,
    SessionId,
    claimed_kid,
    looks_like_ours,
    node_tag,
    outlived,
    verify,
)
from ..core.verdict import Named
from ..errors import BadSessionId

TRIED_MAX = 3  # as in a request: of more cookies with our names none is taken
_OWNER_CHARS = 8


class Refused(NamedTuple):
    """`reason` is a fixed word, `words` a sentence without its full stop. Neither shows any of the cookie."""

    reason: str
    words: str


def read_id(text: str, config: Config, ring: KeyRing, cookie_names: tuple[str, ...]) -> SessionId | Refused:
    """The session's ID in `text`: the value of a Cookie header, `name=value`, or the bare ID."""
    text = text.strip()
    if text[:7].lower() == "cookie:":
        text = text[7:].strip()
    if looks_like_ours(text):
        return _best([_verified(text, config, ring, name) for name in cookie_names])
    found = list(dict.fromkeys(scan((text,), cookie_names)))
    if not found:
        wanted = " or ".join(cookie_names)
        return Refused("no_cookie", f"there is no cookie {wanted} in it, and it is no bare ID; --cookie names another one")
    if len(found) > TRIED_MAX:
        return Refused("ambiguous", f"there are more than {TRIED_MAX} different cookies of our names: requests take none of them")
    return _best([_verified(value, config, ring, name) for name, value in found])


def _best(tried: list[SessionId | Refused]) -> SessionId | Refused:
    """As a request takes it: one session, and of several IDs of that one the latest."""
    valid = [each for each in tried if isinstance(each, SessionId)]
    if len({each.key for each in valid}) > 1:
        return Refused("ambiguous", "there are the cookies of two sessions: requests take neither of them")
    return max(valid, key=lambda each: each.floor, default=tried[0])


def _verified(text: str, config: Config, ring: KeyRing, name: str) -> SessionId | Refused:
    try:
        return verify(text, ring, IdContext(config.cluster, name))
    except BadSessionId as error:
        return Refused(error.reason, _why(error.reason, text, config, ring, name))


def _why(reason: str, text: str, config: Config, ring: KeyRing, name: str) -> str:
    kids = f"this ring has {', '.join(map(str, ring.kids))}"
    match reason:
        case "length":
            return f"it is not of our form: {len(text)} characters, and an ID has {SESSION_ID_LENGTH}; cut, or of another system"
        case "alphabet":
            return "it is not of our form: there are characters in it that no ID has; changed, or of another system"
        case "kid":
            return f"it was made with key {claimed_kid(text)}, and {kids}: that key is retired, or it is of another cluster"
    made = f"cluster {config.cluster!r}, cookie {name!r} and key {claimed_kid(text)} as this ring has it"
    return f"it was not made for {made}: forged or changed, or of another cluster, cookie or key"


def named_in(sid: SessionId, config: Config, ring: KeyRing, members: Iterable[str]) -> Named:
    """What a verified ID says, with the identities of its owners."""
    key = ring.get(sid.kid)
    tags = {node_tag(key, each, 0)[:_OWNER_CHARS]: each for each in members} if key else {}
    tagged = [sid.master] if sid.backup is None else [sid.master, sid.backup]
    now = time()
    absolute_s = config.lifetimes.absolute_s if config.lifetimes_set else None
    return Named(
        owners=tuple(tags.get(tag[:_OWNER_CHARS]) for tag in tagged),
        floor=sid.floor,
        age_s=max(0.0, now - sid.born * 60.0),
        outlived=outlived(sid, now, absolute_s),
    )
