"""The blackboard of a host: what its node process knows, for all workers, as one small value in the store."""

from __future__ import annotations

import msgspec

from ..core.node import Member, View
from ..ports import Store

NAME = "node"


class Board(msgspec.Struct, frozen=True, array_like=True):
    """`tick`: when the node process last said it is alive. `leases`: until when each partner would have told of a change."""

    members: tuple[Member, ...] = ()
    leases: dict[str, float] = {}
    synced: bool = False
    tick: float = float("-inf")
    converged: bool = False
    incarnation: int = 0
    signing_kid: int | None = None  # the newest key that every live member has announced

    def view(self, me: str) -> View:
        return View(me, self.members, converged=self.converged)


_decode = msgspec.msgpack.Decoder(Board).decode
_encode = msgspec.msgpack.Encoder().encode

EMPTY = Board()


def decode_board(data: bytes | None) -> Board:
    """The board, or an empty one if no node process has written one yet."""
    return EMPTY if data is None else _decode(data)


def write_board(store: Store, board: Board) -> None:
    store.set_board(NAME, _encode(board))
