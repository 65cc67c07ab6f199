"""Every error of the package, as one tree. Each says what happened, to what, and what to do.

ClusterSessionError
├── ConfigError               a setting is missing or wrong (raised when the app is wrapped)
├── BadSessionId              a cookie of our form that does not verify; never leaves the pipeline
├── SessionUnavailable        no owner answered: 503, the cookie is left alone
├── SessionRefused            the app's change cannot be kept
│   ├── LateWrite             the session was ended or rotated meanwhile: 409
│   │   └── ConflictingWrite  a value is no longer what the app expects: 409
│   ├── SessionTooLarge       over a limit; the stored version is intact
│   ├── ValueNotSupported     a value or key no session can hold
│   │   └── ValueTypeMismatch an operation on a value of another type
│   └── ChangeAfterResponse   changed when nothing can be saved any more
├── Corrupt                   bytes that do not decode or whose seal is broken
├── StoreError
│   ├── StoreFull             no room, and nothing may be evicted
│   ├── ShardDown             a writer holds the lock of this sixteenth and does not move
│   └── StoreRefused          the files are of another boot, owner or version
├── SourceError
│   ├── SourceUnavailable     the old system's store gives no answer
│   └── SourceRefused         a session that is not taken over and stays there
└── PeerError
    ├── PeerRefused           wrong key, wrong cluster, no common key
    └── WireError             what a peer sent does not parse, or its authentication is broken
"""

from __future__ import annotations

from typing import Final


class ClusterSessionError(Exception):
    """Base of all errors of this package."""


class ConfigError(ClusterSessionError):
    """A setting is missing or wrong: which one, what is wrong with it, how to mend it."""

    def __init__(self, setting: str, problem: str, remedy: str) -> None:
        self.setting, self.problem, self.remedy = setting, problem, remedy
        super().__init__(f"{setting}: {problem}. {remedy}")


class BadSessionId(ClusterSessionError):
    """A text of our form that is not a session ID of this cluster; `reason` is a fixed word."""

    def __init__(self, reason: str) -> None:
        self.reason = reason
        super().__init__(f"not a session ID of this cluster: {reason}")


class SessionUnavailable(ClusterSessionError):
    """No owner of the session answered in time. The session may well exist: answer 503, keep the cookie."""

    def __init__(self, why: str, *, retry_after_s: int = 1) -> None:
        self.why, self.retry_after_s = why, retry_after_s
        super().__init__(f"the session cannot be reached ({why}); retry in {retry_after_s} s")


class SessionRefused(ClusterSessionError):
    """Base of what an app's change to its session can be refused for."""


class LateWrite(SessionRefused):
    """The session was ended or rotated while this request changed it; nothing was written (409, Retry-After 0)."""

    def __init__(self, reason: str, text: str = "") -> None:
        self.reason = reason
        super().__init__(
            text
            or f"the session was ended meanwhile ({reason}), so this change was not saved; repeat the request with the cookie "
            "the browser has now"
        )


class ConflictingWrite(LateWrite):
    """What is stored under `key` is not what `session.expect` named; nothing was written (409, Retry-After 0)."""

    def __init__(self, key: str) -> None:
        self.key = key
        problem = f"session[{key!r:.64}] is not what this request expects to be stored, so nothing of it was saved"
        super().__init__("conflict", f"{problem}; repeat the request, which then sees what another one has stored")


class SessionLocked(LateWrite):
    """`session.lock`: another request has that lock, and did not give it up in time; nothing was written (409)."""

    def __init__(self, name: str, wait_s: float) -> None:
        self.lock = name
        super().__init__("locked", f"another request of this session has the lock {name!r:.64}, and kept it for {wait_s:g} s")


class LockLost(LateWrite):
    """The lease of a lock ran out before the request was done, and another one has it; nothing was written (409)."""

    def __init__(self, name: str) -> None:
        self.lock = name
        remedy = "take the lock with a longer lease_s, or do less under it"
        super().__init__(
            "lock lost", f"the lock {name!r:.64} ran out and is another request's now, so nothing was saved; {remedy}"
        )


class TooManySessions(LateWrite):
    """The user has as many sessions as are allowed, so this login was not stored (409)."""

    def __init__(self, limit: int) -> None:
        self.limit = limit
        remedy = "log out elsewhere first (CLUSTERSESSION_USER_SESSIONS_OVER=end-oldest would end the oldest instead)"
        super().__init__("too many sessions", f"this user is logged in {limit} times, which is the limit; {remedy}")


class LoginTooOld(SessionRefused):
    """`session.require_fresh`: the user has not shown for too long who they are. Ask for the password again, then call
    `session.refresh_login()`. `age_s` None: nobody is logged in, or a system before this one did not say since when."""

    def __init__(self, age_s: float | None, max_age_s: float) -> None:
        self.age_s, self.max_age_s = age_s, max_age_s
        since = "nobody is logged in, or nobody knows since when" if age_s is None else f"the login is {age_s:.0f} s old"
        super().__init__(f"{since}, and this needs one of at most {max_age_s:.0f} s; let the user log in again")


class SessionTooLarge(SessionRefused):
    """A limit of the session would be passed; the stored version is untouched."""

    def __init__(self, what: str, size: int, limit: int) -> None:
        self.what, self.size, self.limit = what, size, limit
        super().__init__(f"{what} is {size}, the limit is {limit}; keep large data elsewhere and only its key in the session")


class ValueNotSupported(SessionRefused):
    """A key or value that a session cannot hold."""


class ValueTypeMismatch(ValueNotSupported):
    """`session.incr`, `append`, `add` or `discard` on a value of a type it is not for; nothing was changed."""

    def __init__(self, operation: str, key: str, found: str) -> None:
        self.operation, self.key, self.found = operation, key, found
        wanted = _OPERATES_ON.get(operation, "a value of a later release")
        super().__init__(
            f"session.{operation}({key!r:.64}) is for {wanted}, but the stored value is of type {found}; nothing was changed: "
            "use another key, or assign a value of the right type first"
        )


_OPERATES_ON: Final = {"incr": "an int or float", "append": "a list", "add": "a set", "discard": "a set"}


class ChangeAfterResponse(SessionRefused):
    """The session was changed when the response had gone out and the change can no longer be saved."""


class Corrupt(ClusterSessionError):
    """Stored or received bytes that do not decode, or whose seal is broken."""


class StoreError(ClusterSessionError):
    """Base of what can go wrong in the host's store."""


class StoreFull(StoreError):
    """No room is left and nothing stored may be evicted for this."""


class ShardDown(StoreError):
    """The write lock of one sixteenth of the store is held by a process that does not move."""

    def __init__(self, shard: int, holder_pid: int | None) -> None:
        self.shard, self.holder_pid = shard, holder_pid
        super().__init__(
            f"sixteenth {shard:x} of the store is locked by process {holder_pid or 'unknown'}, which does not move; resume or "
            "kill that process"
        )


class StoreRefused(StoreError):
    """The store's place or files cannot be used as they are."""


class SourceError(ClusterSessionError):
    """Base of what can go wrong with sessions of another system, that are to be taken over."""


class SourceUnavailable(SourceError):
    """The other system's store gives no answer, so it is not known whether there is a session."""


class SourceRefused(SourceError):
    """A session with something in it that is not taken over: a pickle of a type off the list. It stays where it is."""


class PeerError(ClusterSessionError):
    """Base of what can go wrong between nodes."""


class PeerRefused(PeerError):
    """The other side could not prove that it belongs to this cluster."""


class WireError(PeerError):
    """A message that does not parse, is over a limit, or fails authentication."""
