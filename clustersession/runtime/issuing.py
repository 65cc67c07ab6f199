"""Whether a response carries the session's ID, and what it carries then."""

from __future__ import annotations

from time import time
from typing import TYPE_CHECKING

from ..core.cookie import should_issue

if TYPE_CHECKING:
    from collections.abc import Callable

    from .cookies import Cookies, Ticket
    from .engine import Engine
    from .stored import Stored


def issued(cookies: Cookies, ticket: Ticket | None, stored: Stored, max_age_s: int | None) -> tuple[str, ...]:
    """The Set-Cookie values for a stored session. An older name that the ID came under is removed."""
    text = cookies.issued(stored.token, stored.owners, stored.floor, max_age_s)
    if ticket is not None and ticket.name != cookies.name:
        return text, cookies.deleted(ticket.name)
    return (text,)


def is_due(cookies: Cookies, ticket: Ticket | None, stored: Stored, max_age_s: int | None) -> bool:
    """The rule of `core.cookie`, for the ID in `ticket`."""
    if ticket is None or ticket.sid.key != stored.key:
        return True
    owners, had = stored.owners, ticket.sid
    unmoved = cookies.named_in(ticket) == owners and (owners[1] is not None or had.backup is None)
    if unmoved and stored.copies is None and (max_age_s is None or time() - 60.0 * had.born < max_age_s / 4):
        return False  # the rule would say so too; nearly every read ends here
    master_tag, backup_tag = (had.master, had.backup) if unmoved else cookies.tags(owners, had.kid)
    return should_issue(
        had=had,
        key=stored.key,
        master_tag=master_tag,
        backup_tag=backup_tag,
        copies_acked=stored.copies,
        owners=1 if owners[1] is None else 2,
        cookie_age_s=time() - 60.0 * had.born,
        persistent_max_age_s=max_age_s,
    )


def count_sent(engine: Engine, ticket: Ticket | None, stored: Stored, is_plain: Callable[[], bool] | None) -> None:
    """New IDs, of which some should come back soon: a browser that asks over plain HTTP keeps no `Secure` cookie."""
    if ticket is None or ticket.sid.key != stored.key:
        engine.count("id_sent")
        if is_plain is not None and engine.cookies.secure and is_plain():
            engine.count("id_sent_plain")


def least_age(born: int) -> float:
    """Seconds since an ID was born, at least: it counts in minutes. Older than it is, files might be taken for younger."""
    return max(0.0, time() - 60.0 * (born + 1))
