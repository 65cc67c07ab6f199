import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest

import clustersession
from clustersession.cli.main import main
from clustersession.core.keyring import KeyRing
from clustersession.settings import new_key, reference_page

TOP = Path(__file__).parents[2]
SECRET = new_key(1)


@pytest.fixture
def secret(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CLUSTERSESSION_SECRET", SECRET)


def said(capsys: pytest.CaptureFixture[str], *arguments: str, code: int = 0) -> str:
    assert main(arguments) == code
    return capsys.readouterr().out


def test_python_m_is_the_command() -> None:
    """`python -m clustersession` does what `clustersession` does."""
    done = subprocess.run(
        [sys.executable, "-m", "clustersession", "--version"], cwd=TOP, capture_output=True, text=True, check=True
    )
    assert done.stdout == clustersession.__version__ + "\n"


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["run"], ["run", "--"], ["key", "new", "--kid", "256"]])
def test_a_wrong_command_line_exits_with_2(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    """What cannot be understood is said with how it is used."""
    with pytest.raises(SystemExit) as caught:
        main(arguments)
    assert caught.value.code == 2
    assert "usage: clustersession" in capsys.readouterr().err


# --- key new ---------------------------------------------------------------------------------------------------------


def test_a_new_key_is_all_that_is_printed(capsys: pytest.CaptureFixture[str]) -> None:
    """The output is the setting's value: one key that a ring takes."""
    assert KeyRing.parse(said(capsys, "key", "new")).kids == (1,)


@pytest.mark.usefixtures("secret")
def test_a_new_key_gets_the_first_number_that_is_free(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The new key can be put in front of the ring as it is; a number may be chosen instead."""
    assert said(capsys, "key", "new").startswith("2:")
    monkeypatch.setenv("CLUSTERSESSION_SECRET", f"{new_key(3)},{new_key(2)}")
    assert said(capsys, "key", "new").startswith("1:")
    assert said(capsys, "key", "new", "--kid", "9").startswith("9:")


# --- settings ----------------------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("secret")
def test_settings_show_what_is_in_force_and_no_secret(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Every setting has a line, those of the environment are marked, secrets are masked."""
    monkeypatch.setenv("CLUSTERSESSION_ZONE", "east")
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", "t" * 20)
    lines = {line.split()[0]: line.split()[1:] for line in said(capsys, "settings").splitlines()}
    assert lines["CLUSTERSESSION_ZONE"] == ["set", "east"]
    assert lines["CLUSTERSESSION_LISTEN"] == ["0.0.0.0:10060"]
    assert lines["CLUSTERSESSION_SECRET"] == ["set", "***", "(keys", "1)"]
    assert lines["CLUSTERSESSION_ADMIN_TOKEN"] == ["set", "***"]


def test_the_reference_needs_no_settings(capsys: pytest.CaptureFixture[str]) -> None:
    """The reference page is printed whole, whatever is set."""
    assert said(capsys, "settings", "--reference") == reference_page()


def test_a_missing_setting_exits_with_78_and_a_remedy(capsys: pytest.CaptureFixture[str]) -> None:
    """The error goes to standard error, in one line that says what to do."""
    assert main(["settings"]) == 78
    found = capsys.readouterr()
    assert found.out == ""
    assert found.err.startswith("clustersession: CLUSTERSESSION_SECRET: it is not set. Make one with")


# --- check -----------------------------------------------------------------------------------------------------------------


def findings(capsys: pytest.CaptureFixture[str], *, code: int = 0) -> dict[str, list[str]]:
    """What `check` prints, by its first word."""
    found: dict[str, list[str]] = {}
    for line in said(capsys, "check", code=code).splitlines():
        word, text = line.split(maxsplit=1)
        found.setdefault(word, []).append(text)
    return found


@pytest.mark.usefixtures("secret")
def test_check_looks_at_all_and_creates_nothing(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Good settings are said to be good; odd ones are notes; nothing is made that would belong to the wrong user."""
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path / "data"))
    monkeypatch.setenv("CLUSTERSESSION_PEERS", "127.0.0.1:1,nothing.invalid")
    monkeypatch.setenv("CLUSTERSESSION_PEER", "x")
    found = findings(capsys)
    assert set(found) == {"ok", "note"}
    assert any("peers: 1 of 2 have an address" in each for each in found["ok"])
    assert any("has room for" in each for each in found["ok"])
    assert "node: none runs now" in found["ok"]
    assert any("nothing.invalid:10060" in each for each in found["note"])
    assert any("did you mean CLUSTERSESSION_PEERS?" in each for each in found["note"])
    assert list(tmp_path.iterdir()) == []


def test_check_exits_with_78_where_something_is_wrong(capsys: pytest.CaptureFixture[str]) -> None:
    """A mistake is a line of its own, with the remedy."""
    (problem,) = findings(capsys, code=78)["wrong"]
    assert "clustersession key new" in problem


@pytest.mark.usefixtures("secret")
def test_check_finds_a_place_that_others_can_look_into(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store directory with wide permissions is wrong before the first request finds out."""
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CLUSTERSESSION_NODE", "a")
    place = tmp_path / "default-a"
    place.mkdir()
    place.chmod(0o755)
    assert "other users can look into it" in findings(capsys, code=78)["wrong"][0]


NOBODY = 65534


@pytest.mark.usefixtures("secret")
def test_check_as_another_user_than_the_app_notes_what_it_cannot_look_into(tmp_path: Path) -> None:
    """The place is the app user's alone, as it should be; that is no mistake, and no traceback."""
    data = tmp_path / "data"
    (data / "default-a").mkdir(parents=True)
    environ = {**os.environ, "CLUSTERSESSION_DATA_DIR": str(data), "CLUSTERSESSION_NODE": "a", "CLUSTERSESSION_MODE": "on"}
    for directory in (tmp_path, *tmp_path.parents[:-2]):
        directory.chmod(directory.stat().st_mode | 0o055)
    is_root = os.geteuid() == 0
    data.chmod(0o700 if is_root else 0o000)
    become = f"os.setgid({NOBODY}); os.setuid({NOBODY})" if is_root else "pass"
    code = f"""
import contextlib, io, os, sys
from clustersession.cli.main import main
with contextlib.redirect_stdout(io.StringIO()):
    main(["check"])  # all is loaded then: whoever becomes nobody may be unable to read our source
{become}
sys.exit(main(["check"]))
"""
    done = subprocess.run([sys.executable, "-c", code], cwd=TOP, env=environ, capture_output=True, text=True, check=False)
    data.chmod(0o700)
    assert done.stderr == ""
    assert done.returncode == 0
    assert "note  place: user" in done.stdout
    assert "nor see whether it is there" in done.stdout


@pytest.mark.usefixtures("secret")
def test_check_finds_a_place_without_room(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """A store larger than what is free is wrong, with the setting that asks for it."""
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path))
    monkeypatch.setenv("CLUSTERSESSION_MAX_BYTES", "900000GiB")
    assert findings(capsys, code=78)["wrong"][0].startswith("CLUSTERSESSION_MAX_BYTES: it asks for")


@pytest.mark.usefixtures("secret")
def test_check_finds_a_place_that_is_a_file(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """There is no use in the room around it."""
    (tmp_path / "file").touch()
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path / "file" / "deep"))
    assert findings(capsys, code=78)["wrong"] == [f"{tmp_path}/file is no directory. Let CLUSTERSESSION_DATA_DIR name one."]


@pytest.mark.usefixtures("secret")
def test_check_notes_a_place_that_this_user_cannot_make(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """It may be run by another user than the app, so that is no mistake."""
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path))
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # as root everything can be written to
    assert any("cannot create" in each and str(tmp_path) in each for each in findings(capsys)["note"])


@pytest.mark.usefixtures("secret")
def test_check_notes_a_port_that_is_taken_and_an_address_of_another_host(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """What keeps a node from starting here is said before it is started; elsewhere the address may be right."""
    monkeypatch.setenv("CLUSTERSESSION_DATA_DIR", str(tmp_path))
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        monkeypatch.setenv("CLUSTERSESSION_LISTEN", f"127.0.0.1:{port}")
        monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", "192.0.2.1:10061")
        monkeypatch.setenv("CLUSTERSESSION_ADMIN_TOKEN", "t" * 20)
        found = [each for each in findings(capsys)["note"] if "could not listen" in each]
    assert found == [
        f"CLUSTERSESSION_LISTEN: a node could not listen on 127.0.0.1:{port} here now (Address already in use).",
        "CLUSTERSESSION_ADMIN_LISTEN: a node could not listen on 192.0.2.1:10061 here now (Cannot assign requested address).",
    ]


# --- the node that is not there -------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("command", ["status", "tags"])
def test_a_node_that_does_not_answer_is_said_with_its_address(
    command: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Nobody there: exit code 69, and where it was looked for."""
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", "127.0.0.1:1")
    assert main([command]) == 69
    assert "no node answers on 127.0.0.1:1" in capsys.readouterr().err


def test_a_listener_that_is_off_cannot_be_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """With the control listener off there is no status, and the error says which setting that is."""
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", "off")
    assert main(["status"]) == 78
    assert "CLUSTERSESSION_ADMIN_LISTEN: the control listener is off" in capsys.readouterr().err


def test_dev_mode_has_no_node(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    """`clustersession node` in dev mode says that there is nothing to run."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "dev")
    assert main(["node"]) == 78
    assert "dev mode has no node" in capsys.readouterr().err
