"""What the commands make of an answer that is none of ours, and of settings with which nobody can be asked."""

from __future__ import annotations

import http.server
import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http import HTTPStatus
from typing import Any

import pytest

from clustersession.cli.main import main
from clustersession.settings import new_key

ASKING = (["status"], ["tags"], ["drain", "--timeout", "1"], ["mode"], ["mode", "on"], ["lb", "haproxy", "--app-port", "80"])
OF_OURS = {"node": "a", "debt": None, "mode": "on", "switch": None, "store": {"entries": 3}}
ALONE: list[dict[str, Any]] = [{"identity": "a", "state": "leaving"}, {"identity": "b", "state": "dead"}]
NOT_ALONE: list[dict[str, Any]] = [{"identity": "a", "state": "leaving"}, {"identity": "b", "state": "alive"}]


@contextmanager
def listening(body: bytes, status: HTTPStatus = HTTPStatus.OK, posted: HTTPStatus | None = None) -> Iterator[str]:
    """Something that gives this answer to every request; its address. `posted`: the status for a POST."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            self._answer(status)

        def do_POST(self) -> None:
            self._answer(posted or status)

        def _answer(self, code: HTTPStatus) -> None:
            self.send_response(code)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_: object) -> None:
            """Nobody reads it."""

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize("command", ASKING, ids=" ".join)
@pytest.mark.parametrize(
    ("body", "status"),
    [
        (b"<html>hello</html>", HTTPStatus.OK),
        (b"[]", HTTPStatus.OK),
        (b"{}", HTTPStatus.OK),
        (b"<html>no</html>", HTTPStatus.METHOD_NOT_ALLOWED),
        (b"", HTTPStatus.FOUND),
    ],
    ids=["page", "list", "empty", "405", "redirect"],
)
def test_something_else_on_the_control_listeners_port_is_named(
    command: list[str], body: bytes, status: HTTPStatus, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The node could not be asked: 69, the address, and nothing of what the stranger said for an answer of ours."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    monkeypatch.setenv("CLUSTERSESSION_SECRET", new_key(1))
    with listening(body, status) as address:
        monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", address)
        assert main(command) == 69
    said = capsys.readouterr()
    assert said.out == ""
    assert address in said.err
    assert "CLUSTERSESSION_ADMIN_LISTEN" in said.err
    assert "html" not in said.err


@pytest.mark.parametrize("name", ["geheimnis-ß-0123456789", "short"])
def test_a_token_that_no_listener_takes_is_said(
    name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same words that the node has for it."""
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", name)
    assert main(["status"]) == 78
    assert "CLUSTERSESSION_ADMIN_TOKEN: it is too short, or has characters" in capsys.readouterr().err


def test_an_address_that_no_url_can_hold_is_said(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """Not every address to listen on can be asked."""
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", "a%2:10061")
    assert main(["status"]) == 69
    assert "a%2:10061" in capsys.readouterr().err


# --- drain -------------------------------------------------------------------------------------------------------------------


def drained(
    members: list[dict[str, Any]], monkeypatch: pytest.MonkeyPatch, *words: str, entries: int = 3, debt: int | None = None
) -> int:
    status = {**OF_OURS, "debt": debt, "store": {"entries": entries}, "members": members}
    with listening(json.dumps(status).encode(), posted=HTTPStatus.ACCEPTED) as address:
        monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", address)
        return main(["drain", *words])


def test_a_drain_without_anybody_to_take_the_sessions_says_so_at_once(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """They stay in the files; to wait would not help. Where there are none, nothing is owed."""
    assert drained(ALONE, monkeypatch, "--timeout", "30") == 75
    assert "no other host" in capsys.readouterr().out
    assert drained(ALONE, monkeypatch, "--timeout", "30", entries=0) == 0


@pytest.mark.parametrize(("debt", "words"), [(None, "still counts"), (7, "7 sessions are still to be handed over")])
def test_a_drain_that_takes_too_long_says_what_is_left(
    debt: int | None, words: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside the exit code."""
    assert drained(NOT_ALONE, monkeypatch, "--timeout", "0.3", debt=debt) == 75
    first, *_, last = capsys.readouterr().out.splitlines()
    assert first == ("counting" if debt is None else "7 sessions to hand over")
    assert words in last


@pytest.mark.parametrize("timeout", ["nan", "inf", "-1", "soon"])
def test_a_time_out_is_a_time(timeout: str, capsys: pytest.CaptureFixture[str]) -> None:
    """What is none is a wrong command line."""
    with pytest.raises(SystemExit) as caught:
        main(["drain", f"--timeout={timeout}"])
    assert caught.value.code == 2
    assert "seconds" in capsys.readouterr().err
