"""What an app says about its sessions in its framework's own settings, as a `Config` of ours."""

from __future__ import annotations

from dataclasses import replace
from typing import Final, NamedTuple

from ..config import Config, CookieConfig, Lifetimes
from ..errors import ConfigError
from ..middleware.assembly import EngineSource
from ..settings import process_environ

SAMESITE: Final = ("Lax", "Strict", "None")
SHORTEST_LIFE_S: Final = 1e-6  # of what the app lets expire at once


class AppSettingError(ConfigError, ValueError):
    """A wrong value among the framework's own settings: for these, frameworks raise `ValueError`."""


class AppCookie(NamedTuple):
    """The cookie settings of an app. None for what it leaves to us, or to the environment, which goes before all of it."""

    name: str | None = None
    secure: bool | None = None
    httponly: bool | None = None
    samesite: str | None = None
    domain: str | None = None
    path: str | None = None
    partitioned: bool | None = None
    max_age_s: int | None = None


def environment(framework: str, idle_s: float) -> Config:
    """The settings of the environment; sessions live for `idle_s` where it does not say. Opens nothing. Raises `ConfigError`."""
    return EngineSource(framework=framework, lifetimes=_idle(idle_s)).config


def with_app(ours: Config, idle_s: float, cookie: AppCookie) -> Config:
    """`environment(...)` with what the app says, as far as the environment does not. Raises `ConfigError`."""
    lifetimes = ours.lifetimes if ours.lifetimes_set else _idle(idle_s)
    return replace(ours, lifetimes=lifetimes, cookie=_with(ours.cookie, cookie))


def samesite(setting: str, value: object) -> str | None:
    """SameSite as frameworks take it: in any case, None or False for nothing said. Raises `AppSettingError`."""
    if not value:
        return None
    text = str(value).title()
    if text not in SAMESITE:
        raise AppSettingError(setting, f"{value!r} is not one of {', '.join(SAMESITE)}", "Choose one of these.")
    return text


def _idle(seconds: float) -> Lifetimes:
    return Lifetimes(idle_s=max(seconds, SHORTEST_LIFE_S), absolute_s=None)


def _with(ours: CookieConfig, app: AppCookie) -> CookieConfig:
    environ = process_environ()
    said = {name: value for name, value in app._asdict().items() if value is not None and name != "name"}
    free = {name: value for name, value in said.items() if not environ.get(_variable(name), "").strip()}
    names, secure = ours.names, bool(free.get("secure", ours.secure))
    if not environ.get(_variable("name"), "").strip():
        scoped = "domain" in free or free.get("path", "/") != "/"
        names = (app.name or _default_name(secure, scoped),)
    return replace(ours, names=names, **free)


def _variable(field: str) -> str:
    return f"CLUSTERSESSION_COOKIE_{field.removesuffix('_s').upper()}"


def _default_name(secure: bool, scoped: bool) -> str:
    """With the strictest prefix that browsers then allow."""
    if not secure:
        return "cs"
    return "__Secure-cs" if scoped else "__Host-cs"
