"""How large the store may be, from what a machine, a cgroup and a place say."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.errors import ConfigError
from clustersession.store import sizing
from clustersession.store.sizing import BYTES_MIN, LOCK_BYTES, MIB, SHARDS, cgroup_room, filesystem, sizes, store_bytes


def machine(root: Path, **files: str) -> Path:
    """A root directory with these files in it; __ stands for a slash."""
    for name, text in files.items():
        path = root / name.replace("__", "/")
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
    return root


def mounted(point: Path, kind: str) -> str:
    return f"22 1 254:0 / / rw - ext4 /dev/vda rw\n30 22 0:25 / {point} rw,nosuid shared:3 - {kind} tmpfs rw,size=64k\n"


@pytest.fixture
def free(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What the place has free, in bytes: the last one counts."""
    bytes_free = [64 * MIB]
    monkeypatch.setattr(sizing, "_free", lambda _: bytes_free[-1])
    return bytes_free


@given(st.integers(BYTES_MIN, 2**41))
def test_sizes_share_out(total: int) -> None:
    """The sixteenths and the board are whole pages, take nearly all, and never more than there is."""
    shard, board = sizes(total)
    assert shard % 4096 == board % 4096 == 0
    taken = SHARDS * shard + board + (SHARDS + 1) * LOCK_BYTES
    assert 0.98 * total <= taken <= total
    assert board >= 128 * 1024


def test_default_container(tmp_path: Path, free: list[int]) -> None:
    """In a container with 64 MB of shared memory and plenty of memory, nearly all of it is used."""
    root = machine(tmp_path, proc__self__mountinfo=mounted(tmp_path, "tmpfs"), proc__meminfo="MemAvailable: 8000000 kB\n")
    assert store_bytes(tmp_path, None, root=root) == 64 * MIB * 9 // 10


def test_not_more_than_usual(tmp_path: Path, free: list[int]) -> None:
    """A huge place is not taken up unless that is asked for."""
    free.append(2**40)
    assert store_bytes(tmp_path, None, root=tmp_path) == 2048 * MIB
    assert store_bytes(tmp_path, 2**39, root=tmp_path) == 2**39


def test_cgroup_v2_limits_memory_only(tmp_path: Path, free: list[int]) -> None:
    """Half of what the tightest cgroup above leaves is the limit in memory; on a disk it is none."""
    free.append(2**40)
    root = machine(
        tmp_path,
        proc__self__cgroup="0::/app/web\n",
        proc__self__mountinfo=mounted(tmp_path, "tmpfs"),
        sys__fs__cgroup__app__web__memory__max="",
    )
    top = root / "sys/fs/cgroup"
    for name, limit, used, cache in (("app/web", "max", 10, 0), ("app", str(200 * MIB), 150 * MIB, 50 * MIB)):
        (top / name / "memory.max").write_text(limit + "\n")
        (top / name / "memory.current").write_text(f"{used}\n")
        (top / name / "memory.stat").write_text(f"anon 5\ninactive_file {cache}\n")
    assert cgroup_room(root) == 100 * MIB
    assert store_bytes(tmp_path, None, root=root) == 50 * MIB
    assert store_bytes(tmp_path, None, own=20 * MIB, root=root) == 70 * MIB
    machine(root, proc__self__mountinfo=mounted(tmp_path, "xfs"))
    assert store_bytes(tmp_path, None, root=root) == 2048 * MIB


def test_cgroup_v1_seen_from_inside(tmp_path: Path) -> None:
    """A container sees its version 1 group at the top, whatever path the host has for it."""
    root = machine(
        tmp_path,
        proc__self__cgroup="4:memory:/docker/abc\n3:cpuset:/\n",
        sys__fs__cgroup__memory__x="",
    )
    for name, text in (("memory.limit_in_bytes", 512 * MIB), ("memory.usage_in_bytes", 112 * MIB)):
        (root / "sys/fs/cgroup/memory" / name).write_text(f"{text}\n")
    assert cgroup_room(root) == 400 * MIB
    (root / "sys/fs/cgroup/memory/memory.limit_in_bytes").write_text("9223372036854771712\n")
    assert cgroup_room(root) is None


def test_no_cgroup(tmp_path: Path) -> None:
    """Without cgroups, or with words where numbers should be, there is no limit of theirs."""
    assert cgroup_room(tmp_path) is None
    machine(tmp_path, proc__self__cgroup="0::/\n", sys__fs__cgroup__memory__x="")
    (tmp_path / "sys/fs/cgroup/memory.max").write_text("rubbish")
    assert cgroup_room(tmp_path) is None


def test_this_machine() -> None:
    """The real machine answers too."""
    assert filesystem(Path("/proc/self")) == "proc"
    assert cgroup_room() is None or cgroup_room() >= 0  # type: ignore[operator]
    assert store_bytes(Path.cwd(), None) >= BYTES_MIN


def test_latest_mount_counts(tmp_path: Path) -> None:
    """Of mounts on one point the last is the one that is seen; of points on the way the deepest."""
    root = machine(tmp_path, proc__self__mountinfo=mounted(tmp_path, "ext4") + mounted(tmp_path, "tmpfs"))
    assert filesystem(tmp_path / "deep", root) == "tmpfs"
    assert filesystem(tmp_path.parent, root) == "ext4"
    assert filesystem(Path(str(tmp_path) + "-sibling"), root) == "ext4"
    assert filesystem(tmp_path, tmp_path / "nothing") == ""


def test_place_without_room(tmp_path: Path, free: list[int]) -> None:
    """Too small a place is refused, with what it has and every way to mend it."""
    free.append(4 * MIB)
    with pytest.raises(ConfigError) as caught:
        store_bytes(tmp_path, None, root=tmp_path)
    for word in (str(tmp_path), "3.6 MiB", "8.0 MiB", "CLUSTERSESSION_DATA_DIR", "shm_size"):
        assert word in str(caught.value)


def test_wrong_wishes(tmp_path: Path, free: list[int]) -> None:
    """More than the place has, or less than a store needs, is an error of the setting that names both sizes."""
    with pytest.raises(ConfigError, match=r"CLUSTERSESSION_MAX_BYTES.*100\.0 MiB.*64\.0 MiB"):
        store_bytes(tmp_path, 100 * MIB, root=tmp_path)
    with pytest.raises(ConfigError, match="CLUSTERSESSION_MAX_BYTES"):
        store_bytes(tmp_path, MIB, root=tmp_path)
    assert store_bytes(tmp_path, 100 * MIB, own=40 * MIB, root=tmp_path) == 100 * MIB


def test_place_that_is_not_there(tmp_path: Path) -> None:
    """A place that went away is refused by name."""
    with pytest.raises(ConfigError, match="gone"):
        store_bytes(tmp_path / "gone", None)
