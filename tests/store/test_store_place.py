"""Where the store is, and what is refused there."""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.config import Config, Limits
from clustersession.errors import ConfigError, StoreRefused
from clustersession.store import LmdbStore, MemoryStore, check_place, open_store, place, place_for
from clustersession.store.place import make_private

names = st.text(max_size=300) | st.sampled_from(["..", ".", "../../etc", "a/b", "a\x00b", "-", "a-b", ""])


def configured(cluster: str = "shop", node: str = "web-1", **more: object) -> Config:
    return Config(secret="", cluster=cluster, node=node, **more)  # type: ignore[arg-type]


@pytest.fixture
def shared_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A directory in place of /dev/shm."""
    made = tmp_path / "shm"
    made.mkdir()
    monkeypatch.setattr(place, "SHARED_MEMORY", made)
    return made


def test_order_of_places(tmp_path: Path, shared_memory: Path) -> None:
    """The setting decides, then the run-time directories, then shared memory, then the state directory."""
    for name in ("run", "xdg", "home"):
        (tmp_path / name).mkdir()
    environ = {
        "RUNTIME_DIRECTORY": f"{tmp_path}/run:/other",
        "XDG_RUNTIME_DIR": f"{tmp_path}/xdg",
        "HOME": f"{tmp_path}/home",
    }
    assert place_for(configured(data_dir=f"{tmp_path}/set"), environ) == tmp_path / "set" / "shop-web-1"
    assert place_for(configured(), environ) == tmp_path / "run" / "clustersession" / "shop-web-1"
    del environ["RUNTIME_DIRECTORY"]
    assert place_for(configured(), environ) == tmp_path / "xdg" / "clustersession" / "shop-web-1"
    environ["XDG_RUNTIME_DIR"] = f"{tmp_path}/not-there"
    assert place_for(configured(), environ) == shared_memory / f"clustersession-{os.geteuid()}" / "shop-web-1"
    shared_memory.rmdir()
    assert place_for(configured(), environ) == tmp_path / "home/.local/state/clustersession/shop-web-1"
    environ["XDG_STATE_HOME"] = f"{tmp_path}/home/state"
    assert place_for(configured(), environ) == tmp_path / "home/state/clustersession/shop-web-1"


def test_no_place(tmp_path: Path, shared_memory: Path) -> None:
    """Where nothing can be written to, the message lists what was tried and names the setting."""
    shared_memory.rmdir()
    with pytest.raises(ConfigError, match=r"CLUSTERSESSION_DATA_DIR.*not-there"):
        place_for(configured(), {"HOME": f"{tmp_path}/not-there"})


@given(names, names, names, names)
def test_each_node_its_own_place(cluster: str, node: str, other_cluster: str, other_node: str) -> None:
    """Different nodes or clusters never share a directory, and no name leads out of the base."""
    first = place_for(configured(cluster, node, data_dir="/base"), {})
    second = place_for(configured(other_cluster, other_node, data_dir="/base"), {})
    assert (first == second) == ((cluster, node) == (other_cluster, other_node))
    for each in (first, second):
        assert each.parent == Path("/base")
        assert Path(os.path.normpath(each)) == each
        assert len(each.name) <= 255
        assert each.name.isascii()
        assert "\x00" not in each.name


def test_made_private(tmp_path: Path) -> None:
    """Both directories are made for this user alone, and opening them again is fine."""
    made = tmp_path / "new" / "base" / "place"
    for _ in range(2):
        make_private(made)
        assert [stat.S_IMODE(each.stat().st_mode) for each in (made, made.parent)] == [0o700, 0o700]


@pytest.fixture
def base(tmp_path: Path) -> Iterator[Path]:
    made = tmp_path / "base"
    made.mkdir(mode=0o700)
    yield made
    made.chmod(0o700)


def refused(at: Path, *words: str) -> None:
    with pytest.raises(StoreRefused) as caught:
        make_private(at)
    for word in (*words, "CLUSTERSESSION_DATA_DIR"):
        assert word in str(caught.value)


def test_a_place_that_cannot_be_made_is_refused_with_its_reason(base: Path) -> None:
    """A file where a directory should be, however far above."""
    (base / "file").touch()
    refused(base / "file" / "place", f"{base}/file", "File exists")
    refused(base / "file" / "deep" / "deeper" / "place", f"{base}/file/deep", "Not a directory")


def test_links_are_refused(tmp_path: Path, base: Path) -> None:
    """Neither the place nor the directory above may be a symbolic link, even to a good directory."""
    (base / "good").mkdir(mode=0o700)
    (base / "link").symlink_to(base / "good")
    refused(base / "link", str(base / "link"), "symbolic link")
    (tmp_path / "linked-base").symlink_to(base)
    refused(tmp_path / "linked-base" / "good", "linked-base", "symbolic link")


def test_dangling_link_is_refused(base: Path) -> None:
    """A link to nowhere is refused and nothing is made behind it."""
    (base / "link").symlink_to(base / "nowhere")
    refused(base / "link", "link")
    assert not (base / "nowhere").exists()


def test_open_to_others_is_refused(base: Path) -> None:
    """A place that others can look into is refused, and so is a base in which they can replace it."""
    (base / "place").mkdir()
    (base / "place").chmod(0o750)
    refused(base / "place", "0700")
    (base / "place").chmod(0o700)
    base.chmod(0o777)
    refused(base / "place", "o-w")
    base.chmod(0o1777)
    make_private(base / "place")


@pytest.mark.skipif(os.geteuid() != 0, reason="LOUD: only root can give files away, so the owner's check is not tested here")
def test_other_owner_is_refused(base: Path) -> None:
    """A place or base of another user is refused by number."""
    (base / "place").mkdir(mode=0o700)
    os.chown(base / "place", 12345, -1)
    refused(base / "place", "12345")
    os.chown(base / "place", 0, -1)
    os.chown(base, 12345, -1)
    refused(base / "place", "12345")


def test_a_file_in_the_way(base: Path) -> None:
    """A file where the directory should be is refused by name."""
    (base / "place").write_text("")
    refused(base / "place", "place")


def test_open_store_by_settings(tmp_path: Path) -> None:
    """Dev mode and the memory setting give a memory store, everything else the shared one at its place."""
    limits = Limits(store_bytes_max=16 * 2**20)
    for memory in (configured(mode="dev"), configured(store="memory", limits=limits)):
        assert isinstance(open_store(memory), MemoryStore)
    shared = open_store(configured(data_dir=str(tmp_path / "data"), limits=limits))
    assert isinstance(shared, LmdbStore)
    assert shared.place == tmp_path / "data" / "shop-web-1"
    assert shared.born > 0
    assert 14 * 2**20 <= shared.stats().bytes_max <= 16 * 2**20
    shared.close()


def test_place_is_checked_without_making_it(tmp_path: Path) -> None:
    """What opening would refuse for its place can be found out before, and nothing is made for that."""
    good = configured(data_dir=str(tmp_path / "not" / "yet"), limits=Limits(store_bytes_max=16 * 2**20))
    check_place(good)
    check_place(configured(mode="dev", data_dir="/proc/nowhere"))
    with pytest.raises(ConfigError, match="MAX_BYTES"):
        check_place(configured(data_dir=str(tmp_path / "not" / "yet"), limits=Limits(store_bytes_max=2**60)))
    assert list(tmp_path.iterdir()) == []
    open_store(good).close()
    check_place(good)
