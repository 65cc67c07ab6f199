"""`clustersession import` as a command: what it is told, what it says, what it exits with. The sessions are Django's files."""

from __future__ import annotations

import json
import re
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from clustersession.cli.import_state import ImportState
from clustersession.cli.importing import WORDS
from clustersession.errors import ConfigError
from clustersession.runtime.importing import Fate
from clustersession.sources import DjangoFileSession
from tests.end_to_end.cluster import Host
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import clustersession

from .import_targets import KEY

TARGETS = "tests.cli.import_targets"
COUNT = 12


class Said(NamedTuple):
    """What the command printed, and its exit code."""

    code: int
    out: str
    err: str

    @property
    def result(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)
        return found


class Old:
    """The sessions of before, in a directory of their own, and the command on a host that takes them over."""

    def __init__(self, host: Host, directory: Path) -> None:
        self.host, self.directory = host, directory
        self.sessions = DjangoFileSession(directory, KEY)
        self.cookies = [self.add(user=f"u{number}") for number in range(COUNT)]

    def add(self, **items: Any) -> str:
        cookie = self.sessions.write(None, items, None, time.time())
        assert cookie is not None
        return cookie

    def command(self, *arguments: str, **environ: str) -> Said:
        found = subprocess.run(
            clustersession("import", *arguments),
            cwd=self.directory.parent,
            env={**self.host.environ, "OLD_SESSIONS": str(self.directory), **environ},
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )
        return Said(found.returncode, found.stdout, found.stderr)

    def result(self, *arguments: str, **environ: str) -> dict[str, Any]:
        said = self.command("--json", *arguments, **environ)
        assert said.code == 0, said
        return said.result

    def taken(self, *arguments: str, **environ: str) -> int:
        return int(self.result(*arguments, **environ)["counts"]["taken"])


@pytest.fixture(scope="module")
def host(module_cluster: NewCluster) -> Host:
    (host,) = module_cluster(1)
    host.launch("node", clustersession("node"))
    until(lambda: host.sees({host.name}), "the node did not become ready")
    return host


@pytest.fixture
def old(host: Host, tmp_path: Path) -> Old:
    (tmp_path / "sessions").mkdir()
    return Old(host, tmp_path / "sessions")


WAYS: dict[str, tuple[list[str], dict[str, str]]] = {
    **{f"{kind} app": (["--app", f"{TARGETS}:{kind}_app()"], {}) for kind in ("flask", "wsgi", "asgi", "starlette")},
    "Django project": ([], {"DJANGO_SETTINGS_MODULE": "tests.cli.import_settings"}),
    "Django app": (["--app", "django.core.wsgi:get_wsgi_application()"], {"DJANGO_SETTINGS_MODULE": "tests.cli.import_settings"}),
    "source": (
        ["--from", f"{TARGETS}:source"],
        {"CLUSTERSESSION_IDLE_TIMEOUT": "14d", "CLUSTERSESSION_ABSOLUTE_TIMEOUT": "none"},
    ),
    "app and source": (["--app", f"{TARGETS}:wsgi_app()", "--from", f"{TARGETS}:source"], {}),
}


@pytest.mark.parametrize("way", WAYS)
def test_every_way_to_name_what_is_imported(way: str, old: Old) -> None:
    """A dry run says how many; then all are taken over, once; then all are here."""
    arguments, environ = WAYS[way]
    dry = old.result(*arguments, "--dry-run", **environ)
    assert (dry["counts"]["taken"], dry["dry_run"], dry["complete"], dry["problem"]) == (COUNT, True, True, None)
    assert old.taken(*arguments, **environ) == COUNT
    again = old.result(*arguments, **environ)
    assert again["counts"] == {**dict.fromkeys(WORDS, 0), "here_already": COUNT}


NOT_BEGUN: dict[str, tuple[list[str], str]] = {
    "nothing": ([], "neither the app nor a source was named"),
    "no name": (["--app", "shop"], "is no module:attribute"),
    "no module": (["--app", "there.is.none:app"], "cannot be loaded.*No module named"),
    "no attribute": (["--from", f"{TARGETS}:nothing"], "cannot be loaded"),
    "no source": (["--from", f"{TARGETS}:number"], "is no source, but a int"),
    "a function of something else": (["--from", "json:loads"], "cannot be called without arguments"),
    "a function that takes more": (["--app", "json:loads()"], "cannot be called without arguments"),
    "no list": (["--from", f"{TARGETS}:unlisted"], "cannot list its sessions"),
    "signed cookies": (["--app", f"{TARGETS}:wsgi_app()", "--from", f"{TARGETS}:signed"], "no list|in the cookies"),
    "not ours": (["--app", f"{TARGETS}:plain_flask_app()"], "no session middleware of ours"),
    "adopting nothing": (["--app", f"{TARGETS}:adopting_nothing()"], "takes no sessions over"),
    "lifetimes unknown": (["--from", f"{TARGETS}:source"], "how long the app's sessions live is not known"),
}


@pytest.mark.parametrize("case", NOT_BEGUN)
def test_what_cannot_begin_exits_with_2(case: str, old: Old) -> None:
    """And says why, without a traceback; nothing is printed as a result."""
    arguments, words = NOT_BEGUN[case]
    said = old.command(*arguments)
    assert (said.code, said.out) == (2, ""), said
    assert re.search(words, said.err), said.err
    assert "Traceback" not in said.err


@pytest.mark.parametrize("arguments", [["--rate", "0"], ["--rate", "many"], ["--nonsense"]])
def test_a_wrong_option_exits_with_2(arguments: list[str], old: Old) -> None:
    """With how it is used."""
    said = old.command(*arguments)
    assert said.code == 2
    assert "usage: clustersession" in said.err


def test_another_mode_cannot_begin(old: Old) -> None:
    """While other hosts may write to the old sessions."""
    said = old.command("--app", f"{TARGETS}:flask_app()", CLUSTERSESSION_MODE="mirror")
    assert said.code == 2
    assert "Import when every host is in mode 'on'" in said.err


def test_people_are_told_in_words(old: Old) -> None:
    """One line of counts, one for each reason of what was refused."""
    said = old.command("--app", f"{TARGETS}:wsgi_app()", "--dry-run")
    assert said.out == f"{COUNT} sessions of django-files (nothing was written): {COUNT} taken over\n"
    assert {fate.value for fate in Fate} == set(WORDS)


def test_the_rate_is_kept(old: Old) -> None:
    """Twelve sessions at ten a second take more than a second."""
    result = old.result("--app", f"{TARGETS}:wsgi_app()", "--rate", "10")
    assert result["counts"]["taken"] == COUNT
    assert result["seconds"] >= (COUNT - 1) / 10


def test_an_old_store_without_an_answer_exits_with_1(old: Old) -> None:
    """After some tries; it says what to mend, and that it is not complete."""
    old.directory.rename(old.directory.with_name("elsewhere"))
    said = old.command("--json", "--app", f"{TARGETS}:wsgi_app()")
    assert said.code == 1
    assert not said.result["complete"]
    assert "is not there: mount it" in said.result["problem"]


def test_a_finished_import_is_run_again_from_the_beginning(old: Old, tmp_path: Path) -> None:
    """With the same file, which nobody else may read: what has come since is taken over too."""
    state = tmp_path / "state"
    arguments = ["--app", f"{TARGETS}:wsgi_app()", "--resume", str(state)]
    assert old.taken(*arguments) == COUNT
    assert state.stat().st_mode & 0o777 == 0o600
    old.add(user="later")
    later = old.result(*arguments)
    assert later["counts"] == {**dict.fromkeys(WORDS, 0), "taken": 1, "here_already": COUNT}
    assert not later["resumed"]
    other = ImportState.read(tmp_path / "other", "another source")
    other.page_done("x")
    said = old.command("--app", f"{TARGETS}:wsgi_app()", "--resume", str(tmp_path / "other"))
    assert said.code == 2
    assert "is of an import from another source" in said.err


def test_a_dry_run_leaves_the_file_alone(old: Old, tmp_path: Path) -> None:
    """It neither reads nor writes how far an import has come."""
    old.result("--app", f"{TARGETS}:wsgi_app()", "--dry-run", "--resume", str(tmp_path / "state"))
    assert not (tmp_path / "state").exists()


# --- the file ----------------------------------------------------------------------------------------------------------------


@pytest.fixture
def path(tmp_path: Path) -> Iterator[Path]:
    yield tmp_path / "state"
    assert not list(tmp_path.glob("*.new"))


def test_the_file_knows_how_far_it_has_come(path: Path) -> None:
    """What was counted before the last page was done, and where that ends; not what came after."""
    state = ImportState.read(path, "s")
    state.count("taken", "")
    state.count("refused", "a shop.Cart")
    state.page_done("c1")
    state.count("taken", "")
    found = ImportState.read(path, "s")
    assert (found.cursor, found.resumed, dict(found.counts)) == ("c1", True, {"taken": 1, "refused": 1})
    assert dict(found.reasons) == {"a shop.Cart": 1}


@pytest.mark.parametrize("text", ["", "{", "[]", '{"source": 1}', '{"source": "s", "cursor": 3, "counts": {}, "reasons": {}}'])
def test_a_file_that_is_none_of_ours_is_left_alone(text: str, path: Path) -> None:
    """It may be something else of somebody's."""
    path.write_text(text)
    with pytest.raises(ConfigError, match="cannot be read"):
        ImportState.read(path, "s")
    assert path.read_text() == text


def test_a_file_that_cannot_be_written_is_known_before_anything_is_done(tmp_path: Path) -> None:
    """In a directory that is not there."""
    with pytest.raises(ConfigError, match="cannot be written"):
        ImportState.read(tmp_path / "no" / "state", "s")


def test_reasons_are_bounded() -> None:
    """However many types an old store holds."""
    state, say = ImportState(None, "s"), "reason {}".format
    for number in range(200):
        state.count("refused", say(number))
    assert len(state.reasons) <= 51
    assert state.reasons.total() == 200
