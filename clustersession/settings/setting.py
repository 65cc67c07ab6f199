"""What a setting is."""

from __future__ import annotations

from typing import Final, NamedTuple

from .kinds import Kind

PREFIX: Final = "CLUSTERSESSION_"


class Setting(NamedTuple):
    """One environment variable: `field` is its place in `Config`, dotted; `default` and `meaning` are for people."""

    short: str
    kind: Kind
    field: str
    default: str
    example: str
    meaning: str
    secret: bool = False

    @property
    def name(self) -> str:
        return PREFIX + self.short


class Group(NamedTuple):
    """Settings that are read together, with what they have in common."""

    title: str
    text: str
    settings: tuple[Setting, ...]
