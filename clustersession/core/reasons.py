"""Why a session that a browser asked for was refused: one word for each reason, for logs, counters and the doctor."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final, NamedTuple

from .keyring import KeyRing
from .node import NO_TAG
from .session_id import SESSION_ID_LENGTH, SessionId, claimed_kid, node_tag

YOUNG_S: Final = 300.0  # an ID that was refused so soon was refused to a user who had just got it
OVERSIZED_CHARS: Final = 4096  # browsers keep no longer cookie (RFC 6265bis): it was made by a program
_IDENTITY_CHARS: Final = 8


class Reason(NamedTuple):
    """`words`: half a sentence. `warns`: worth a warning; the others are part of the life of a site. `over`: the session itself
    is over, so the cookie was a good one once."""

    words: str
    warns: bool = False
    over: bool = False


REASONS: Final[dict[str, Reason]] = {
    "not_ours": Reason("the cookie of our name is not of our form: of another system, or cut"),
    "oversized": Reason("the cookie of our name is longer than any browser keeps", warns=True),
    "unknown_key": Reason("it was made with a key that this host's ring does not have: retired, or another cluster's"),
    "foreign": Reason("it names none of our hosts and does not verify: of another cluster or secret, or forged", warns=True),
    "tampered": Reason("it names one of our hosts and does not verify: changed, forged or of another cookie name", warns=True),
    "duplicate": Reason("there were several cookies of our names, of which not exactly one is a session", warns=True),
    "outlived": Reason("its ID is older than the absolute limit", over=True),
    "logout": Reason("it was logged out", over=True),
    "emptied": Reason("a request left nothing in it, which ended it", over=True),
    "rotated": Reason("it got a new ID, as at each login, and this is the old one", over=True),
    "expired_idle": Reason("nobody used it for longer than it may idle", over=True),
    "expired_absolute": Reason("it reached its absolute limit", over=True),
    "ended": Reason("it was ended", over=True),
    "lost": Reason("it is lost: no host has anything of it any more", warns=True),
    "unavailable": Reason("it cannot be reached: a host that may have it gave no answer", warns=True),
    "late_write": Reason("it was ended or rotated while this request changed it, so the change was refused"),
}
_ENDINGS: Final = {"expired: idle": "expired_idle", "expired: absolute": "expired_absolute"}


def of_ending(reason: str) -> str:
    """The code for what a tombstone says."""
    code = _ENDINGS.get(reason, reason)
    return code if code in REASONS else "ended"


def of_bad_id(reason: str, text: str, ring: KeyRing, members: Iterable[str]) -> str:
    """The code for a text that `session_id.verify` refused with `reason`; `members` are the identities of our hosts.

    Which of its parts is wrong no MAC can say. But the tag of its master was made with the key too: if that names a host of
    ours, the ID was most likely made here, and something else in it, or what it is used for, is another.
    """
    match reason:
        case "length":
            return "oversized" if len(text) > OVERSIZED_CHARS else "not_ours"
        case "alphabet":
            return "not_ours"
        case "kid":
            return "unknown_key"
    key = ring.get(claimed_kid(text)) if len(text) == SESSION_ID_LENGTH else None
    named = text[:_IDENTITY_CHARS]
    ours = key is not None and any(node_tag(key, each, 0)[:_IDENTITY_CHARS] == named for each in members)
    return "tampered" if ours and named != NO_TAG[:_IDENTITY_CHARS] else "foreign"


def age_of(sid: SessionId, wall_s: float) -> float:
    """Seconds since the ID was issued, by the wall clocks of two hosts: may be below 0."""
    return wall_s - 60.0 * sid.born
