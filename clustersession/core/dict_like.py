"""What a dict has beyond a mapping, for code that was written for one."""

from __future__ import annotations

from collections.abc import Mapping, MutableMapping
from typing import Any, Self


class DictLike(MutableMapping[str, Any]):
    """A mapping whose copies and unions are dicts, as apps expect of a session."""

    __slots__ = ()

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self, **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self}

    def __ior__(self, other: Mapping[str, Any]) -> Self:
        self.update(other)
        return self

    def copy(self) -> dict[str, Any]:
        """A dict of it, as shallow as dict's."""
        return dict(self)

    def __reduce__(self) -> tuple[type, tuple[dict[str, Any]]]:
        return dict, (self.copy(),)  # a copy, a deep copy or a pickle of it is no session
