"""What calls and replies have in common."""

from __future__ import annotations

import msgspec


class Message(msgspec.Struct, frozen=True, array_like=True, tag=True):
    """Base of calls and replies: a tagged array; a later release may add fields at the end."""
