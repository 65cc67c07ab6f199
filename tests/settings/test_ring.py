import logging
import os
from pathlib import Path

import pytest

from clustersession.config import Config
from clustersession.core.keyring import KeyRing
from clustersession.errors import ConfigError
from clustersession.settings import RingSource, check_same_secret, new_key, ring_fingerprint

ONE, TWO, THREE = new_key(1), new_key(2), new_key(3)


class Now:
    """A clock that the test moves."""

    def __init__(self) -> None:
        self.seconds = 100.0

    def __call__(self) -> float:
        return self.seconds


class Board(dict[str, bytes | None]):
    """A host's board in memory."""

    def read(self, name: str) -> bytes | None:
        return self.get(name)

    def write(self, name: str, data: bytes | None) -> None:
        self[name] = data


@pytest.fixture
def ring_file(tmp_path: Path) -> Path:
    path = tmp_path / "ring"
    path.write_text(ONE)
    return path


def source(path: Path, now: Now) -> RingSource:
    return RingSource(Config(secret=path.read_text(), secret_file=str(path), node="a"), now)


def test_new_keys_are_strong_and_different() -> None:
    """A fresh key is one that a ring takes, and no other."""
    assert KeyRing.parse(new_key(7)).kids == (7,)
    assert len({new_key(1) for _ in range(100)}) == 100


def test_a_ring_from_the_environment_stays() -> None:
    """Without a file there is one ring, the very same object each time."""
    ring = RingSource(Config(secret=ONE, node="a"), Now())
    assert ring() is ring()


def test_a_changed_file_is_read_within_a_second(ring_file: Path) -> None:
    """A new content is in use one second later, and not looked for before."""
    now = Now()
    ring = source(ring_file, now)
    ring_file.write_text(f"{TWO},{ONE}")
    now.seconds += 0.5
    assert ring().kids == (1,)
    now.seconds += 0.6
    assert ring().kids == (2, 1)


def test_a_file_that_changed_since_the_settings_were_read_is_read_at_once(
    ring_file: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """A server may load the app, and with it the settings, long before it forks a worker."""
    config = Config(secret=ring_file.read_text(), secret_file=str(ring_file), node="a")
    ring_file.write_text(TWO)
    caplog.set_level(logging.INFO)
    assert RingSource(config, Now())().kids == (2,)
    assert "keys 2" in caplog.text


def test_a_file_that_is_as_it_was_is_taken_silently(ring_file: Path, caplog: pytest.LogCaptureFixture) -> None:
    """Only a change is worth a line."""
    caplog.set_level(logging.INFO)
    now = Now()
    ring = source(ring_file, now)
    now.seconds += 2
    assert ring().kids == (1,)
    assert caplog.records == []


def test_a_file_that_is_replaced_through_a_link_is_read(ring_file: Path, tmp_path: Path) -> None:
    """Mounted secrets are swapped by moving a symbolic link, with content of the same size."""
    now, link = Now(), tmp_path / "link"
    link.symlink_to(ring_file)
    ring = source(link, now)
    other = tmp_path / "other"
    other.write_text(TWO)
    os.utime(other, ns=(ring_file.stat().st_mtime_ns,) * 2)
    (tmp_path / "swap").symlink_to(other)
    (tmp_path / "swap").rename(link)
    now.seconds += 2
    assert ring().kids == (2,)


@pytest.mark.parametrize("content", ["", "1:short", f"{ONE},{ONE}", "\udcff"])
def test_a_broken_file_leaves_the_last_good_ring(ring_file: Path, content: str, caplog: pytest.LogCaptureFixture) -> None:
    """A slip of the hand is logged once and ends no session; the mended file is taken."""
    now = Now()
    ring = source(ring_file, now)
    ring_file.write_bytes(content.encode(errors="surrogateescape"))
    for _ in range(3):
        now.seconds += 2
        assert ring().kids == (1,)
    assert [each.levelno for each in caplog.records] == [logging.ERROR]
    ring_file.write_text(f"{TWO},{ONE}")
    now.seconds += 2
    assert ring().kids == (2, 1)


def test_a_file_that_is_gone_leaves_the_last_good_ring(ring_file: Path) -> None:
    """A file that disappears, and comes back unchanged, changes nothing."""
    now = Now()
    ring = source(ring_file, now)
    ring_file.rename(ring_file.with_name("away"))
    now.seconds += 2
    assert ring().kids == (1,)
    ring_file.with_name("away").rename(ring_file)
    now.seconds += 2
    assert ring().kids == (1,)


def test_a_fingerprint_names_keys_without_giving_them_away() -> None:
    """Equal keys have equal fingerprints, others have others, and no key can be read in one."""
    one = ring_fingerprint(KeyRing.parse(ONE))
    assert one == ring_fingerprint(KeyRing.parse(ONE))
    assert one != ring_fingerprint(KeyRing.parse(new_key(1)))
    assert set(one.split()) < set(ring_fingerprint(KeyRing.parse(f"{TWO},{ONE}")).split())
    assert ONE[2:] not in one


def check(board: Board, text: str, *, is_node: bool = False) -> None:
    check_same_secret(board.read, board.write, ring_fingerprint(KeyRing.parse(text)), is_node=is_node)


def test_workers_with_one_secret_are_taken() -> None:
    """Any number of processes with the same ring pass."""
    board = Board()
    for _ in range(3):
        check(board, ONE)


def test_a_random_secret_per_worker_is_refused() -> None:
    """The second worker whose secret was made at its own start is told so, although both call their key 1."""
    board = Board()
    check(board, new_key(1))
    with pytest.raises(ConfigError, match="as if each of them had made a random one"):
        check(board, new_key(1))


def test_a_ring_in_rotation_is_taken() -> None:
    """One key in common is enough: processes see a new ring at different moments."""
    board = Board()
    check(board, f"{ONE},{TWO}", is_node=True)
    check(board, f"{TWO},{THREE}")
    with pytest.raises(ConfigError):
        check(board, THREE)


def test_the_node_decides_what_the_secret_is() -> None:
    """A secret that was replaced while all was down is accepted: the node's start makes it the right one."""
    board = Board()
    check(board, ONE, is_node=True)
    check(board, TWO, is_node=True)
    check(board, TWO)
    with pytest.raises(ConfigError):
        check(board, ONE)
