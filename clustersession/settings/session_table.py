"""The settings that are about sessions themselves: their cookie, their limits, their users. A part of `table`."""

from __future__ import annotations

from typing import Final

from .kinds import COUNT, DURATION, FLAG, NAMES, SIZE, TEXT, choice, or_none
from .setting import Group, Setting

COOKIE: Final = Group(
    "Cookie",
    "",
    (
        Setting(
            "COOKIE_NAME",
            NAMES,
            "cookie.names",
            "__Host-cs; cs where Secure is off",
            "__Host-shop,__Host-cs",
            "Names of the cookie: the first is issued, all are read.",
        ),
        Setting(
            "COOKIE_SECURE",
            FLAG,
            "cookie.secure",
            "1; 0 in dev mode",
            "0",
            "The Secure attribute. Off only where there is no HTTPS.",
        ),
        Setting(
            "COOKIE_SAMESITE", choice("Lax", "Strict", "None"), "cookie.samesite", "Lax", "Strict", "The SameSite attribute."
        ),
        Setting(
            "COOKIE_DOMAIN",
            TEXT,
            "cookie.domain",
            "none: this host name only",
            "example.com",
            "The Domain attribute. Not with a `__Host-` name.",
        ),
        Setting("COOKIE_PATH", TEXT, "cookie.path", "/", "/shop", "The Path attribute. Only `/` with a `__Host-` name."),
        Setting(
            "COOKIE_PARTITIONED",
            FLAG,
            "cookie.partitioned",
            "0",
            "1",
            "The Partitioned attribute, for apps inside frames of other sites.",
        ),
        Setting(
            "COOKIE_MAX_AGE",
            or_none(DURATION),
            "cookie.max_age_s",
            "the framework's own, else none: until the browser closes",
            "14d",
            "The Max-Age attribute: makes the cookie outlive the browser.",
        ),
    ),
)

LIMITS: Final = Group(
    "Lifetimes and limits",
    "",
    (
        Setting(
            "IDLE_TIMEOUT",
            or_none(DURATION),
            "lifetimes.idle_s",
            "the framework's own, else 30m",
            "30m",
            "A session ends when it got no request for so long.",
        ),
        Setting(
            "ABSOLUTE_TIMEOUT",
            or_none(DURATION),
            "lifetimes.absolute_s",
            "the framework's own, else 12h",
            "12h",
            "A session ends so long after it began, however busy it is.",
        ),
        Setting(
            "MAX_SESSION_BYTES",
            SIZE,
            "limits.session_bytes_max",
            "64KiB",
            "256KiB",
            "A session larger than this is not saved; the app gets an error.",
        ),
        Setting(
            "MAX_BYTES",
            SIZE,
            "limits.store_bytes_max",
            "what the place and the cgroup have",
            "512MiB",
            "How large the store of this host may grow.",
        ),
    ),
)

USERS: Final = Group(
    "Users",
    "",
    (
        Setting(
            "USER_SESSIONS_MAX",
            or_none(COUNT),
            "user_sessions_max",
            "none",
            "5",
            "How many sessions one user may have at the same time. Logins at the same moment may pass it until the next login.",
        ),
        Setting(
            "USER_SESSIONS_OVER",
            choice("end-oldest", "refuse"),
            "user_sessions_over",
            "end-oldest",
            "refuse",
            "What a login does that is one too many: ends the session that logged in first, or fails with a 409.",
        ),
        Setting(
            "DEVICES",
            FLAG,
            "devices",
            "1",
            "0",
            "Whether a login is kept with the address and the browser it came from, for the user's list of sessions.",
        ),
    ),
)
