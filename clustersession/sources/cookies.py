"""Sessions that are their cookie: signed, with the time at which they were written. They cannot be ended on their own.

One session may have many valid cookies. The time in the cookie is what its system counts the age from, so a session that
has to end earlier is stamped earlier.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from datetime import UTC, tzinfo
from typing import Any, Final

from ..errors import SourceRefused
from .forms import DjangoForm, FlaskForm, Form, Opened, StarletteForm, StarsessionsForm, own_limits
from .signing import Signer, Stamped, django_signer, itsdangerous_signer, stamp_for
from .source import Legacy

COOKIE_BYTES_MAX: Final = 16 * 1024  # several times of what a browser keeps
STARSESSIONS_AGE_S: Final = 360 * 86400  # of what ends with the browser
UNWRITABLE: Final = (TypeError, ValueError, OverflowError, RecursionError)


class SignedCookie:
    """Reads and writes the cookies of one library; `max_age_s` None if they never grow too old."""

    keyless = True

    def __init__(self, name: str, cookie_name: str, signer: Signer, form: Form, max_age_s: float | None) -> None:
        self.name, self.cookie_name = name, cookie_name
        self._signer, self._form, self._max_age_s = signer, form, max_age_s

    def read(self, cookie: str, now: float) -> Legacy | None:
        """The session in the cookie; None if its system would not take it. Raises `SourceRefused`."""
        found = self._opened(cookie, now)
        if found is None:
            return None
        at, opened = found
        expires = None if self._max_age_s is None else at + self._max_age_s
        own = self._own_limits(opened, now)
        return Legacy(opened.items, None, float(at), opened.created, expires, opened.persistent, *own)

    def write(self, cookie: str | None, items: Mapping[str, Any], expires: float | None, now: float) -> str | None:
        """The cookie for this state; None if the browser's says the same. Raises `SourceRefused` for values that it cannot hold.

        It is stamped with the time `now`, or earlier if it has to end at `expires` (Unix s) before its age ends it.
        """
        found = None if cookie is None else self._opened(cookie, now)
        before = None if found is None else found[1]
        at = stamp_for(now, expires, self._max_age_s)
        try:
            body = self._form.encode(items, before, now, expires)
        except UNWRITABLE as error:
            raise SourceRefused(f"a cookie of {self.name} cannot hold this session: {error}") from None
        if found is not None and abs(found[0] - at) <= 1 and self._form.encode(found[1].items, before, now, expires) == body:
            return None
        return self._signer.stamp(body, at)

    def end(self, cookie: str) -> None:
        """Nothing: the browser has it."""

    def _own_limits(self, opened: Opened, now: float) -> tuple[float | None, float | None]:
        """`Legacy.idle_s` and `Legacy.deadline`."""
        return None, None

    def _opened(self, cookie: str, now: float) -> tuple[int, Opened] | None:
        if len(cookie) > COOKIE_BYTES_MAX:
            return None
        stamped: Stamped | None = self._signer.unstamp(cookie, now, self._max_age_s)
        if stamped is None:
            return None
        try:
            return stamped.at, self._form.decode(stamped.value)
        except ValueError:
            return None


class FlaskCookie(SignedCookie):
    """Flask's own session. `fallbacks` is SECRET_KEY_FALLBACKS, `lifetime_s` PERMANENT_SESSION_LIFETIME."""

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        fallbacks: Iterable[str | bytes] = (),
        lifetime_s: float = 31 * 86400,
        cookie_name: str = "session",
        permanent: bool = False,
        digest: str = "sha1",
    ) -> None:
        signer = itsdangerous_signer([secret_key, *fallbacks], "cookie-session", derivation="hmac", digest=digest)
        super().__init__("flask-cookie", cookie_name, signer, FlaskForm(permanent=permanent), lifetime_s)


class StarletteCookie(SignedCookie):
    """The session of Starlette's and FastAPI's `SessionMiddleware`."""

    def __init__(self, secret_key: str | bytes, *, max_age_s: float | None = 14 * 86400, cookie_name: str = "session") -> None:
        signer = itsdangerous_signer([secret_key], "itsdangerous.Signer")
        super().__init__("starlette-cookie", cookie_name, signer, StarletteForm(persistent=max_age_s is not None), max_age_s)


class StarsessionsCookie(SignedCookie):
    """starsessions' `CookieStore`; `lifetime_s` and `rolling` are the middleware's, 0 for until the browser is closed."""

    def __init__(
        self, secret_key: str | bytes, *, lifetime_s: int = 0, rolling: bool = False, cookie_name: str = "session"
    ) -> None:
        signer = itsdangerous_signer([secret_key], "itsdangerous.Signer")
        form = StarsessionsForm(lifetime_s, in_cookie=True)
        super().__init__("starsessions-cookie", cookie_name, signer, form, lifetime_s or STARSESSIONS_AGE_S)
        self._starsessions, self._fixed = form, lifetime_s > 0 and not rolling

    def _own_limits(self, opened: Opened, now: float) -> tuple[float | None, float | None]:
        return None, self._starsessions.end_of(opened) if self._fixed else None


class DjangoCookie(SignedCookie):
    """Django's `signed_cookies`. `age_s` is SESSION_COOKIE_AGE, `browser_close` SESSION_EXPIRE_AT_BROWSER_CLOSE; `zone` is what a
    session's own end without a zone is in (with USE_TZ off)."""

    def __init__(
        self,
        secret_key: str | bytes,
        *,
        fallbacks: Iterable[str | bytes] = (),
        age_s: float = 14 * 86400,
        cookie_name: str = "sessionid",
        browser_close: bool = False,
        zone: tzinfo = UTC,
    ) -> None:
        signer = django_signer([secret_key, *fallbacks], "django.contrib.sessions.backends.signed_cookies")
        super().__init__("django-cookie", cookie_name, signer, DjangoForm(None, browser_close=browser_close), age_s)
        self._zone = zone

    def _own_limits(self, opened: Opened, now: float) -> tuple[float | None, float | None]:
        return own_limits(opened.items, now, self._zone)
