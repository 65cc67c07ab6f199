"""What happened to one session, one line each, in plain words."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from clustersession.core import calls
from clustersession.core.calls import Call, Reply
from clustersession.core.edits import ADD, APPEND, DISCARD, INCR, Edit
from clustersession.core.record import Digest, Key, Owners, Patch, Record, live_items
from clustersession.core.resolving import LOCK
from clustersession.testing.simulated import World

from .checker import Violation
from .run import Listener
from .tallies import in_words

QUIET: Final = (calls.Touch, calls.Settle, calls.Inventory)


class Storyteller:
    """Listens to a run and keeps what has to do with one session: its calls, what its users saw, and the faults."""

    def __init__(self, key: Key, session: str) -> None:
        self.lines: list[str] = []
        self._key, self._session = key, f"[{session}]"
        self.listener = Listener(self._words, self._call)

    def _words(self, text: str) -> None:
        if "[" not in text or self._session in text:
            self._add(text)

    def _add(self, text: str) -> None:
        self.lines.append(text.replace(f"{self._session} ", "user: "))

    def _call(self, world: World, source: str, target: str, call: Call, reply: Reply) -> None:
        for one, answer in _each(call, reply):
            if isinstance(one, QUIET):
                continue
            asked = _asked(one, self._key)
            if asked:
                whom = "itself" if source == target else target
                self._add(f"{world.now:9.4f} {source} {asked.format(whom=whom)}: {_answered(answer, self._key)}")

    def told(self, violations: list[Violation]) -> list[str]:
        """The lines up to the first violation of the session, and that."""
        mine = [violation for violation in violations if violation.key == self._key]
        if not mine:
            return self.lines
        until = [line for line in self.lines if float(line.split(maxsplit=1)[0]) <= mine[0].at]
        return [*until, f"{mine[0].at:9.4f} !!! {mine[0].rule}: {mine[0].detail}"]


def _each(call: Call, reply: Reply) -> Iterator[tuple[Call, Reply]]:
    if isinstance(call, calls.Many) and isinstance(reply, calls.Each):
        yield from zip(call.calls, reply.replies, strict=True)
    else:
        yield call, reply


def _asked(call: Call, key: Key) -> str | None:
    """What is asked of {whom}; None: it is not about this session."""
    if isinstance(call, calls.Confirm):
        mine = [digest for digest in call.digests if digest.key == key]
        return f"asks {{whom}} whether it holds the same, {_digest(mine[0])}" if mine else None
    if getattr(call, "key", None) != key:
        return None
    return _changed(call) or _PLAINLY_ASKED.get(type(call), f"sends {{whom}} {type(call).__name__}")


def _changed(call: Call) -> str | None:
    match call:
        case calls.Apply():
            return f"asks {{whom}} to number {_patch(call.patch)}"
        case calls.Deliver():
            return f"brings {{whom}} {_patch(call.patch)} as version {call.version} of epoch {call.epoch}"
        case calls.Put():
            return f"brings {{whom}} {_record(call.record)}"
        case calls.Promote():
            dead = f" without {call.dead}" if call.dead else ""
            return f"asks {{whom}} to go on from epoch {call.epoch}{dead} with the owners {_owners(call.owners)}"
        case calls.Absorb():
            return f"shows {{whom}} {_record(call.record)}"
        case calls.End():
            return f"tells {{whom}} that it has ended ({call.reason})"
        case calls.LeaveHint():
            return f"leaves at {{whom}} a hint for {call.owner}"
        case calls.Freeze():
            return "asks {whom} to take no writes" if call.seconds else "asks {whom} to take writes again"
    return None


_PLAINLY_ASKED: Final[dict[type, str]] = {
    calls.Fetch: "asks {whom} for its copy",
    calls.Export: "asks {whom} to show what it holds",
    calls.Expire: "asks {whom} to end it, as nobody uses it",
}


def _answered(reply: Reply, key: Key) -> str:
    match reply:
        case calls.Found():
            served = "serves" if reply.serving else "has, and does not serve by itself,"
            return f"{served} {_record(reply.record)}"
        case calls.Exported() | calls.Absorbed():
            record = reply.record if isinstance(reply, calls.Exported) else reply.better
            nothing = "holds nothing" if isinstance(reply, calls.Exported) else "taken"
            return nothing if record is None else f"has {_record(record)}"
        case calls.Promoted() | calls.Frozen():
            return f"done, {_record(reply.record)}"
        case calls.Gone():
            return f"it has ended ({reply.reason})"
        case calls.Moved():
            return f"handed over to {_owners(reply.owners)}, epoch {reply.epoch}"
        case calls.Conflict():
            return f"refused, the owners are {_owners(reply.owners)}, epoch {reply.epoch}"
        case calls.Differs():
            return _differs(reply.key)
        case calls.Applied():
            return f"it is version {reply.version}{' already' if reply.repeat else ''}"
        case calls.Held():
            return f"holds version {reply.version}"
        case calls.Gap():
            return f"cannot take it, holds version {reply.version}"
        case calls.Confirmed():
            unlike = [record for each, record in reply.differing if each == key]
            return f"no, {_record(unlike[0])}" if unlike else "yes"
    return _PLAINLY_ANSWERED.get(type(reply), type(reply).__name__.lower())


_PLAINLY_ANSWERED: Final[dict[type, str]] = {
    calls.NotMine: "holds nothing of it",
    calls.Later: "cannot tell before it has synced",
    calls.Done: "done",
    calls.EndHeld: "holds the tombstone",
    calls.Rotating: "being rotated",
}


def _patch(patch: Patch) -> str:
    parts = [f"{name}={_value(name, value)}" for name, value in patch.changes.items()]
    parts += [_edit(edit) for edit in patch.edits]
    parts += [f"if {name} is {_value(name, value) if value else 'not there'}" for name, value in patch.expected.items()]
    parts += [f"{'giving up' if name in patch.under else 'taking'} the lock {name!r}" for name in patch.locks]
    return f"the write {', '.join(parts)}"


def _edit(edit: Edit) -> str:
    done = {INCR: "+=", APPEND: "gets at its end", ADD: "gets", DISCARD: "loses"}.get(edit.operation, edit.operation)
    return f"{edit.key} {done} {in_words(edit.key, edit.operand)}"


def _differs(key: str) -> str:
    if key.startswith(LOCK):
        return f"refused, another request has the lock {key.removeprefix(LOCK)!r}"
    return f"refused, {key} is not what was expected"


def _record(record: Record | None) -> str:
    if record is None:
        return "nothing"
    where = f"epoch {record.epoch} of {_owners(record.owners)}"
    if record.ended is not None:
        return f"a tombstone ({record.ended.reason}), {where}"
    values = " ".join(f"{name}={_value(name, value)}" for name, value in sorted(live_items(record).items()))
    values += "".join(f" locked {name!r}" for name in record.locks)
    if record.pointer:
        return f"a pointer to {where}" + (f", and keeps {values}" if values else "")
    return f"{values} (version {record.version}, {where}{'' if record.accepted else ', pending'})"


def _digest(digest: Digest) -> str:
    what = "a tombstone" if digest.ended else f"version {digest.version}" if digest.version else "a pointer"
    return f"{what}, epoch {digest.epoch} of {_owners(digest.owners)}"


def _owners(owners: Owners) -> str:
    return f"{owners[0]} and {owners[1]}" if owners[1] else f"{owners[0]} alone"


def _value(key: str, value: bytes | None) -> str:
    return "deleted" if value is None else in_words(key, value)
