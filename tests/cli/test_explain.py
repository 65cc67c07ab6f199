"""`clustersession explain`, asked on a host of a real cluster."""

from __future__ import annotations

import io
import json
import shutil
from collections.abc import Callable
from typing import Any, NamedTuple

import pytest

from clustersession.cli.cookie_input import Refused, read_id
from clustersession.cli.main import main
from clustersession.core.keyring import KeyRing
from clustersession.core.session_id import SESSION_ID_LENGTH, IdContext, SessionId, encode, node_tag, verify
from clustersession.settings import load_settings, new_key
from tests.end_to_end.browser import Browser
from tests.end_to_end.cluster import SECRET, Cluster, Host, session_of
from tests.end_to_end.conftest import NewCluster
from tests.end_to_end.processes import until
from tests.end_to_end.servers import FLASK, gunicorn

HANDLE = "0a" * 16
VALUE = "value-that-nobody-may-see"


@pytest.fixture(scope="module")
def running(module_cluster: NewCluster) -> Cluster:
    cluster = module_cluster(4)  # of which two can be dead without a doubt about the others
    for host in cluster:
        host.run(gunicorn(FLASK, host.app, workers=1))
    cluster.await_whole()
    return cluster


@pytest.fixture
def cluster(running: Cluster) -> Cluster:
    running.heal()
    return running


class Said(NamedTuple):
    """What the command printed, and its exit code."""

    exit: int
    out: str

    @property
    def verdict(self) -> dict[str, Any]:
        found: dict[str, Any] = json.loads(self.out)["verdict"]
        return found

    @property
    def code(self) -> str:
        return str(self.verdict["code"])


Explain = Callable[..., Said]


@pytest.fixture
def explain(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Explain:
    """The command as it runs on a host, with what it is given on standard input."""

    def run(host: Host | None, *arguments: str, stdin: str = "") -> Said:
        for name, text in (host.environ if host else {}).items():
            if name.startswith("CLUSTERSESSION_"):
                monkeypatch.setenv(name, text)
        monkeypatch.setattr("sys.stdin", io.StringIO(stdin))
        capsys.readouterr()
        return Said(main(["explain", *arguments]), capsys.readouterr().out)

    return run


def cookie_of(browser: Browser) -> str:
    [text] = browser.cookies
    return text


def id_of(browser: Browser) -> SessionId:
    name, _, text = cookie_of(browser).partition("=")
    return verify(text, KeyRing.parse(SECRET), IdContext("default", name))


# --- where it lives --------------------------------------------------------------------------------------------------------


def test_a_session_is_found_by_its_handle_and_by_its_cookie(cluster: Cluster, explain: Explain) -> None:
    """Asked on any host: both owners have it. Neither form shows a value, the user or the cookie."""
    browser = session_of(cluster["n1"], cluster["n2"])
    browser.get(cluster["n1"].app, "/set", basket=VALUE)
    cookie, bare = cookie_of(browser), cookie_of(browser).partition("=")[2]
    for host in cluster:
        by_cookie = explain(host, "--json", stdin=f"theme=dark; {cookie}\n")
        assert (by_cookie.exit, by_cookie.code, by_cookie.verdict["fate"]) == (0, "held", "alive")
        assert json.loads(by_cookie.out)["cookie"]["owners"] == ["n1", "n2"]
    handle = id_of(browser).handle
    asked = [
        explain(cluster["n3"], handle),
        explain(cluster["n3"], handle.upper()),
        explain(cluster["n3"], "-", stdin=handle),
        explain(cluster["n3"], stdin=bare),
        explain(cluster["n3"], stdin=f"Cookie: {cookie}"),
    ]
    for said in asked:
        assert said.exit == 0
        assert said.out.startswith("alive (held): both owners, n")
        assert f"session {handle}, asked on n3" in said.out
        assert "  n3  alive    has nothing of it\n" in said.out
        assert "logged in" in said.out
        for secret in (VALUE, "_user_id", "basket", bare[45:]):
            assert secret not in said.out
            assert secret not in by_cookie.out


def test_one_owner_killed(cluster: Cluster, explain: Explain) -> None:
    """First there is one copy, and it says who is missing; then repair has made a second one elsewhere."""
    browser = session_of(cluster["n1"], cluster["n2"])
    cluster["n1"].kill()
    seen: list[Said] = []

    def repaired() -> bool:
        seen.append(explain(cluster["n3"], "--json", stdin=cookie_of(browser)))
        return seen[-1].code == "held"

    until(repaired, "no second copy")
    assert (seen[0].exit, seen[0].code) == (0, "alone")
    assert "n1, its other owner, " in seen[0].verdict["words"]
    assert {said.code for said in seen} <= {"alone", "moving", "behind", "held"}
    assert "n2" in seen[-1].verdict["words"]
    assert "n1" not in seen[-1].verdict["words"]


def test_owners_that_give_no_answer_are_no_loss(cluster: Cluster, explain: Explain) -> None:
    """Both owners are stopped: whether they have it is not known, and the exit code says so."""
    browser = session_of(cluster["n1"], cluster["n2"])
    for name in ("n1", "n2"):
        cluster[name].pause()
    said = explain(cluster["n3"], "--json", stdin=cookie_of(browser))
    assert (said.exit, said.code) == (3, "unanswered")
    assert "n1 and n2 gave no answer" in said.verdict["words"]


# --- why it is gone -----------------------------------------------------------------------------------------------------------


def test_logged_out(cluster: Cluster, explain: Explain) -> None:
    """The old cookie, and the handle, tell of the logout."""
    browser = session_of(cluster["n1"])
    old = browser.copy()
    browser.get(cluster["n1"].app, "/end")
    for said in (explain(cluster["n2"], "--json", stdin=cookie_of(old)), explain(cluster["n3"], "--json", id_of(old).handle)):
        assert (said.exit, said.code, said.verdict["fate"]) == (1, "logout", "gone")


def test_rotated(cluster: Cluster, explain: Explain) -> None:
    """A login gives a new ID: the old handle says that, the new one is alive."""
    browser = Browser()
    browser.get(cluster["n1"].app, "/set", cart="apple")
    old = id_of(browser).handle
    browser.get(cluster["n1"].app, "/set", _user_id="u")
    assert id_of(browser).handle != old
    said = explain(cluster["n1"], "--json", old)
    assert (said.exit, said.code) == (1, "rotated")
    assert "must log in again" in said.verdict["words"]
    assert explain(cluster["n1"], "--json", id_of(browser).handle).exit == 0


def test_nobody_knows_the_handle(cluster: Cluster, explain: Explain) -> None:
    """All members answered, so it is gone or never was."""
    said = explain(cluster["n1"], "--json", HANDLE)
    assert (said.exit, said.code) == (1, "nothing")


def test_both_owners_killed_and_their_files_gone(cluster: Cluster, explain: Explain) -> None:
    """Not known while nobody has declared them dead; then lost, also when they are back without their files."""
    browser = session_of(cluster["n1"], cluster["n2"])
    for name in ("n1", "n2"):
        cluster[name].kill()
        shutil.rmtree(cluster[name].place)
    first = explain(cluster["n3"], "--json", stdin=cookie_of(browser))
    assert (first.exit, first.code) == (3, "unanswered")

    def lost() -> bool:
        return explain(cluster["n3"], "--json", stdin=cookie_of(browser)).code == "lost"

    until(lost, "it is not called lost")
    said = explain(cluster["n3"], stdin=cookie_of(browser))
    assert said.exit == 1
    assert "gone (lost): both copies are lost: its cookie names n1 (dead) and n2 (dead)." in said.out
    by_handle = explain(cluster["n3"], "--json", id_of(browser).handle)
    assert (by_handle.exit, by_handle.code) == (3, "unanswered")
    assert "n1 and n2 cannot be asked" in by_handle.verdict["words"]
    for name in ("n1", "n2"):
        cluster[name].run(gunicorn(FLASK, cluster[name].app, workers=1))
    cluster.await_whole()
    back = explain(cluster["n3"], "--json", stdin=cookie_of(browser))
    assert (back.exit, back.code) == (1, "lost"), back.out
    assert "s ago, has nothing of it) and n2 (started " in back.verdict["words"]


# --- what is no ID ------------------------------------------------------------------------------------------------------------


def made_with(secret: str, name: str = "clustersession", cluster: str = "default") -> str:
    key = KeyRing.parse(secret).signing
    tag = node_tag(key, "n1", 1)
    context = IdContext(cluster, name)
    return encode(token=b"t" * 16, born=1, master=tag, backup=None, epoch=1, version=1, key=key, context=context)


def forged(text: str) -> str:
    return text[:60] + ("0" if text[60] != "0" else "1") + text[61:]


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize(
    ("change", "reason", "words"),
    [
        (forged, "mac", "forged or changed, or of another cluster"),
        (lambda _: made_with(new_key(1)), "mac", "of another cluster, cookie or key"),
        (lambda _: made_with(SECRET, cluster="other"), "mac", "cluster 'default'"),
        (lambda _: made_with(new_key(7)), "kid", "made with key 7, and this ring has 1: that key is retired"),
        (lambda text: f"{text[:-1]}x", "alphabet", "not of our form"),
        (lambda text: f"shop={text[:-1]}", "length", f"104 characters, and an ID has {SESSION_ID_LENGTH}"),
        (lambda _: "shop=eyJhIjoxfQ.abc.def", "length", "of another system"),
        (lambda text: f"basket={text}", "no_cookie", "there is no cookie shop in it"),
        (lambda _: "", "no_cookie", "--cookie names another one"),
        (lambda text: f"shop={text}; shop={made_with(SECRET, 'shop')}", "ambiguous", "two sessions"),
        (lambda text: "; ".join(f"shop={n}{text}" for n in range(4)), "ambiguous", "more than 3"),
    ],
)
def test_a_cookie_that_is_no_id_of_this_cluster(change: Callable[[str], str], reason: str, words: str, explain: Explain) -> None:
    """Nobody is asked: exit code 2, a fixed word, and a sentence that shows nothing of the cookie."""
    key = KeyRing.parse(SECRET).signing
    tag = node_tag(key, "n1", 1)
    good = encode(
        token=b"g" * 16, born=1, master=tag, backup=None, epoch=1, version=1, key=key, context=IdContext("default", "shop")
    )
    given = change(good)
    said = explain(None, "--json", "--cookie", "shop", stdin=given)
    assert (said.exit, said.code, said.verdict["reason"]) == (2, "bad_id", reason), said.out
    assert words in said.verdict["words"]
    plain = explain(None, "--cookie", "shop", stdin=given)
    assert plain.out.startswith("bad_id: ")
    assert good[45:] not in plain.out + said.out


@pytest.fixture
def settings(monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a host whose node does not run."""
    monkeypatch.setenv("CLUSTERSESSION_SECRET", SECRET)
    monkeypatch.setenv("CLUSTERSESSION_ADMIN_LISTEN", "127.0.0.1:1")


@pytest.mark.usefixtures("settings")
def test_of_several_ids_of_one_session_the_latest_counts() -> None:
    """As in a request: a browser may still have the one with another path."""
    config, ring = load_settings(under_test=False), KeyRing.parse(SECRET)
    tag, context = node_tag(ring.signing, "n1", 1), IdContext("default", "shop")
    texts = [
        encode(token=b"g" * 16, born=1, master=tag, backup=None, epoch=1, version=n, key=ring.signing, context=context)
        for n in (1, 3, 2)
    ]
    found = read_id("; ".join(f"shop={text}" for text in texts), config, ring, ("shop",))
    assert not isinstance(found, Refused)
    assert found.floor == (1, 3)


@pytest.mark.usefixtures("settings")
@pytest.mark.parametrize("json_form", [True, False])
def test_without_a_node_nothing_is_known(json_form: bool, explain: Explain) -> None:
    """Exit code 3: it is not known, and who did not answer."""
    said = explain(None, HANDLE, *(["--json"] if json_form else []))
    assert said.exit == 3
    assert "no node answers on 127.0.0.1:1" in said.out
    assert "node_unreachable" in said.out


def test_a_cookie_is_not_taken_from_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    """Every user of the host could see it there; the error does not repeat it either."""
    text = made_with(SECRET)
    for argument in (text, f"clustersession={text}"):
        with pytest.raises(SystemExit) as caught:
            main(["explain", argument])
        assert caught.value.code == 2
        found = capsys.readouterr()
        assert "give it on standard input, never here" in found.err
        assert text[45:] not in found.out + found.err


def test_the_settings_must_be_there_for_a_cookie(explain: Explain) -> None:
    """Without the ring no cookie can be verified; that is an error of the settings, as with every command."""
    assert explain(None, stdin="shop=x").exit == 78


@pytest.mark.parametrize("encoding", ["ascii", "utf-8"])
def test_bytes_that_are_no_text_are_no_id(
    encoding: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever the locale makes of standard input."""
    monkeypatch.setenv("CLUSTERSESSION_MODE", "on")
    monkeypatch.setenv("CLUSTERSESSION_SECRET", SECRET)
    monkeypatch.setattr("sys.stdin", io.TextIOWrapper(io.BytesIO(b"\xff\xfe\x00cookie"), encoding=encoding, errors="strict"))
    assert main(["explain", "--json"]) == 2
    assert json.loads(capsys.readouterr().out)["verdict"]["code"] == "bad_id"
