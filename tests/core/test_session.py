"""The session as the app sees it: a dict that knows what was changed, looked at and asked for."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from clustersession.config import Limits
from clustersession.core.session import LifetimeChange, Session
from clustersession.core.values import encode_value
from clustersession.errors import ChangeAfterResponse, SessionTooLarge, ValueNotSupported

UNDECODABLE = b"\xd4\x63\x00"  # an extension type of a later release
HANDLE = "5f" * 16


def encoded(data: dict[str, Any]) -> dict[str, bytes]:
    return {key: encode_value(value) for key, value in data.items()}


def stored(data: dict[str, Any], **items: bytes) -> Session:
    return Session({**encoded(data), **items}, handle=HANDLE, is_new=False)


# --- change detection -------------------------------------------------------------------------------------------------


def test_reading_changes_nothing() -> None:
    """A request that only looks at every value, of every kind, has nothing to save."""
    session = stored({"cart": [{"sku": "a", "tags": {"x", "y"}}], "n": 1, "t": (1, [2]), "none": None})
    assert dict(session) == {"cart": [{"sku": "a", "tags": {"x", "y"}}], "n": 1, "t": (1, [2]), "none": None}
    assert session.changes() == {}
    assert not session.modified


def test_nested_changes_are_found() -> None:
    """A value that was changed in place is saved without any flag; its neighbours are not."""
    session = stored({"cart": [{"qty": 1}], "seen": ["a"], "t": ([],)})
    session["cart"][0]["qty"] += 1
    session["t"][0].append(1)
    assert session["seen"] == ["a"]
    assert session.changes() == encoded({"cart": [{"qty": 2}], "t": ([1],)})


def test_assignment_and_deletion() -> None:
    """Set keys are saved as they are at the end, deleted ones as None, and a key of this request that went again not at all."""
    session = stored({"old": 1, "gone": 2})
    session["new"] = fresh = [1]
    fresh.append(2)
    session["brief"] = 1
    del session["brief"], session["gone"]
    session["old"] = 3
    assert session.changes() == {**encoded({"new": [1, 2], "old": 3}), "gone": None}
    assert session.modified


def test_an_equal_value_is_no_change() -> None:
    """Setting what is there already writes nothing, also after a deletion in between; another type is another value."""
    session = stored({"a": [1], "b": 1, "c": {1, 2, 3}})
    session["a"] = [1]
    del session["b"]
    session["b"] = 1
    session["c"] = {3, 1, 2}
    assert session.changes() == {}
    session["b"] = True
    assert session.changes() == encoded({"b": True})


def test_untouched_values_are_not_decoded() -> None:
    """Only what is touched costs anything: a value nobody looks at may even be unreadable."""
    counted: list[str] = []
    session = Session({**encoded({"a": 1}), "later": UNDECODABLE}, on_undecodable=counted.append)
    assert session["a"] == 1
    assert session.changes() == {}
    assert counted == []


class AgainstDict(RuleBasedStateMachine):
    """A session does what a dict does, and applying its changes to what was stored gives what a dict would hold."""

    keys = st.sampled_from("abcd")
    contents = st.integers() | st.lists(st.integers(), max_size=2) | st.just("x")

    @initialize(data=st.dictionaries(keys, contents))
    def begin(self, data: dict[str, Any]) -> None:
        self.stored = encoded(data)
        self.session = Session(self.stored)
        self.model = json.loads(json.dumps(data))

    @rule(key=keys, value=contents)
    def set(self, key: str, value: Any) -> None:
        self.session[key] = value
        self.model[key] = json.loads(json.dumps(value))

    @rule(key=keys)
    def delete(self, key: str) -> None:
        assert self.session.pop(key, None) == self.model.pop(key, None)

    @rule(key=keys, value=contents)
    def setdefault(self, key: str, value: Any) -> None:
        assert self.session.setdefault(key, value) == self.model.setdefault(key, json.loads(json.dumps(value)))

    @rule(key=keys)
    def append(self, key: str) -> None:
        if isinstance(self.session.get(key), list):
            self.session[key].append(7)
            self.model[key].append(7)

    @rule()
    def clear(self) -> None:
        self.session.clear()
        self.model.clear()

    @precondition(lambda self: self.session.changes())
    @rule()
    def save(self) -> None:
        changes = self.session.changes()
        self.stored = {key: data for key, data in {**self.stored, **changes}.items() if data is not None}
        self.session.saved(changes, HANDLE)
        assert self.session.changes() == {}

    @invariant()
    def same(self) -> None:
        if not hasattr(self, "model"):
            return
        saved = {key: data for key, data in {**self.stored, **self.session.changes()}.items() if data is not None}
        assert saved == encoded(self.model)
        assert self.session == self.model
        assert len(self.session) == len(self.model)
        assert sorted(self.session) == sorted(self.model)


test_against_dict = AgainstDict.TestCase


# --- what a dict can do -----------------------------------------------------------------------------------------------


def test_it_is_used_as_a_dict() -> None:
    """Equality, copy, update, merge and the rest work as a dict's."""
    session = stored({"a": 1})
    session.update(b=2)
    session |= {"c": 3}
    assert session == {"a": 1, "b": 2, "c": 3} == session.copy()
    assert type(session.copy()) is dict
    assert session | {"d": 4} == {"a": 1, "b": 2, "c": 3, "d": 4}
    assert list(session) == ["a", "b", "c"]
    assert session.pop("a") == 1
    assert session.pop("a", None) is None
    assert ("a" in session, object() in session, session.get("zzz", 9)) == (False, False, 9)
    assert json.dumps(dict(session)) == '{"b": 2, "c": 3}'
    for missing in ("a", "never"):
        with pytest.raises(KeyError):
            session[missing]
        with pytest.raises(KeyError):
            del session[missing]


def test_keys_are_text() -> None:
    """A key that is no text is refused when it is set, in words; a text subclass becomes plain text."""
    session = Session()
    for key in (1, b"x", None, ("a",)):
        with pytest.raises(ValueNotSupported, match="session keys are text"):
            session[key] = 1  # type: ignore[index]
    with pytest.raises(ValueNotSupported, match="surrogates"):
        session["\ud800"] = 1

    class Name(str):
        __slots__ = ()

    session[Name("n")] = 1
    assert [type(key) for key in session.changes()] == [str]


def test_a_typo_in_an_attribute_is_not_swallowed() -> None:
    """`session.user = x` is no way to store anything, so it raises."""
    with pytest.raises(AttributeError):
        Session().user_id = 5  # type: ignore[attr-defined]


LOOKS: dict[str, Callable[[Session], object]] = {
    "get item": lambda session: session["a"],
    "get": lambda session: session.get("a"),
    "get missing": lambda session: session.get("zzz"),
    "in": lambda session: "a" in session,
    "not in": lambda session: "zzz" in session,
    "len": len,
    "bool": bool,
    "iter": iter,
    "keys": lambda session: list(session.keys()),
    "values": lambda session: list(session.values()),
    "items": lambda session: list(session.items()),
    "repr": repr,
    "eq": lambda session: session == {},
    "copy": lambda session: session.copy(),
    "or": lambda session: session | {},
    "id": lambda session: session.id,
    "is_new": lambda session: session.is_new,
    "created_age_s": lambda session: session.created_age_s,
    "auth_age_s": lambda session: session.auth_age_s,
    "set": lambda session: session.__setitem__("a", 1),
    "delete": lambda session: session.__delitem__("a"),
    "pop": lambda session: session.pop("a"),
    "popitem": lambda session: session.popitem(),
    "setdefault": lambda session: session.setdefault("b", 1),
    "update": lambda session: session.update(b=1),
    "clear": lambda session: session.clear(),
    "modified": lambda session: setattr(session, "modified", True),
    "end": lambda session: session.end(),
    "rotate": lambda session: session.rotate(),
    "set_lifetime": lambda session: session.set_lifetime(1, None),
}


@pytest.mark.parametrize("look", LOOKS.values(), ids=LOOKS)
def test_every_look_counts_as_access(look: Callable[[Session], object]) -> None:
    """Whatever makes the response depend on the session marks it accessed, so that no cache mixes users up."""
    session = stored({"a": 1})
    assert not session.accessed
    look(session)
    assert session.accessed


@pytest.mark.parametrize("look", [LOOKS[name] for name in ("len", "bool", "iter", "repr", "keys", "in", "eq", "id")])
def test_a_look_at_an_empty_session_counts_too(look: Callable[[Session], object]) -> None:
    """That there is no session is something a response may depend on."""
    session = Session()
    look(session)
    assert session.accessed


def test_the_pipeline_leaves_no_trace() -> None:
    """What the pipeline asks for is not the app's access."""
    session = stored({"_user_id": "7"})
    session.changes()
    session.check_limits()
    session.principal(("_user_id",))
    assert (session.modified, session.rotation, session.ended, session.lifetime_change) == (False, None, False, None)
    session.close()
    assert not session.accessed


def test_its_repr_shows_no_values() -> None:
    """A log line or traceback shows keys and the handle only."""
    assert repr(stored({"card": "4111"})) == f"<Session {HANDLE}: 'card'>"
    assert repr(Session()) == "<Session not stored: empty>"


# --- values of another release --------------------------------------------------------------------------------------


def test_an_undecodable_value_is_missing_and_left_alone() -> None:
    """What this release can't decode is absent to the app, counted once, and not part of the changes."""
    counted: list[str] = []
    session = Session({**encoded({"a": 1}), "later": UNDECODABLE}, on_undecodable=counted.append)
    assert "later" not in session
    assert session.get("later") is None
    assert dict(session) == {"a": 1}
    assert len(session) == 1
    with pytest.raises(KeyError):
        del session["later"]
    assert session.pop("later", 5) == 5
    assert counted == ["later"]
    assert session.changes() == {}
    assert stored({}, later=UNDECODABLE).get("later") is None  # nobody counts


def test_an_undecodable_value_is_replaced_by_assignment() -> None:
    """Assigning its key, or clearing everything, is meant for it too."""
    session = stored({}, later=UNDECODABLE)
    assert "later" not in session
    session["later"] = 2
    assert session["later"] == 2
    assert session.changes() == encoded({"later": 2})
    session.saved(session.changes(), HANDLE)
    del session["later"]
    assert session.changes() == {"later": None}
    other = stored({"a": 1}, later=UNDECODABLE)
    other.clear()
    assert other.changes() == {"a": None, "later": None}
    assert dict(other) == {}


# --- end, rotate, lifetime, saved, close ------------------------------------------------------------------------------


def test_the_end_clears_and_what_comes_after_is_new() -> None:
    """After `end()` nothing of the old session shows, and what is set later belongs to the next one."""
    session = stored({"_user_id": "7", "cart": [1]}, later=UNDECODABLE)
    session["cart"].append(2)
    session.rotate()
    session.set_lifetime(5, 5)
    session.end()
    assert session.ended
    assert (session.id, session.rotation, session.lifetime_change) == (None, None, None)
    assert dict(session) == {}
    assert session.changes() == {}
    session["flash"] = "bye"
    assert session.changes() == encoded({"flash": "bye"})
    session.saved(session.changes(), "6a" * 16)
    assert (session.ended, session.id) == (False, "6a" * 16)


def test_rotation_without_grace_is_the_stronger() -> None:
    """A rotation keeps the data; of two in a request the one without grace counts, in either order."""
    session = stored({"a": 1})
    assert session.rotation is None
    session.rotate(grace=True)
    assert session.rotation == "grace"
    session.rotate()
    session.rotate(grace=True)
    assert session.rotation == "strict"
    assert session["a"] == 1
    assert session.changes() == {}


def test_a_lifetime_is_positive() -> None:
    """Limits are seconds above 0 or None; anything else is a mistake that is said at once."""
    session = stored({})
    session.set_lifetime(1800, None)
    assert session.lifetime_change == LifetimeChange(1800, None)
    for wrong in (0, -1, float("nan")):
        with pytest.raises(ValueError, match="above 0"):
            session.set_lifetime(None, wrong)
    assert session.lifetime_change == LifetimeChange(1800, None)


def test_attributes_of_the_request() -> None:
    """Handle, ages and newness are what it was made with."""
    session = Session(handle=HANDLE, created_age_s=60.0, auth_age_s=5.0, is_new=False)
    assert (session.id, session.created_age_s, session.auth_age_s, session.is_new) == (HANDLE, 60.0, 5.0, False)
    assert (Session().id, Session().created_age_s, Session().is_new) == (None, None, True)


def test_a_body_still_being_sent_may_change_more() -> None:
    """After a save only what changed since is left to save."""
    session = Session()
    session["cart"] = [1]
    session.saved(session.changes(), HANDLE)
    assert (session.changes(), session.id, session.is_new, session.modified) == ({}, HANDLE, False, False)
    session["cart"].append(2)
    assert session.changes() == encoded({"cart": [1, 2]})


CHANGES = ["set", "delete", "pop", "popitem", "setdefault", "update", "clear", "modified", "end", "rotate", "set_lifetime"]


@pytest.mark.parametrize("change", CHANGES)
def test_a_change_that_comes_too_late_raises(change: str) -> None:
    """Once nothing can be saved any more a change raises, and leaves everything as it was; reading goes on."""
    session = stored({"a": 1})
    session.close()
    with pytest.raises(ChangeAfterResponse, match="change it before the response ends"):
        LOOKS[change](session)
    assert session == {"a": 1}
    assert (session.changes(), session.ended, session.rotation, session.modified) == ({}, False, None, False)
    session.modified = False


def test_a_late_nested_change_still_shows() -> None:
    """A change inside a value can't raise by itself; it is there for the pipeline to find."""
    session = stored({"cart": []})
    session.close()
    session["cart"].append(1)
    assert session.changes() == encoded({"cart": [1]})


# --- limits -----------------------------------------------------------------------------------------------------------


def test_what_no_session_can_hold_is_named_with_its_key() -> None:
    """The error of a value names its place, and the depth limit of the settings is applied to what changed."""
    session = Session(limits=Limits(depth_max=2))
    session["cart"] = [{"item": object()}]
    with pytest.raises(ValueNotSupported, match=r"session\['cart'\]\[0\]\['item'\] is of type object"):
        session.changes()
    session["cart"] = [[[]]]
    with pytest.raises(ValueNotSupported, match=r"session\['cart'\] is nested in more than 2 levels"):
        session.changes()


def test_the_size_limit_is_exact() -> None:
    """Keys and values together may have exactly as many bytes as the limit says, and the size is returned."""
    session = Session({"kept": b"\xa1x"}, limits=Limits(session_bytes_max=20))
    session["key"] = "x" * 10  # 3 + 11 bytes, and 4 + 2 that were there
    assert session.check_limits() == 20
    session["key"] = "x" * 11
    with pytest.raises(SessionTooLarge, match="the size of the session in bytes is 21, the limit is 20"):
        session.check_limits(session.changes())


def test_an_oversized_session_may_shrink() -> None:
    """After the limits were lowered a session may be made smaller step by step, but not larger."""
    limits = Limits(session_bytes_max=4, keys_max=1)
    session = Session(encoded({"a": "xxxxx", "b": "x", "c": 1}), limits=limits)
    session["a"] = "xxxx"
    assert session.check_limits() > 4
    del session["b"]
    assert session.check_limits() > 4
    session["a"] = "x" * 9  # more than went with the other key
    with pytest.raises(SessionTooLarge, match="bytes"):
        session.check_limits()


def test_the_number_and_length_of_keys_are_limited() -> None:
    """Exactly as many keys, and keys of exactly as many bytes, as the limits say."""
    session = Session(encoded({"a": 1}), limits=Limits(keys_max=2, key_length_max=4))
    session["\u00e9\u00e9"] = 1
    assert session.check_limits()
    session["c"] = 1
    with pytest.raises(SessionTooLarge, match="the number of keys in the session is 3, the limit is 2"):
        session.check_limits()
    del session["c"], session["a"]
    session["\u00e9\u00e9x"] = 1
    with pytest.raises(ValueNotSupported, match="has 5 bytes, the limit is 4"):
        session.check_limits()


# --- principal --------------------------------------------------------------------------------------------------------

PRINCIPALS = ("_user_id", "_auth_user_id")


@pytest.mark.parametrize(
    ("data", "who"),
    [
        ({}, None),
        ({"_user_id": None}, None),
        ({"_user_id": ""}, None),
        ({"_user_id": False}, None),
        ({"_user_id": "7"}, "7"),
        ({"_user_id": 7}, "7"),
        ({"_user_id": 0}, "0"),
        ({"_auth_user_id": "8"}, "8"),
        ({"_auth_user_id": "8", "_user_id": "7"}, "7"),
        ({"_auth_user_id": "8", "_user_id": None}, "8"),
        ({"other": "9"}, None),
        ({"_user_id": "7\0"}, "7\0"),
    ],
)
def test_who_is_logged_in(data: dict[str, Any], who: str | None) -> None:
    """The first of the keys that holds somebody says who it is, as text, stored or set just now."""
    assert stored(data).principal(PRINCIPALS) == who
    session = Session()
    session.update(data)
    assert session.principal(PRINCIPALS) == who


def test_claims_are_a_principal_by_digest() -> None:
    """A dict, bytes or a value of another release stands for somebody, without its contents getting out."""
    one = stored({"_user_id": {"sub": "ann"}}).principal(PRINCIPALS)
    two = stored({"_user_id": {"sub": "bob"}}).principal(PRINCIPALS)
    later = stored({}, _user_id=UNDECODABLE)
    assert one != two
    assert one == stored({"_user_id": {"sub": "ann"}}).principal(PRINCIPALS)
    assert "ann" not in str(one)
    assert str(later.principal(PRINCIPALS)).startswith("sha256:")
    assert stored({"_user_id": b"ann"}).principal(PRINCIPALS) not in {None, "b'ann'"}
    later["_user_id"] = "ann"
    assert later.principal(PRINCIPALS) == "ann"
    ours = [stored({"_user_id": name}).principal(PRINCIPALS) for name in ("\0", "\0canary")]
    assert [str(who)[:7] for who in ours] == ["sha256:"] * 2, "such users are records of our own"
    assert ours[0] != ours[1]
    cleared = stored({}, _user_id=UNDECODABLE)
    assert "_user_id" not in cleared
    cleared.clear()
    assert cleared.principal(PRINCIPALS) is None


@given(st.dictionaries(st.text(max_size=5), st.binary(max_size=5), max_size=5))
def test_no_stored_bytes_raise(items: dict[str, bytes]) -> None:
    """Whatever bytes are stored, every way to look at the session works and changes nothing it can't read."""
    session = Session(items)
    assert len(dict(session)) == len(session) == len(list(session.values()))
    session.principal(("",))
    assert session.changes().keys() <= {key for key in items if key in session}
