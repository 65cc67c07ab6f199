"""What is still stored of a request whose app has failed, and whose error page is made where no middleware of ours sees it."""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING, Final

from ..errors import ClusterSessionError

if TYPE_CHECKING:
    from .pipeline import Visit

UNHARMED: Final = (KeyboardInterrupt, SystemExit, GeneratorExit)
"""These end the process or the coroutine at once: nothing may wait for a peer then."""

log: Final = logging.getLogger("clustersession")


def left_to_store(visit: Visit, *, started: bool) -> bool:
    """Whether there is anything for `visit.carry_out`.

    `started`: what was changed since then, as without the error. Else what the app has changed is dropped, as frameworks do,
    but a logout counts, and locks are given up; a new ID is not made, since no cookie can go out with it.
    """
    if started:
        visit.start()
    else:
        visit.session.forgo()
    return visit.pending(write=started)


def not_stored(error: BaseException, problem: ClusterSessionError, *, started: bool) -> None:
    """Raises `problem` if it is the app's only word of a change that is lost; else the app's `error` goes on, with a note."""
    if started and isinstance(error, Exception):
        raise problem from error
    log.warning("what a request that failed has left to do for its session is not done: %s", problem)
    error.add_note(f"Its session's end or lock could not be stored either: {problem}")
