"""What a load has learnt so far: who answered what, where pointers lead, and what that amounts to."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from .. import calls
from ..calls import Reply
from ..node import View
from ..record import Record, floor_of, rank, same_history
from .outcome import Ended, Loaded, LoadOutcome, Lost, Placement, Target, Unavailable

HEARD_OF_S: Final = 10.0  # every host knows a new one long before
_SILENT: Final = (calls.Unreachable, calls.Later, calls.Broken, calls.Full)


class Search:
    """The answers of one load. Nothing in here asks anybody."""

    def __init__(self, target: Target, view: View) -> None:
        self.target, self.view = target, view
        self.answers: dict[str, Reply] = {}
        self._pointed: Placement | None = None
        self._outrun = False

    def note(self, node: str, reply: Reply) -> None:
        self.answers[node] = reply
        if isinstance(reply, calls.Moved):
            self._point_to(Placement(reply.epoch, reply.owners))

    def _point_to(self, placement: Placement) -> None:
        if self._pointed is None or placement.epoch > self._pointed.epoch:
            self._pointed = placement

    def note_all(self, nodes: Iterable[str], replies: Iterable[Reply | None]) -> None:
        for node, reply in zip(nodes, replies, strict=True):
            if reply is not None:
                self.note(node, reply)

    def note_moved(self, after: Placement) -> None:
        """Another coordinator has moved the session during this walk."""
        self._point_to(after)
        self._outrun = True

    def outrun(self) -> bool:
        """The answers are of different moments: an owner of the best copy answered before it became one, or before the
        last change of owners. Asked once more it may say what fits."""
        copies = self._copies()
        best = _best(copies) if copies else None
        return self._outrun or (best is not None and any(self._behind(best, owner) for owner in best.owners))

    def _behind(self, best: Record, owner: str | None) -> bool:
        reply = None if owner is None else self.answers.get(owner)
        match reply:
            case calls.Found():
                return rank(reply.record) < rank(best)
            case calls.Moved():
                return reply.epoch < best.epoch
        return isinstance(reply, calls.NotMine)

    def anew(self) -> Search:
        """The next walk: from where the session is known to be now, without those that gave no answer."""
        search = Search(self.target, self.view)
        search.answers = {node: reply for node, reply in self.answers.items() if isinstance(reply, _SILENT)}
        search._pointed = self._pointed
        return search

    # --- whom to ask -----------------------------------------------------------------------------------------------

    def named(self) -> list[str]:
        """Every owner that the ID, a pointer or a copy names, best first: dead ones last, they only cost time."""
        names: list[str | None] = []
        if self._pointed is not None:
            names += self._pointed.owners
        for found in self._copies():
            names += found.owners
        names += (self.target.master, self.target.backup)
        return list(dict.fromkeys(name for name in names if name is not None))

    def unasked(self) -> list[str]:
        """The named owners that can be asked and were not: only members are ever contacted."""
        return [name for name in self.named() if name not in self.answers and self.view.reachable(name)]

    def answered(self, node: str) -> bool:
        """It gave an answer about the session, whatever it was."""
        return node in self.answers and not isinstance(self.answers[node], _SILENT)

    def believed_dead(self) -> list[str]:
        """Named owners that the member table calls dead and that were not asked: the table may be behind."""
        members = self.view.members
        return [name for name in self.named() if name not in self.answers and name in members and self.view.departed(name)]

    # --- what the answers amount to ----------------------------------------------------------------------------------

    def good(self, reply: Reply) -> bool:
        """An answer that ends the load by itself."""
        if isinstance(reply, calls.Gone):
            return True
        return isinstance(reply, calls.Found) and reply.serving and self._fresh(reply.record)

    def verdict(self) -> LoadOutcome | None:
        """A tombstone from anyone is final; then the best copy that somebody vouches for."""
        for reply in self.answers.values():
            if isinstance(reply, calls.Gone):
                return Ended(reply.reason, reply.ago) if reply.grace is None else Loaded(reply.grace, superseded=True)
        vouched = [r.record for r in self.answers.values() if isinstance(r, calls.Found) and self.good(r)]
        return Loaded(_best(vouched)) if vouched else None

    def _fresh(self, record: Record) -> bool:
        return floor_of(record) >= self.target.floor and (self._pointed is None or record.epoch >= self._pointed.epoch)

    def _copies(self) -> list[Record]:
        return [reply.record for reply in self.answers.values() if isinstance(reply, calls.Found)]

    def stale(self) -> Record | None:
        """The best copy that nobody vouches for but that is at or above the floor."""
        fresh = [record for record in self._copies() if self._fresh(record)]
        return _best(fresh) if fresh else None

    def agreed(self) -> Record | None:
        """Both owners hold the same history: what they hold together is as good as a lease."""
        best = self.stale()
        if best is None or best.owners[1] is None:
            return None
        both = [self.answers.get(owner) for owner in best.owners if owner is not None]
        copies = [reply.record for reply in both if isinstance(reply, calls.Found)]
        return best if len(copies) == 2 and all(same_history(copy, best) for copy in copies) else None

    def overdue(self, record: Record) -> str | None:
        """Which limit `record` has passed, if its other owner has not heard of a later use."""
        holder = self.holder(record)
        reply, theirs = self.answers[holder], self.answers.get(record.other(holder) or "")
        in_use = isinstance(theirs, calls.Found) and theirs.expired is None
        return None if in_use or not isinstance(reply, calls.Found) else reply.expired

    def expired(self, record: Record) -> Ended | None:
        """Both owners say so, or the one there is: alone, one of two may have missed that it was used."""
        word, other = self.overdue(record), record.other(self.holder(record))
        if word is None or other is None:
            return None if word is None else Ended(word)
        theirs = self.answers.get(other)
        silent = isinstance(theirs, calls.Unreachable) or (theirs is None and self.view.get(other) is None)
        gone = silent and self.view.departed(other)
        return Ended(word) if gone or isinstance(theirs, calls.Found | calls.NotMine) else None

    def settled(self, record: Record) -> bool:
        """Both copies of `agreed` are equal and accepted: nothing has to be delivered first."""
        replies = [self.answers.get(owner) for owner in record.owners if owner is not None]
        return all(
            isinstance(r, calls.Found) and r.record.version == record.version and r.record.accepted and not r.unheld
            for r in replies
        )

    def both_have(self, version: int) -> bool:
        """Both owners of what is `agreed` answered with this version."""
        return all(copy.version == version for copy in self._copies())

    def holder(self, record: Record) -> str:
        """Who answered with `record`; of several with an equal one, its master."""
        holders = [n for n, r in self.answers.items() if isinstance(r, calls.Found) and r.record == record]
        return record.master if record.master in holders else holders[0]

    def needs_delivery(self, record: Record) -> bool:
        """Its last write, or its change of owners, is not known to be held by both."""
        reply = self.answers[self.holder(record)]
        return not record.accepted or (isinstance(reply, calls.Found) and reply.unheld)

    def others_silent(self, record: Record) -> bool:
        """Somebody who should be alive, and is no owner of `record`, gave no answer: it could know of a newer one. That
        is more than one fault, and reading on would be a guess."""
        alive = {m.identity for m in self.view.members.values() if m.recruitable}
        return any(isinstance(r, _SILENT) and n in alive and n not in record.owners for n, r in self.answers.items())

    # --- when nobody has it --------------------------------------------------------------------------------------------

    def owner_departed(self) -> bool:
        """An owner is dead, left, or has a tag that no member has."""
        owners = [self.target.master] if self.target.single else [self.target.master, self.target.backup]
        pointed = self._pointed.owners if self._pointed else ()
        missing = any(owner is None for owner in owners)
        return missing or any(owner is not None and self.view.departed(owner) for owner in (*owners, *pointed))

    def _names_a_newcomer(self) -> bool:
        """An owner that no member is, in an ID that was issued just now: a host that has joined, and this one has not heard."""
        target = self.target
        stranger = target.master is None or (target.backup is None and not target.single)
        return stranger and target.age < HEARD_OF_S and target.floor > (0, 0)  # else it is no ID, but a look everywhere

    def unfound(self) -> LoadOutcome:
        """Nobody has a fresh copy. Lost only if everybody who could have one said so (finding F6); else not known."""
        silent = [node for node, reply in self.answers.items() if self._leaves_open(node, reply)]
        undecided = silent + [n for n in self.named() if n not in self.answers and not self.view.departed(n)]
        table_incomplete = self.owner_departed() and (not self.view.converged or self._names_a_newcomer())
        if (undecided or table_incomplete) and not self.target.patience_over:
            return Unavailable(self._why(undecided))
        copies = self._copies()
        if copies:  # below the floor, but nobody has a better one and nobody may still turn up with it
            word = self.overdue(_best(copies))
            return Ended(word) if word else Loaded(_best(copies))
        return Lost(tuple(sorted(self.answers)))

    def retainer(self) -> tuple[str, int] | None:
        """An ex-owner that still has its last copy, of the latest change of owners that left one, and which that was."""
        moved = [(reply.epoch, n) for n, reply in self.answers.items() if isinstance(reply, calls.Moved) and reply.retained]
        return (max(moved)[1], max(moved)[0]) if moved else None

    def _leaves_open(self, node: str, reply: Reply) -> bool:
        """That a dead node gave no answer decides nothing anew; one that answers, but cannot tell yet, is alive."""
        if isinstance(reply, calls.Unreachable):
            return not self.view.departed(node)
        return isinstance(reply, _SILENT)

    def _why(self, undecided: list[str]) -> str:
        if not undecided:
            return "the member table is not complete yet"
        node = undecided[0]
        reply = self.answers.get(node)
        if reply is None:
            return f"{node}: not asked"
        return f"{node}: {reply.why if isinstance(reply, calls.Unreachable) else type(reply).__name__.lower()}"


def _best(records: list[Record]) -> Record:
    return max(records, key=lambda record: (rank(record), record.version))
