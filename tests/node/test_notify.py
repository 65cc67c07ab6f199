import pytest

from clustersession.node.notify import READY, ReadySocket, announce


def test_readiness_is_heard_once() -> None:
    """What is announced to the socket is heard by the next question, and only by that one."""
    with ReadySocket() as ready:
        assert not ready.heard()
        assert announce(f"{READY}\nSTATUS=serving", {"NOTIFY_SOCKET": ready.address})
        assert ready.heard()
        assert not ready.heard()


def test_other_news_is_not_readiness() -> None:
    """Only READY=1 counts."""
    with ReadySocket() as ready:
        announce("STOPPING=1", {"NOTIFY_SOCKET": ready.address})
        assert not ready.heard()


@pytest.mark.parametrize("environ", [{}, {"NOTIFY_SOCKET": "vsock:2:1"}, {"NOTIFY_SOCKET": "@nobody-listens-here"}])
def test_announcing_to_nobody_is_no_error(environ: dict[str, str]) -> None:
    """A node that nobody waits for says so to itself and goes on."""
    assert announce(READY, environ) is False
