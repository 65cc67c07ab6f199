"""How large the store may be: what its place, the cgroup and the machine really have."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Final, NamedTuple

from ..errors import ConfigError

SHARDS: Final = 16
LOCK_BYTES: Final = 2**16  # of LMDB's lock file of each environment, with a thousand reader slots
MIB: Final = 2**20
BYTES_MIN: Final = 8 * MIB
BYTES_USUAL_MAX: Final = 2048 * MIB  # more only if it is asked for: a million sessions of a shop fit
MAX_BYTES: Final = "CLUSTERSESSION_MAX_BYTES"
DATA_DIR: Final = "CLUSTERSESSION_DATA_DIR"
_IN_MEMORY: Final = ("tmpfs", "ramfs", "devtmpfs")
_MEND: Final = (
    "Let CLUSTERSESSION_DATA_DIR name a place with more room, or give this one more (a container's /dev/shm grows with "
    "`shm_size` in compose, `--shm-size`, or an emptyDir with medium Memory)."
)


class Sizes(NamedTuple):
    """Bytes of the maps: of one sixteenth, and of the board."""

    shard: int
    board: int


def sizes(total: int, page: int = 4096) -> Sizes:
    """How `total` bytes are shared out, the lock files left aside."""
    board = min(total // 32, 64 * MIB) // page * page
    return Sizes((total - board - (SHARDS + 1) * LOCK_BYTES) // SHARDS // page * page, board)


def store_bytes(place: Path, asked: int | None, own: int = 0, *, root: Path = Path("/")) -> int:
    """Bytes that a store at `place` may take; `own` of them are in use by its files already.

    What is asked for, if the place has it. Else nine tenths of what is free, in memory at most half of what the cgroup and
    the machine have left, 2 GiB at most. Raises `ConfigError` for a place without room and for a wrong wish.
    """
    if asked is not None and asked < BYTES_MIN:
        raise ConfigError(MAX_BYTES, f"{asked} is less than the 16 parts of the store need", "Set 16MiB or more.")
    free = _free(place) + own
    if asked is not None:
        if asked > free:
            problem = f"it asks for {_mib(asked)}, but {place} has only {_mib(free)} left"
            raise ConfigError(MAX_BYTES, problem, f"Lower it, or unset it to use what is there. {_MEND}")
        return asked
    room = free * 9 // 10
    if filesystem(place, root) in _IN_MEMORY:
        memory = [each // 2 + own for each in (cgroup_room(root), _available(root)) if each is not None]
        room = min([room, *memory])
    if room < BYTES_MIN:
        raise ConfigError(DATA_DIR, f"{place} has room for {_mib(max(room, 0))}, the store needs {_mib(BYTES_MIN)}", _MEND)
    return min(room, BYTES_USUAL_MAX)


def _free(place: Path) -> int:
    try:
        found = os.statvfs(place)
    except OSError as error:
        raise ConfigError(DATA_DIR, f"{place}: {error.strerror}", _MEND) from error
    return found.f_bavail * found.f_frsize


def _mib(count: int) -> str:
    return f"{count / MIB:.1f} MiB"


def filesystem(place: Path, root: Path = Path("/")) -> str:
    """The type of the file system that `place` is on; empty if that cannot be found out."""
    path = str(place.resolve())
    best = ("", "")
    for line in _lines(root / "proc/self/mountinfo"):
        fields, _, rest = line.partition(" - ")
        point = fields.split(" ")[4].replace("\\040", " ")
        inside = path == point or path.startswith(point.rstrip("/") + "/")
        if inside and len(point) >= len(best[0]):  # a later mount on the same point hides the earlier one
            best = (point, rest.split(" ")[0])
    return best[1]


def cgroup_room(root: Path = Path("/")) -> int | None:
    """Bytes that the memory cgroup of this process, or one above it, still allows; None: there is no limit."""
    rooms = [room for directory, v2 in _cgroups(root) if (room := _room_in(directory, v2=v2)) is not None]
    return min(rooms, default=None)


def _cgroups(root: Path) -> Iterator[tuple[Path, bool]]:
    """The directories of the memory cgroup of this process and of those above it; True for version 2."""
    for line in _lines(root / "proc/self/cgroup"):
        hierarchy, controllers, path = line.split(":", 2)
        v2 = hierarchy == "0" and not controllers
        if not v2 and "memory" not in controllers.split(","):
            continue
        for name in ("sys/fs/cgroup", "sys/fs/cgroup/unified") if v2 else ("sys/fs/cgroup/memory",):
            top = root / name
            inside = top / path.lstrip("/")
            # a container sees its own group at the top, under the path that the host gives it
            group = inside if inside.is_dir() else top
            yield from ((each, v2) for each in (group, *group.parents) if each.is_relative_to(top))


def _room_in(directory: Path, *, v2: bool) -> int | None:
    limit = _number(directory / ("memory.max" if v2 else "memory.limit_in_bytes"))
    used = _number(directory / ("memory.current" if v2 else "memory.usage_in_bytes"))
    if limit is None or used is None or limit >= 2**60:  # version 1 writes "no limit" as a number
        return None
    cache = [line.split()[1] for line in _lines(directory / "memory.stat") if line.split()[:1] == ["inactive_file"]]
    return max(limit - used + sum(map(int, cache)), 0)  # the kernel takes that cache back before anything fails


def _available(root: Path) -> int | None:
    found = [line.split()[1] for line in _lines(root / "proc/meminfo") if line.startswith("MemAvailable:")]
    return int(found[0]) * 1024 if found else None


def _number(path: Path) -> int | None:
    text = "".join(_lines(path))
    return int(text) if text.isdecimal() else None


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
