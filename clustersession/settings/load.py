"""From the environment to a checked `Config`: what is wrong raises here, what may be right elsewhere is only noted."""

from __future__ import annotations

import os
import socket
import ssl
import sys
from collections.abc import Iterable, Mapping
from functools import cache
from pathlib import Path
from typing import Any, Final

from ..config import Address, Config, CookieConfig, Lifetimes, Limits, Timeouts, TlsConfig
from ..core.keyring import KeyRing
from ..errors import ConfigError
from .kinds import ADMIN_PORT, host_port, is_loopback
from .notes import notes, say
from .ring import new_key, read_secret_file
from .setting import PREFIX, Setting
from .table import BY_FIELD, SETTINGS

STRICT: Final = Lifetimes(idle_s=1800.0, absolute_s=43200.0)
ADMIN_TOKEN_LENGTH_MIN: Final = 16
READY_S_MIN: Final = 2.0  # a node starts in half a second, and in twice that with four busy processes on two cores


def process_environ() -> dict[str, str]:
    """A copy of this process's environment."""
    return dict(os.environ)


def load_settings(
    environ: Mapping[str, str] | None = None,
    *,
    framework: str | None = None,
    lifetimes: Lifetimes | None = None,
    under_test: bool | None = None,
) -> Config:
    """The settings in `environ` (None: this process's) as a checked `Config`. Opens no socket and no store.

    `framework` names the app's framework in messages; `lifetimes` are its own, in force where the environment sets none;
    `under_test` (None: found out) makes dev mode the default. Raises `ConfigError`. Logs what may be a mistake, once.
    """
    environ = os.environ if environ is None else environ
    if under_test is None:
        under_test = "PYTEST_CURRENT_TEST" in environ or "pytest" in sys.modules
    values = _parsed(environ)
    values.setdefault("mode", "dev" if under_test else "on")
    if values["mode"] == "dev":
        _fill_dev(values, framework)
    _fill_secret(values, framework)
    _fill_names(values)
    _fill_lifetimes(values, lifetimes)
    config = _built(values)
    _check_together(config)
    for note in notes(environ, config):
        say(note)
    return config


def load_admin(environ: Mapping[str, str] | None = None) -> tuple[Address | None, str | None]:
    """Where the control listener is (None: off) and its token: all that asking it needs, so no secret. Raises `ConfigError`."""
    wanted = (BY_FIELD["admin_listen"], BY_FIELD["admin_token"])
    values = _parsed(os.environ if environ is None else environ, wanted)
    _check_token(values.get("admin_token"))
    return values.get("admin_listen", Address(host="127.0.0.1", port=ADMIN_PORT)), values.get("admin_token")


def _parsed(environ: Mapping[str, str], settings: Iterable[Setting] = SETTINGS) -> dict[str, Any]:
    """Values by field, of those `settings` that are there. A setting of only spaces counts as not set."""
    values: dict[str, Any] = {}
    for setting in settings:
        text = environ.get(setting.name, "").strip()
        if not text:
            continue
        try:
            values[setting.field] = setting.kind.parse(text)
        except ValueError as problem:
            raise ConfigError(
                setting.name, str(problem), f"It takes {setting.kind.form}, for example {setting.example}."
            ) from None
    if "advertise" in values and host_port(environ[PREFIX + "ADVERTISE"].strip())[1] is None and "listen" in values:
        values["advertise"] = Address(host=values["advertise"].host, port=values["listen"].port)
    return values


def _fill_dev(values: dict[str, Any], framework: str | None) -> None:
    values["store"] = "memory"
    values["spawn"] = False
    values["admin_listen"] = None
    values.setdefault("cookie.secure", False)
    if "secret" not in values and "secret_file" not in values:
        values["secret"] = _secret_of_this_process()
    say(
        f"clustersession runs in dev mode{f' in this {framework} app' if framework else ''}: sessions are kept in the memory of "
        f"this one process and end with it. Set {PREFIX}MODE=on for the cluster."
    )


@cache
def _secret_of_this_process() -> str:
    """Generated once: the apps of a process share their sessions in dev mode too, and frameworks may wrap one app many times."""
    return new_key(kid=1)


def _fill_secret(values: dict[str, Any], framework: str | None) -> None:
    name, name_of_file = PREFIX + "SECRET", PREFIX + "SECRET_FILE"
    if "secret_file" in values and "secret" in values:
        raise ConfigError(name, f"{name_of_file} is set too, and only one of them can be right", "Unset one of the two.")
    if "secret_file" in values:
        values["secret"] = read_secret_file(values["secret_file"])
    elif "secret" not in values:
        unused = " (the framework's own secret key is not used for this)" if framework else ""
        raise ConfigError(
            name,
            f"it is not set{unused}",
            f"Make one with `clustersession key new` and give the same one to every host, here or as a file in {name_of_file}; "
            f"or set {PREFIX}MODE=dev while developing.",
        )
    else:
        KeyRing.parse(values["secret"])


def _fill_names(values: dict[str, Any]) -> None:
    if "node" not in values:
        setting = BY_FIELD["node"]
        try:
            values["node"] = setting.kind.parse(socket.gethostname())
        except ValueError as problem:
            raise ConfigError(setting.name, f"it is not set, and the host name does not do: {problem}", "Set it.") from None
    if not values.get("cookie.secure", True):
        values.setdefault("cookie.names", ("cs",))


def _fill_lifetimes(values: dict[str, Any], lifetimes: Lifetimes | None) -> None:
    strict = values.get("profile") == "strict"
    base = STRICT if strict or lifetimes is None else lifetimes
    values["lifetimes_set"] = strict or "lifetimes.idle_s" in values or "lifetimes.absolute_s" in values
    values.setdefault("lifetimes.idle_s", base.idle_s)
    values.setdefault("lifetimes.absolute_s", base.absolute_s)


def _built(values: dict[str, Any]) -> Config:
    parts: dict[str, dict[str, Any]] = {"": {}, "cookie": {}, "lifetimes": {}, "limits": {}, "timeouts": {}, "tls": {}}
    for field, value in values.items():
        group, _, name = field.rpartition(".")
        parts[group][name] = value
    return Config(
        **parts[""],
        cookie=CookieConfig(**parts["cookie"]),
        lifetimes=Lifetimes(**parts["lifetimes"]),
        limits=Limits(**parts["limits"]),
        timeouts=Timeouts(**parts["timeouts"]),
        tls=_tls(parts["tls"]),
    )


def _tls(paths: dict[str, str]) -> TlsConfig | None:
    if not paths:
        return None
    missing = [BY_FIELD[f"tls.{name}"].name for name in ("cert", "key", "ca") if name not in paths]
    if missing:
        raise ConfigError(
            missing[0], "it is not set, but other TLS settings are", "Set all of _TLS_CERT, _TLS_KEY and _TLS_CA, or none."
        )
    for name, path in paths.items():
        try:
            Path(path).read_bytes()
        except OSError as error:
            remedy = f"Let it name a PEM file that user {os.geteuid()} can read."
            raise ConfigError(BY_FIELD[f"tls.{name}"].name, f"{path} cannot be read ({error.strerror})", remedy) from None
    tls = TlsConfig(**paths)
    _check_tls(tls)
    return tls


def _check_tls(tls: TlsConfig) -> None:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    try:
        context.load_verify_locations(tls.ca)
    except ssl.SSLError:
        raise ConfigError(
            PREFIX + "TLS_CA", f"{tls.ca} holds no certificate", "Let it name the authority's certificate, PEM."
        ) from None
    try:
        context.load_cert_chain(tls.cert, tls.key, password=_no_password)
    except (ssl.SSLError, ValueError) as error:
        why = getattr(error, "reason", None) or str(error)
        remedy = "Let _TLS_CERT and _TLS_KEY name a certificate and its own key, both PEM, the key without a password."
        raise ConfigError(PREFIX + "TLS_CERT", f"{tls.cert} and {tls.key} do not load ({why})", remedy) from None


def _no_password() -> str:
    raise ValueError("the key has a password")


def _check_together(config: Config) -> None:
    """What no setting shows alone."""
    if config.store == "memory" and config.mode != "dev":
        problem = "'memory' is not shared between processes: each worker would have sessions of its own"
        raise ConfigError(PREFIX + "STORE", problem, f"Unset it, or set {PREFIX}MODE=dev.")
    if config.min_copies not in (1, 2):
        raise ConfigError(
            PREFIX + "MIN_COPIES", f"{config.min_copies} is neither 1 nor 2", "A session has two owners: set 1 or 2."
        )
    if config.cookie.max_age_s is not None and config.cookie.max_age_s < 1:
        problem = "it is shorter than a second, and Max-Age=0 deletes the cookie"
        raise ConfigError(PREFIX + "COOKIE_MAX_AGE", problem, "Set a second or more, or 'none' for a browser session.")
    if config.user_sessions_max == 0:
        remedy = "Set 1 for one session of a user at a time, or 'none' for any number."
        raise ConfigError(PREFIX + "USER_SESSIONS_MAX", "it is 0, so no user could log in", remedy)
    if config.advertise is not None and config.advertise.host in ("0.0.0.0", "::"):  # noqa: S104  (refused, not bound)
        remedy = "Give the address that peers can reach, or unset it."
        raise ConfigError(PREFIX + "ADVERTISE", f"{config.advertise.host} is no address of one host", remedy)
    if config.tls is not None and config.mode == "dev":
        raise ConfigError(PREFIX + "TLS_CERT", "dev mode opens no port", "Unset the TLS settings, or the mode.")
    if config.adopt_imported and config.mode == "mirror":
        remedy = f"Unset it as long as {PREFIX}MODE is 'mirror'."
        raise ConfigError(PREFIX + "ADOPT_IMPORTED", "it says that the old store is gone, and mode 'mirror' writes to it", remedy)
    check_admin(config.admin_listen, config.admin_token)
    _check_limits(config)
    _check_timeouts(config.timeouts)


def check_admin(address: Address | None, token: str | None) -> None:
    """Raises `ConfigError` if the control listener would be open to other hosts without a good token."""
    _check_token(token)
    if address is not None and token is None and not is_loopback(address.host):
        remedy = f"Set it, or let {PREFIX}ADMIN_LISTEN be a loopback address or 'off'."
        problem = f"it is not set, but the control listener is open to other hosts on {address}"
        raise ConfigError(PREFIX + "ADMIN_TOKEN", problem, remedy)


def _check_token(token: str | None) -> None:
    if token is not None and (len(token) < ADMIN_TOKEN_LENGTH_MIN or not token.isascii() or " " in token):
        remedy = f"Use {ADMIN_TOKEN_LENGTH_MIN} or more ASCII characters without spaces; `openssl rand -hex 24` makes some."
        raise ConfigError(PREFIX + "ADMIN_TOKEN", "it is too short, or has characters that a bearer token cannot have", remedy)


def _check_limits(config: Config) -> None:
    limits = config.limits
    if limits.session_bytes_max > limits.message_bytes_max // 2:
        remedy = f"Set at most {limits.message_bytes_max // 2} and keep large data elsewhere, with only its key in the session."
        raise ConfigError(PREFIX + "MAX_SESSION_BYTES", f"{limits.session_bytes_max} is more than one message can carry", remedy)


def _check_timeouts(timeouts: Timeouts) -> None:
    rising = (
        ("connect_s", "request_s"),
        ("request_s", "budget_s"),
        ("heartbeat_s", "suspect_s"),
        ("suspect_s", "dead_s"),
        ("heartbeat_s", "lease_s"),
        ("lease_s", "dead_s"),
    )
    for low, high in rising:
        if getattr(timeouts, low) > getattr(timeouts, high):
            lower, higher = BY_FIELD[f"timeouts.{low}"], BY_FIELD[f"timeouts.{high}"]
            problem = f"{lower.kind.show(getattr(timeouts, low))} is longer than {higher.name}"
            raise ConfigError(lower.name, problem, f"Lower it, or raise {higher.name}, on every host.")
    if timeouts.ready_s < READY_S_MIN:
        ready = BY_FIELD["timeouts.ready_s"]
        problem = f"{ready.kind.show(timeouts.ready_s)} is too short: a worker would give its node up before that has started"
        raise ConfigError(ready.name, problem, f"Set {ready.kind.show(READY_S_MIN)} or more, or unset it.")
