"""Routes that need more than a login of some time ago: a change of the password, a payment."""

from __future__ import annotations

from ..errors import LoginTooOld


class Freshness:
    """What `Session` and every framework's face of it have alike."""

    __slots__ = ()

    @property
    def auth_age_s(self) -> float | None:
        """Seconds since the user logged in, or has shown again who they are; None where nobody is logged in, and where a
        session of before does not tell."""
        return None

    def require_fresh(self, max_age_s: float) -> None:
        """Raises `LoginTooOld` if nobody is logged in, or the login is more than `max_age_s` seconds old."""
        age_s = self.auth_age_s
        if age_s is None or age_s > max_age_s:
            raise LoginTooOld(age_s, max_age_s)
