"""The settings as frozen values, checked once at construction. Nothing here reads the environment (`settings` does).

Units are last in a name: `_s` seconds, `_bytes` bytes. `None` means "no limit" or "not set", never a number.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .errors import ConfigError

COOKIE_PAIR_BYTES_MAX = 4096  # RFC 6265bis, name + value
COOKIE_ATTRIBUTE_BYTES_MAX = 1024  # longer ones are ignored by browsers
SESSION_ID_BYTES = 105


@dataclass(frozen=True, kw_only=True, slots=True)
class CookieConfig:
    """How the cookie is named and scoped. The first name is issued, all are read."""

    names: tuple[str, ...] = ("__Host-cs",)
    secure: bool = True
    httponly: bool = True
    samesite: str = "Lax"
    domain: str | None = None
    path: str = "/"
    partitioned: bool = False
    max_age_s: int | None = None  # None: a browser session cookie

    def __post_init__(self) -> None:
        _check_cookie(self)


def _check_cookie(cookie: CookieConfig) -> None:
    name = "CLUSTERSESSION_COOKIE_NAME"
    if not cookie.names or not all(_is_token(each) for each in cookie.names):
        raise ConfigError(
            name, "a cookie name is empty or has characters a cookie name cannot have", "Use letters, digits, '-' and '_'."
        )
    for each in cookie.names:
        if len(each) + SESSION_ID_BYTES > COOKIE_PAIR_BYTES_MAX:
            raise ConfigError(name, f"a name of {len(each)} characters is more than a browser keeps", "Choose a short name.")
        prefix = each.lower()  # browsers match it in any case (RFC 6265bis, 5.7)
        if prefix.startswith(("__host-", "__secure-")) and not cookie.secure:
            raise ConfigError(
                name,
                f"{each!r} needs the Secure attribute",
                "Set CLUSTERSESSION_COOKIE_SECURE=1, or choose a name without prefix.",
            )
        if prefix.startswith("__host-"):
            _check_host_only(each, cookie)
    if cookie.samesite not in ("Lax", "Strict", "None"):
        raise ConfigError(
            "CLUSTERSESSION_COOKIE_SAMESITE", f"{cookie.samesite!r} is not one of Lax, Strict, None", "Choose one of these."
        )
    for setting, given in (("SAMESITE", cookie.samesite == "None"), ("PARTITIONED", cookie.partitioned)):
        if given and not cookie.secure:
            problem = "browsers take it only with the Secure attribute"
            raise ConfigError(f"CLUSTERSESSION_COOKIE_{setting}", problem, "Set CLUSTERSESSION_COOKIE_SECURE=1, or unset it.")
    _check_scope(cookie)


def _check_scope(cookie: CookieConfig) -> None:
    """What browsers would take otherwise than it is meant, without a word (RFC 6265, 5.2)."""
    for setting, text in (("CLUSTERSESSION_COOKIE_DOMAIN", cookie.domain), ("CLUSTERSESSION_COOKIE_PATH", cookie.path)):
        if text is not None and not _is_attribute(text):
            raise ConfigError(setting, f"{text[:64]!r} cannot stand in a cookie", "Use printable ASCII without ';'.")
    if cookie.domain is not None and not _is_domain(cookie.domain):
        remedy = "Name the domain alone, as in example.com, without scheme, port and path."
        raise ConfigError("CLUSTERSESSION_COOKIE_DOMAIN", f"{cookie.domain[:64]!r} is no domain", remedy)
    if not cookie.path.startswith("/"):
        problem = f"{cookie.path[:64]!r} does not begin with '/', so browsers ignore it"
        raise ConfigError("CLUSTERSESSION_COOKIE_PATH", problem, f"Write '/{cookie.path[:64]}'.")


def _check_host_only(name: str, cookie: CookieConfig) -> None:
    """What browsers demand of a cookie with the prefix __Host- (RFC 6265bis, 4.1.3.2)."""
    remedy = "Unset it, or name the cookie otherwise: CLUSTERSESSION_COOKIE_NAME=__Secure-cs."
    if cookie.domain is not None:
        raise ConfigError("CLUSTERSESSION_COOKIE_DOMAIN", f"a cookie named {name!r} can have no domain", remedy)
    if cookie.path != "/":
        raise ConfigError("CLUSTERSESSION_COOKIE_PATH", f"a cookie named {name!r} can have no other path than '/'", remedy)


def _is_attribute(text: str) -> bool:
    return 0 < len(text) <= COOKIE_ATTRIBUTE_BYTES_MAX and text.isascii() and text.isprintable() and ";" not in text


_is_domain = re.compile(r"\.?[A-Za-z0-9_-]+(\.[A-Za-z0-9_-]+)*").fullmatch


def _is_token(text: str) -> bool:
    return bool(text) and all(c.isascii() and (c.isalnum() or c in "!#$%&'*+-.^_`|~") for c in text)


@dataclass(frozen=True, kw_only=True, slots=True)
class Lifetimes:
    """How long a session lives: `idle_s` after its last request, `absolute_s` after its creation."""

    idle_s: float | None = 1800.0  # OWASP ASVS v4 3.3.2 L2, NIST 800-63B AAL2
    absolute_s: float | None = 43200.0


@dataclass(frozen=True, kw_only=True, slots=True)
class Limits:
    """What one session and one node may hold."""

    session_bytes_max: int = 64 * 1024
    session_bytes_warn: int = 16 * 1024
    keys_max: int = 256
    key_length_max: int = 256
    depth_max: int = 32
    store_bytes_max: int | None = None  # None: what the place and the cgroup have
    message_bytes_max: int = 4 * 1024 * 1024
    connections_max: int = 512


@dataclass(frozen=True, kw_only=True, slots=True)
class Timeouts:
    """Time-outs of the request path (design.md 8) and of the members' watch (9)."""

    connect_s: float = 0.1
    request_s: float = 0.25
    budget_s: float = 0.6  # all peer calls of one request of the app together
    hedge_min_s: float = 0.025
    hedge_max_s: float = 0.25
    stale_request_s: float = 1.0  # a request older than this is refused by its receiver
    heartbeat_s: float = 0.5
    lease_s: float = 2.0
    suspect_s: float = 1.2
    dead_s: float = 3.0
    header_s: float = 5.0
    body_s: float = 10.0
    shard_lock_s: float = 1.0
    drain_s: float = 25.0  # how long a node that was told to end may take to hand over its sessions
    notice_s: float = 0.0  # how long the app is left to serve after its node was told to leave
    ready_s: float = 5.0  # how long a first request waits for the host's node


@dataclass(frozen=True, kw_only=True, slots=True)
class TlsConfig:
    """Paths of PEM files. With `ca` both sides must show a certificate of it (mutual TLS)."""

    cert: str
    key: str
    ca: str


@dataclass(frozen=True, kw_only=True, slots=True)
class Address:
    """A TCP address, `host` without brackets."""

    host: str
    port: int

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


@dataclass(frozen=True, kw_only=True, slots=True)
class Config:
    """Everything one node and its workers need to know. `secret` is the ring's text and never printed."""

    secret: str = field(repr=False)
    secret_file: str | None = None
    node: str
    cluster: str = "default"
    listen: Address = field(default_factory=lambda: Address(host="0.0.0.0", port=10060))
    advertise: Address | None = None
    admin_listen: Address | None = field(default_factory=lambda: Address(host="127.0.0.1", port=10061))
    admin_token: str | None = field(default=None, repr=False)
    peers: tuple[str, ...] = ()  # "host:port" or "dns://name:port"
    zone: str = ""
    data_dir: str | None = None
    store: str = "lmdb"  # or "memory"
    mode: str = "on"  # "off", "shadow", "mirror"; "dev": memory store, no port, nothing spawned
    mode_switch: bool = False  # what the cluster was switched to goes before `mode`
    profile: str = "default"
    principal_keys: tuple[str, ...] = ("_user_id", "_auth_user_id")
    user_sessions_max: int | None = None  # parallel sessions of one user; None: any number
    user_sessions_over: str = "end-oldest"  # or "refuse"
    devices: bool = True  # keep with a login from where it came
    min_copies: int = 1
    unavailable: str = "503"  # or "anonymous"
    adopt_until: float | None = None  # Unix seconds; None: for as long as the app is set up to adopt
    adopt_imported: bool = False  # all was taken over, and the old store is not asked any more
    spawn: bool = True  # the first worker starts the node when none runs
    cookie: CookieConfig = field(default_factory=CookieConfig)
    lifetimes: Lifetimes = field(default_factory=Lifetimes)
    lifetimes_set: bool = False  # the user set them: a framework's own do not apply
    limits: Limits = field(default_factory=Limits)
    timeouts: Timeouts = field(default_factory=Timeouts)
    tls: TlsConfig | None = None
