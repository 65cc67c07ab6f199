"""The session middleware that an app had before, beside ours: which of the two a request is for."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import Final, Generic, NamedTuple, TypeVar

from ..config import Config
from ..core.effects import Operation
from ..errors import ClusterSessionError, ConfigError
from ..runtime.engine import Engine
from ..runtime.shadowing import NOTHING, Trace, budget, compared, copied

A = TypeVar("A")
OLD: Final = ("off", "shadow")  # the modes in which the old session decides
MODE: Final = "CLUSTERSESSION_MODE"
log: Final = logging.getLogger("clustersession")


def is_kept(config: Config) -> bool:
    """Whether the middleware of before may be asked for."""
    return config.mode in OLD or config.mode_switch


class Advice(NamedTuple):
    """What an integration that was not told of them wants for the sessions of before, in its own terms."""

    before: str = "Give ours `before=lambda app: ...` that makes it, or take ours out."
    adopt: str = "Give ours `adopt=` with the source of its sessions."


OF_MIDDLEWARE: Final = Advice()


def asked_of(config: Config) -> str:
    """The mode, and why it asks for the sessions of before."""
    return f"it is {config.mode!r}" + (", and CLUSTERSESSION_MODE_SWITCH is set" if config.mode_switch else "")


def check_old(config: Config, *, known: bool, adopts: bool, advice: Advice = OF_MIDDLEWARE) -> None:
    """Raises `ConfigError` for a mode that needs what the app was not set up with."""
    if not is_kept(config):
        return
    if not known:
        problem = f"{asked_of(config)}, and what kept the app's sessions before is not known"
        raise ConfigError(MODE, problem, advice.before)
    if not adopts and (config.mode == "shadow" or config.mode_switch):
        raise ConfigError(MODE, f"{asked_of(config)}, and where the sessions of before are is not known", advice.adopt)


class OldSide(Generic[A]):
    """The app in the session middleware that it had. Raises `ConfigError`."""

    def __init__(self, config: Config, app: A, before: Callable[[A], A] | None, *, adopts: bool) -> None:
        check_old(config, known=before is not None, adopts=adopts)
        self.app = app if before is None else before(app)
        self.always_off = config.mode == "off" and not config.mode_switch

    @classmethod
    def of(cls, config: Config, app: A, before: Callable[[A], A] | None, *, adopts: bool) -> OldSide[A] | None:
        """None where all requests are ours."""
        return cls(config, app, before, adopts=adopts) if is_kept(config) else None


class Shadowed:
    """One request in mode `shadow`. Nothing that goes wrong here reaches the app."""

    def __init__(self, engine: Engine, cookie_fields: Sequence[bytes | str]) -> None:
        assert engine.adoption is not None, "checked when the app was wrapped"
        self.engine, self.adoption = engine, engine.adoption
        self._cookie = self.adoption.cookie_in(cookie_fields)
        self._trace: Trace = NOTHING
        self.sent: str | None = None  # the old cookie that goes out, "" if it is deleted

    def note(self, set_cookie: str) -> None:
        """A Set-Cookie field of the response."""
        pair, _, attributes = set_cookie.partition(";")
        name, _, value = pair.strip().partition("=")
        if name == self.adoption.source.cookie_name:
            deleted = "max-age=0" in attributes.lower() or " 1970 " in attributes
            self.sent = "" if deleted else value.strip('"')

    def before(self) -> None:
        """Blocking."""
        self._trace = self._quietly(self._comparing()) or NOTHING

    def after(self) -> None:
        """Blocking."""
        self._quietly(self._copying())

    async def abefore(self) -> None:
        self._trace = await self._aquietly(self._comparing()) or NOTHING

    async def aafter(self) -> None:
        await self._aquietly(self._copying())

    def _comparing(self) -> Operation[Trace]:
        return compared(self.engine, self.adoption, self._cookie)

    def _copying(self) -> Operation[None]:
        return copied(self.engine, self.adoption, self._trace, self.sent)

    def _quietly(self, operation: Operation[A]) -> A | None:
        try:
            return self.engine.blocking.run(operation, budget())
        except ClusterSessionError as error:
            self._failed(error)
            return None

    async def _aquietly(self, operation: Operation[A]) -> A | None:
        try:
            return await self.engine.asynchronous.run(operation, budget())
        except ClusterSessionError as error:
            self._failed(error)
            return None

    def _failed(self, error: ClusterSessionError) -> None:
        self.engine.count("shadow_failed")
        if self.engine.outages.worth_saying(self.engine.now()):
            log.warning("in shadow: %s", error)
