"""Sessions of before are taken over whose users are not here: the rule of adoption, for one old cookie after the other."""

from __future__ import annotations

from collections.abc import Iterator
from enum import StrEnum
from time import time
from typing import TYPE_CHECKING, NamedTuple

from ..core.effects import Operation
from ..core.operations import Ended, Loaded, LoadOutcome, Unavailable, adopted_before, stored_once
from ..errors import ConfigError, SessionTooLarge, SourceRefused, SourceUnavailable, ValueNotSupported
from ..sources.source import Legacy, ListedSource, Page, Source
from .budget import Budget

if TYPE_CHECKING:
    from .adoption import Adoption
    from .engine import Engine


class Fate(StrEnum):
    """What becomes of one old session."""

    TAKEN = "taken"
    HERE = "here_already"
    ENDED = "ended_here"
    NOT_ACCEPTED = "not_accepted"  # by the old system: expired, forged, gone meanwhile
    REFUSED = "refused"  # it stays with the old store
    FAILED = "failed"  # not known: somebody gave no answer


class Imported(NamedTuple):
    """`why` says more of what was refused or has failed."""

    fate: Fate
    why: str = ""


class Importer:
    """Takes over what `listing` lists, as the app of `engine` would on sight. Blocks. Raises `ConfigError` if that app takes
    nothing over, or not now."""

    def __init__(self, engine: Engine, listing: ListedSource) -> None:
        self._engine, self._listing, self._adoption = engine, listing, importable(engine)
        self.name = self._adoption.source.name
        self._failed: str | None = None  # the cookie of the last call, if it is not known what became of it
        self._tried: tuple[bytes, ...] = ()  # by which it is known again

    def pages(self, cursor: str) -> Iterator[Page]:
        """The old cookies from `cursor` on. Raises `SourceUnavailable`, and `ConfigError` at once."""
        return self._listing.pages(cursor)

    def take(self, cookie: str, *, dry_run: bool = False) -> Imported:
        """Take over the session of this cookie; with `dry_run` only say what would become of it. If it has failed, the next
        call with the same cookie tells what that one has stored."""
        if cookie != self._failed:
            self._failed, self._tried = None, ()
        found = self._taken_or_told(cookie, dry_run=dry_run)
        self._failed = cookie if found.fate is Fate.FAILED else None
        return found

    def _taken_or_told(self, cookie: str, *, dry_run: bool) -> Imported:
        try:
            legacy = self._read(cookie)
            if legacy is None:
                return Imported(Fate.NOT_ACCEPTED)
            if legacy.id is None:
                return Imported(Fate.REFUSED, "its source does not say under which ID it is stored")
            items = self._adoption.encoded(self._engine, legacy)
        except (SourceRefused, ValueNotSupported, SessionTooLarge) as error:
            return Imported(Fate.REFUSED, str(error))
        except SourceUnavailable as error:
            return Imported(Fate.FAILED, str(error))
        operation = self._looked_up(legacy, items) if dry_run else self._taken(legacy, items)
        engine = self._engine
        return engine.blocking.run(operation, Budget(engine.config.timeouts.budget_s))

    def _read(self, cookie: str) -> Legacy | None:
        """With its end, if the listing knows it and the app's source does not."""
        legacy = self._adoption.source.read(cookie, time())
        if legacy is None or legacy.expires is not None or self._listing is self._adoption.source:
            return legacy
        listed = self._listing.read(cookie, time())
        return None if listed is None else legacy._replace(expires=listed.expires)

    def _taken(self, legacy: Legacy, items: dict[str, bytes]) -> Operation[Imported]:
        engine, adoption = self._engine, self._adoption
        found = yield from adoption.of_key(engine, legacy, items, waiting=True)
        mine = found.new
        if isinstance(found.outcome, Loaded) and not mine:
            unguarded = yield from self._guarded(legacy, found.token)
            if unguarded is not None:
                return unguarded
            mine = not set(self._tried).isdisjoint(found.outcome.record.patches)
        self._tried += found.patches
        if mine:
            engine.count("session_imported")
            return Imported(Fate.TAKEN)
        return _of(found.outcome)

    def _guarded(self, legacy: Legacy, token: bytes) -> Operation[Imported | None]:
        """Whoever has stored the session may have died before it could store the guard."""
        assert legacy.id is not None
        tokens, claims = self._adoption.claims(self._engine, legacy.id)
        claim = claims[tokens.index(token)]
        outcome = yield from stored_once(self._engine.cluster(), claim.guard, self._adoption.guard(self._engine, claim))
        return _of(outcome) if isinstance(outcome, Unavailable) else None

    def _looked_up(self, legacy: Legacy, items: dict[str, bytes]) -> Operation[Imported]:
        engine, adoption = self._engine, self._adoption
        assert legacy.id is not None
        principal = adoption.principal(engine, items)
        dead = None if principal is None else (yield from adoption.ended_before(engine, principal, legacy))
        if dead is not None:
            return _of(dead)
        _, claims = adoption.claims(engine, legacy.id)
        before = yield from adopted_before(engine.cluster(), claims)
        return Imported(Fate.TAKEN) if before is None else _of(before.outcome)


def _of(outcome: LoadOutcome) -> Imported:
    match outcome:
        case Loaded():
            return Imported(Fate.HERE)
        case Ended():
            return Imported(Fate.ENDED)
        case Unavailable():
            return Imported(Fate.FAILED, outcome.why)
    return Imported(Fate.FAILED, "it was stored, and is not found")


def no_list(source: Source) -> ConfigError:
    """There is nothing to import."""
    problem = f"{source.name} keeps the sessions in the cookies themselves, so there is no list of them"
    return ConfigError("import", problem, "They are taken over when their users come.")


def importable(engine: Engine) -> Adoption:
    """What the app takes over, if that can be imported now. Raises `ConfigError`."""
    adoption, config = engine.adoption, engine.config
    if adoption is None:
        raise ConfigError("import", "this app takes no sessions over", "Name one that is set up with `adopt=`.")
    if engine.mode != "on" or engine.in_part:
        mode = f"{engine.mode!r} for a part of the sessions" if engine.in_part else repr(engine.mode)
        problem = f"it is {mode} here: while hosts change the old sessions, what was taken over would fall behind"
        raise ConfigError("CLUSTERSESSION_MODE", problem, "Import when every host is in mode 'on'.")
    if adoption.over:
        raise ConfigError("CLUSTERSESSION_ADOPT_UNTIL", "it has passed, so nothing is taken over any more", "Set a later time.")
    if config.adopt_imported:
        remedy = "Unset it for the import."
        raise ConfigError("CLUSTERSESSION_ADOPT_IMPORTED", "it says that all sessions have been imported", remedy)
    if adoption.source.keyless:
        raise no_list(adoption.source)
    return adoption
