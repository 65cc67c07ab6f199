"""What a session adds to a response, and how that joins the headers the app has set itself."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Final, NamedTuple, TypeAlias

Header: TypeAlias = tuple[str, str]
_Merge: TypeAlias = Callable[[str | None], str]


class SessionHeaders(NamedTuple):
    """`cookies`: values of Set-Cookie, to be appended. `vary`: the session was looked at, so caches must tell users apart."""

    cookies: tuple[str, ...] = ()
    vary: bool = False

    @property
    def no_store(self) -> bool:
        """A response that carries an ID belongs to one user and in no cache (OWASP ASVS 5.0, 14.3.2)."""
        return bool(self.cookies)

    def __or__(self, earlier: SessionHeaders) -> SessionHeaders:
        return SessionHeaders((*earlier.cookies, *self.cookies), self.vary or earlier.vary)


NOTHING: Final = SessionHeaders()
LOOKED_AT: Final = SessionHeaders(vary=True)


def is_plain(scheme: str, forwarded_proto: str | None) -> bool:
    """Whether the browser seems to have asked over plain HTTP, by what the server saw and a proxy says (X-Forwarded-Proto).
    Anybody can send that field: for diagnosis only."""
    first = (forwarded_proto or scheme).partition(",")[0].strip().lower()
    return first not in ("https", "wss")


def vary_on_cookie(vary: str | None) -> str:
    """The app's Vary value with Cookie in it."""
    if not vary or not vary.strip(", "):
        return "Cookie"
    names = {name.strip().lower() for name in vary.split(",")}
    return vary if names & {"cookie", "*"} else f"{vary}, Cookie"


def never_stored(cache_control: str | None) -> str:
    """The app's Cache-Control value with no-store in it, and without what would contradict it."""
    directives = [each.strip() for each in (cache_control or "").split(",")]
    kept = [each for each in directives if each and each.lower() not in ("public", "no-store")]
    return ", ".join((*kept, "no-store"))


def joined(headers: Iterable[Header], session: SessionHeaders) -> list[Header]:
    """The response's headers with those of the session. Of the app's own only Vary and Cache-Control may change."""
    result = list(headers)
    if session.vary:
        result = _merged(result, "Vary", vary_on_cookie)
    if session.no_store:
        result = _merged(result, "Cache-Control", never_stored)
        result += [("Set-Cookie", cookie) for cookie in session.cookies]
    return result


def _merged(headers: list[Header], name: str, merge: _Merge) -> list[Header]:
    """All fields of that name as one (RFC 9110, 5.3), in the place of the first."""
    lower = name.lower()
    values = [value for each, value in headers if each.lower() == lower]
    if not values:
        return [*headers, (name, merge(None))]
    value = ", ".join(values)
    merged = merge(value)
    if merged == value:
        return headers
    first = next(place for place, (each, _) in enumerate(headers) if each.lower() == lower)
    rest = [header for header in headers[first + 1 :] if header[0].lower() != lower]
    return [*headers[:first], (headers[first][0], merged), *rest]
