"""Mode `shadow`: the old session decides, and the cluster gets a copy, which the next request compares.

Nothing that goes wrong here is seen by the app; the counters say whether the cluster could take over."""

from __future__ import annotations

import hashlib
import logging
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final, NamedTuple

from ..core.effects import Operation, Outside
from ..core.operations import Ended, Loaded, LoadOutcome, Lost, Placement, Saved, end, found_anywhere, kept, save
from ..core.record import Key, Record, live_items
from ..core.session_id import store_key
from ..errors import SessionTooLarge, ValueNotSupported
from ..sources.source import Legacy
from .budget import Budget
from .remembered import NOBODYS
from .stored import patch

if TYPE_CHECKING:
    from .adoption import Adoption
    from .engine import Engine

BUDGET_S: Final = 0.1  # of each half: a request is not to wait for what decides nothing
EQUAL: Final = "shadow_equal"
DIFFERS: Final = "shadow_differs"
NEW: Final = "shadow_new"
UNAVAILABLE: Final = "shadow_unavailable"
REFUSED: Final = "shadow_refused"
ENDED: Final = "logout"
log: Final = logging.getLogger("clustersession")


class Trace(NamedTuple):
    """What a request came with: its old cookie, and the copy of that session, if there is one that can be read."""

    cookie: str | None
    key: Key | None = None
    copy: Record | None = None
    known: bool = True  # whether there is a copy


NOTHING: Final = Trace(None)


def budget() -> Budget:
    return Budget(BUDGET_S)


def compared(engine: Engine, adoption: Adoption, cookie: str | None) -> Operation[Trace]:
    """Before the app sees the request: does the cluster hold what the old session holds?"""
    found = None if cookie is None else (yield from _read(engine, adoption, cookie))
    if cookie is None or found is None:
        return Trace(cookie)
    key, _, items = found
    outcome = yield from found_anywhere(engine.cluster(), key)
    word = _word(outcome, items)
    engine.count(word)
    if word == DIFFERS and engine.outages.worth_saying(engine.now()):
        log.warning("in shadow: the copy of session %s differs from the old one", key.hex())
    record = outcome.record if isinstance(outcome, Loaded) else None
    return Trace(cookie, key, record, known=isinstance(outcome, Loaded | Lost))


def _word(outcome: LoadOutcome, items: Mapping[str, bytes]) -> str:
    match outcome:
        case Loaded():
            return EQUAL if dict(live_items(outcome.record)) == items else DIFFERS
        case Ended():
            return DIFFERS
        case Lost():
            return NEW
    return UNAVAILABLE


def copied(engine: Engine, adoption: Adoption, trace: Trace, sent: str | None) -> Operation[None]:
    """After the app: the copy follows the old session. `sent`: the old cookie that goes out, "" if it is deleted."""
    if trace.key is not None and trace.copy is not None and sent == "":
        nobodys = trace.copy.principal is None
        yield from end(engine.cluster(), trace.key, _placement(trace.copy), ENDED, anonymous=nobodys)
    cookie = trace.cookie if sent is None else sent
    found = (yield from _read(engine, adoption, cookie)) if cookie else None
    if found is None:
        return
    key, legacy, items = found
    known, copy = trace.known, trace.copy
    if key != trace.key:
        outcome = yield from found_anywhere(engine.cluster(), key)
        known, copy = isinstance(outcome, Loaded | Lost), outcome.record if isinstance(outcome, Loaded) else None
    if copy is not None:
        yield from _followed(engine, key, copy, items)
    elif known:
        yield from _begun(engine, adoption, key, legacy, items)


def _followed(engine: Engine, key: Key, copy: Record, items: Mapping[str, bytes]) -> Operation[None]:
    held = live_items(copy)
    changes: dict[str, bytes | None] = {name: data for name, data in items.items() if held.get(name) != data}
    changes.update(dict.fromkeys(held.keys() - items.keys()))
    if changes and not isinstance(
        (yield from save(engine.cluster(), key, _placement(copy), patch(engine, changes, None))), Saved
    ):
        engine.count(UNAVAILABLE)


def _begun(engine: Engine, adoption: Adoption, key: Key, legacy: Legacy, items: dict[str, bytes]) -> Operation[None]:
    """As if of nobody: the user's own list of sessions does not show it, and it is not ended with them."""
    record = adoption.record_of(engine, key, legacy, items)
    record = record.but(principal=None if record.principal is None else NOBODYS)
    if not isinstance((yield from kept(engine.cluster(), key, record)), Loaded):
        engine.count(UNAVAILABLE)


def _read(engine: Engine, adoption: Adoption, cookie: str) -> Operation[tuple[Key, Legacy, dict[str, bytes]] | None]:
    """The old session under this cookie, as ours would hold it, and where its copy is."""
    legacy = yield Outside(lambda: adoption.read(engine, cookie))
    if not isinstance(legacy, Legacy):
        return None
    try:
        items = adoption.encoded(engine, legacy)
    except (ValueNotSupported, SessionTooLarge) as error:
        engine.count(REFUSED)
        log.warning("in shadow: a session of %s could not be taken over: %s", adoption.source.name, error)
        return None
    name = hashlib.sha256(cookie.encode()).digest() if legacy.id is None else legacy.id
    return store_key(adoption.token_for(engine, b"shadow", name)), legacy, items


def _placement(record: Record) -> Placement:
    return Placement(record.epoch, record.owners)
