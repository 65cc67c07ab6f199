"""The session as the app sees it: a mapping over encoded values that knows what of it was changed.

A value is decoded when it is first touched. At the end of the request every touched value that could have been changed in
place is encoded again and compared with what was loaded, so `session["cart"].append(x)` needs no flag to be saved.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final, Literal, NamedTuple

from ..config import Limits
from ..errors import ChangeAfterResponse, Corrupt, SessionTooLarge, ValueNotSupported, ValueTypeMismatch
from .dict_like import DictLike
from .edits import UNKNOWN_TYPE, Edit, Intent, Operations, applied, check_expected, check_type, edit_of, start_of
from .freshness import Freshness
from .values import HIDDEN, UNCHANGEABLE, check_depth, decode_value, encode_value, fingerprint, is_immutable, user_name

Rotation = Literal["strict", "grace"]

_NO_KEYS: Final[frozenset[str]] = frozenset()
_NOTHING: Final[Mapping[str, bytes]] = {}


class LifetimeChange(NamedTuple):
    """What the app asked for: seconds without a request, and seconds from now on; None is without that limit."""

    idle_s: float | None
    absolute_in_s: float | None


class Session(Operations, Freshness, DictLike):
    """Behaves as a dict with text keys. Ages are in seconds, None where unknown.

    `accessed` says whether the app has looked at it at all, `modified` whether it has set or deleted anything or said so
    itself; what is really saved is `changes()`. A stored value that cannot be decoded is missing to the app and left as
    it is, unless its key is assigned. The app's own errors: `ValueNotSupported` and `SessionTooLarge` for what cannot be
    held (the value's when the request ends), `ChangeAfterResponse` for what comes too late.
    """

    __slots__ = (
        "_assigned",
        "_auth_age_s",
        "_created_age_s",
        "_deleted",
        "_handle",
        "_intent",
        "_is_new",
        "_items",
        "_limits",
        "_modified",
        "_on_undecodable",
        "_rotation",
        "_undecodable",
        "_values",
        "accessed",
        "closed",
        "ended",
        "lifetime_change",
        "locks",
        "login_refreshed",
    )

    def __init__(
        self,
        items: Mapping[str, bytes] | None = None,
        *,
        handle: str | None = None,
        created_age_s: float | None = None,
        auth_age_s: float | None = None,
        is_new: bool = True,
        limits: Limits | None = None,
        on_undecodable: Callable[[str], None] | None = None,
    ) -> None:
        self._begin(limits or _DEFAULT_LIMITS, on_undecodable)
        self._items: Mapping[str, bytes] = {} if items is None else items
        self._handle, self._is_new = handle, is_new
        self._created_age_s, self._auth_age_s = created_age_s, auth_age_s

    def _begin(self, limits: Limits, on_undecodable: Callable[[str], None] | None) -> None:
        """All that is the same for every session, whatever is stored of it."""
        self.accessed = self.closed = self.ended = self._modified = self.login_refreshed = False
        self.lifetime_change: LifetimeChange | None = None
        self.locks: Mapping[str, bytes] = _NOTHING  # that this request has: name and token
        self._rotation: Rotation | None = None
        self._intent: Intent | None = None  # nearly always
        self._values: dict[str, Any] = {}  # decoded or assigned
        self._assigned: set[str] | frozenset[str] = _NO_KEYS
        self._deleted: set[str] | frozenset[str] = _NO_KEYS
        self._undecodable: set[str] | frozenset[str] = _NO_KEYS
        self._limits, self._on_undecodable = limits, on_undecodable

    # --- the mapping -------------------------------------------------------------------------------------------------

    def __getitem__(self, key: str) -> Any:
        self.accessed = True
        return self._values[key] if key in self._values else self._decoded(key)

    def _decoded(self, key: str) -> Any:
        items = self._items  # where it loads now, values may come with it that are newer
        if key in self._values:
            return self._values[key]
        if key not in items or key in self._deleted or key in self._undecodable:
            raise KeyError(key)
        try:
            value = self._values[key] = decode_value(items[key])
        except Corrupt:
            self._undecodable = self._undecodable | {key}
            if self._on_undecodable is not None:
                self._on_undecodable(key)
            raise KeyError(key) from None
        return value

    def __setitem__(self, key: str, value: Any) -> None:
        key = _checked_key(key)
        self._changing(key)
        self._assign(key, value)

    def _assign(self, key: str, value: Any) -> None:
        self._values[key] = value
        self._assigned |= {key}
        self._deleted -= {key}
        self._undecodable = self._undecodable - {key}
        if self._intent is not None:
            self._intent.drop(key)

    def __delitem__(self, key: str) -> None:
        self[key]  # KeyError if there is none
        self._changing(key)
        del self._values[key]
        if key in self._items or key in self._edited():
            self._deleted |= {key}
        if self._intent is not None:
            self._intent.drop(key)

    def __iter__(self) -> Iterator[str]:
        stored = [key for key in self._items if key in self]
        self.accessed = True
        return iter(stored + [key for key in self._values if key not in self._items])

    def __len__(self) -> int:
        return sum(1 for _ in self)

    def __contains__(self, key: object) -> bool:
        self.accessed = True
        if key in self._values:
            return True
        try:
            self._decoded(key)  # type: ignore[arg-type]  # what is no text is no key either
        except KeyError:
            return False
        return True

    def __repr__(self) -> str:
        return f"<Session {self._handle or 'not stored'}: {', '.join(map(repr, self)) or 'empty'}>"

    def clear(self) -> None:
        """Delete every key, also those whose values cannot be decoded."""
        self._changing()
        self._values.clear()
        self._assigned = _NO_KEYS
        self._deleted |= self._items.keys() | self._edited().keys()
        if self._intent is not None:
            self._intent.drop_all()

    # --- operations ------------------------------------------------------------------------------------------------------

    def _edit(self, operation: str, key: str, operand: object) -> Any:
        key = _checked_key(key)
        edit = edit_of(operation, key, operand)
        known = key in self
        if key in self._undecodable and key not in self._deleted:
            raise ValueTypeMismatch(operation, key, UNKNOWN_TYPE)
        value = self._values[key] if known else start_of(operation)
        check_type(operation, key, value)
        self._changing(key)
        whole = key in self._assigned or key in self._deleted or (known and self._is_changed(key, value))
        result = applied(operation, key, value, operand)
        if whole:
            self._assign(key, result)
            return result
        self._values[key] = result
        self._intent = self._intent or Intent()
        self._intent.edit(edit, encode_value(result, key))
        return result

    def _is_changed(self, key: str, value: object) -> bool:
        """Whether a value that was not assigned has been changed in place."""
        return not is_immutable(value) and encode_value(value, key) != self._edited().get(key, self._items.get(key))

    def _edited(self) -> Mapping[str, bytes]:
        return _NOTHING if self._intent is None else self._intent.results

    def _expect(self, key: str, data: bytes | None) -> None:
        key = _checked_key(key)
        self.accessed = True
        self._items  # noqa: B018  (a session that cannot be reached raises here, not when it is saved)
        self._intent = self._intent or Intent()
        self._intent.expected[key] = data

    # --- what else an app and its framework may ask for ----------------------------------------------------------------

    @property
    def modified(self) -> bool:
        return self._modified

    @modified.setter
    def modified(self, modified: bool) -> None:
        if modified:
            self._changing()
        self._modified = modified

    @property
    def id(self) -> str | None:
        """The public handle: stays the same when owners change, is no cookie. None until the session has been stored."""
        self.accessed = True
        return self._handle

    @property
    def is_new(self) -> bool:
        """Whether the request came without a session."""
        self.accessed = True
        return self._is_new

    @property
    def created_age_s(self) -> float | None:
        self.accessed = True
        return self._created_age_s

    @property
    def auth_age_s(self) -> float | None:
        """Seconds since the principal was set or confirmed: what `require_fresh` is decided by."""
        self.accessed = True
        return self._auth_age_s

    @property
    def rotation(self) -> Rotation | None:
        """The rotation asked for. None for an ended session: what is written after the end has a new ID anyway."""
        return None if self.ended else self._rotation

    def end(self) -> None:
        """Log out: the stored session is ended for good before the response starts. What is set later begins a new one."""
        self._changing()
        self.ended = True
        self.lifetime_change = self._handle = self._intent = None
        self._items = {}
        self._values.clear()
        self._assigned = self._deleted = self._undecodable = _NO_KEYS

    def rotate(self, grace: bool = False) -> None:
        """Move everything to a new ID and end the old one, at once or (`grace`) kept readable for parallel requests: for 10 s
        or until the user is logged out.

        Of several calls in a request the one without grace counts, and there is none where the user goes or changes.
        """
        self._changing()
        self._rotation = "grace" if grace and self._rotation != "strict" else "strict"

    def refresh_login(self) -> None:
        """The user has shown again who they are: the login counts as of now, and the session gets a new ID."""
        self.rotate()
        self.login_refreshed = True

    def set_lifetime(self, idle_s: float | None, absolute_in_s: float | None) -> None:
        """Let it live for `idle_s` after each request, and for `absolute_in_s` from now on; None is without that limit."""
        for seconds in (idle_s, absolute_in_s):
            if seconds is not None and not seconds > 0:
                raise ValueError(f"a lifetime is a number of seconds above 0, not {seconds!r}; to end the session call end()")
        self._changing()
        self.lifetime_change = LifetimeChange(idle_s, absolute_in_s)

    # --- for the pipeline: none of it counts as the app's access ---------------------------------------------------------

    def changes(self) -> dict[str, bytes | None]:
        """The encoded values that differ from what was loaded, None for a deleted key; and those that operations are about.

        After `end()` it is what the session that comes next starts with. Raises `ValueNotSupported`.
        """
        items, assigned, edited = self._items, self._assigned, self._edited()
        found: dict[str, bytes | None] = dict.fromkeys(self._deleted)
        found.update(edited)
        for key, value in self._values.items():
            if type(value) not in UNCHANGEABLE or key in assigned:
                data = encode_value(value, key)
                if data != items.get(key) or key in edited:
                    check_depth(value, self._limits.depth_max, key)
                    found[key] = data
        return found

    def intent(self, changes: Mapping[str, bytes | None]) -> tuple[tuple[Edit, ...], Mapping[str, bytes | None]]:
        """Which of `changes` travel as operations, and what must be stored when they are saved."""
        return ((), {}) if self._intent is None else (self._intent.edits_within(changes), self._intent.expected)

    def check_expected(self) -> None:
        """For a session that nobody has stored yet. Raises `ConflictingWrite`."""
        if self._intent is not None:
            check_expected(self._intent.expected, self._items.get)

    def check_limits(self, changes: Mapping[str, bytes | None] | None = None) -> int:
        """The bytes of keys and values with `changes` (default: its own), for the soft warning.

        Raises `SessionTooLarge` where a limit is passed, but not for a change that makes an oversized session smaller, and
        `ValueNotSupported` for a key that is too long.
        """
        changes = self.changes() if changes is None else changes
        for key, data in changes.items():
            if data is not None and (length := len(key.encode())) > self._limits.key_length_max:
                problem = f"the key {key[:32]!r}... has {length} bytes, the limit is {self._limits.key_length_max}"
                raise ValueNotSupported(f"{problem}; use short fixed names and put what varies into the value")
        before, after = self._items, {**self._items, **changes}
        count = sum(data is not None for data in after.values())
        if count > max(self._limits.keys_max, len(before)):
            raise SessionTooLarge("the number of keys in the session", count, self._limits.keys_max)
        size = _size(after)
        if size > self._limits.session_bytes_max and size > _size(before):
            raise SessionTooLarge("the size of the session in bytes", size, self._limits.session_bytes_max)
        return size

    @property
    def stored_items(self) -> Mapping[str, bytes]:
        """The encoded values as they were loaded, or saved since."""
        return self._items

    def saved(self, changes: Mapping[str, bytes | None], handle: str | None) -> None:
        """Go on from `changes` as stored under `handle`: a body that is still being sent may change more."""
        after = {**self._items, **changes}
        self._items = {key: data for key, data in after.items() if data is not None}
        self._assigned = self._deleted = _NO_KEYS
        self._handle, self._is_new, self._modified, self._rotation = handle, False, False, None
        self.ended = self.login_refreshed = False
        self.lifetime_change, self._intent, self.locks = None, None, _NOTHING

    def close(self) -> None:
        """From now on nothing can be saved: a change raises `ChangeAfterResponse`. Nested ones still show in `changes()`."""
        self.closed = True

    def principal(self, keys: tuple[str, ...]) -> str | None:
        """Who is logged in: the value of the first of `keys` that is there and not None or "".

        Text and numbers as text; of anything else (a dict of claims, bytes that do not decode) a digest; and see `user_name`.
        """
        accessed = self.accessed
        try:
            return next((who for who in map(self._principal_under, keys) if who), None)
        finally:
            self.accessed = accessed

    def _principal_under(self, key: str) -> str | None:
        value = self.get(key)
        if key in self._undecodable and key not in self._deleted:
            return fingerprint(self._items[key])
        if value is None or value is False:
            return None
        if isinstance(value, str):
            return user_name(str(value))
        return str(value) if is_immutable(value) and not isinstance(value, bytes) else fingerprint(encode_value(value, key))

    def _changing(self, key: str | None = None) -> None:
        if self.closed:
            what = "the session" if key is None else f"session[{key!r:.64}]"
            problem = f"{what} was changed when the response had been sent and nothing can be saved any more"
            raise ChangeAfterResponse(
                f"{problem}; change it before the response ends, or keep the result of a later job elsewhere"
            )
        if self._assigned is _NO_KEYS:
            self._assigned, self._deleted = set(), set(self._deleted)
        self.accessed = self._modified = True


_DEFAULT_LIMITS = Limits()


def _checked_key(key: object) -> str:
    if isinstance(key, str) and key[:1] == HIDDEN:
        raise ValueNotSupported(f"the key {key!r:.64} begins with a zero character, as only keys of clustersession itself do")
    if not isinstance(key, str):
        raise ValueNotSupported(f"the key {key!r:.64} is of type {type(key).__qualname__}; session keys are text, use str(key)")
    try:
        key.encode()
    except UnicodeEncodeError:
        raise ValueNotSupported(f"the key {key!r:.64} has lone surrogates, which is not Unicode") from None
    return str.__str__(key)


def _size(items: Mapping[str, bytes | None]) -> int:
    return sum(len(key.encode()) + len(data) for key, data in items.items() if data is not None)
