import pytest
from hypothesis import given
from hypothesis import strategies as st

from clustersession.config import Address
from clustersession.settings.kinds import (
    COUNT,
    DELAY,
    DURATION,
    FLAG,
    IDENTITY,
    MOMENT,
    NAMES,
    PATH,
    PEERS,
    SIZE,
    Kind,
    address,
    choice,
    or_none,
)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("90", 90.0),
        ("90s", 90.0),
        ("30m", 1800.0),
        ("12h", 43200.0),
        ("1d", 86400.0),
        ("250ms", 0.25),
        ("1.5 h", 5400.0),
        ("2H", 7200.0),
    ],
)
def test_durations_take_plain_seconds_or_a_unit(text: str, seconds: float) -> None:
    """A duration is a number of seconds, or a number with ms, s, m, h or d."""
    assert DURATION.parse(text) == seconds


@pytest.mark.parametrize("text", ["0", "0s", "0ms", "0.0 h"])
def test_a_delay_may_be_none(text: str) -> None:
    """Where no time is a time too, 0 is taken with any unit, and shown so that it is taken again."""
    assert DELAY.parse(text) == 0.0
    assert DELAY.show(0.0) == "0s"
    assert DELAY.parse("1.5s") == 1.5


@pytest.mark.parametrize(
    ("text", "size"), [("65536", 65536), ("64KiB", 65536), ("64k", 65536), ("2 MiB", 2 * 2**20), ("1g", 2**30), ("1GIB", 2**30)]
)
def test_sizes_take_bytes_or_a_unit(text: str, size: int) -> None:
    """A size is a number of bytes, or one with a binary unit."""
    assert SIZE.parse(text) == size


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        ("10.0.0.3:7", "10.0.0.3", 7),
        ("shop-1", "shop-1", 9),
        ("[fd00::1]:7", "fd00::1", 7),
        ("[fd00::1]", "fd00::1", 9),
        ("fd00::1", "fd00::1", 9),
        ("0.0.0.0:0", "0.0.0.0", 0),
        ("bücher.example.:7", "bücher.example.", 7),
    ],
)
def test_an_address_without_a_port_gets_the_default(text: str, host: str, port: int) -> None:
    """Host names, IPv4 and IPv6 are taken with a port or without, which then is the default."""
    assert address(9).parse(text) == Address(host=host, port=port)


def test_peers_are_brought_into_one_form() -> None:
    """Commas and spaces separate peers, a missing port is 10060, and dns:// names stay such."""
    assert PEERS.parse("a, b:7  [::1]:8,dns://shop") == ("a:10060", "b:7", "[::1]:8", "dns://shop:10060")


def test_a_choice_is_taken_in_any_case_and_given_in_one() -> None:
    """Words are compared without case, and come out as the code spells them."""
    assert choice("Lax", "None").parse("lax") == "Lax"


def test_none_has_a_word() -> None:
    """Where a setting can be switched off, its word for that gives None, both ways."""
    kind = or_none(DURATION)
    assert kind.parse("None") is None
    assert kind.show(None) == "none"


def test_a_relative_path_is_made_absolute(tmp_path: object, monkeypatch: pytest.MonkeyPatch) -> None:
    """A path is taken from the directory the process starts in: the node it starts has another one."""
    monkeypatch.chdir(str(tmp_path))
    assert PATH.parse("ring") == f"{tmp_path}/ring"


@pytest.mark.parametrize(
    ("kind", "text", "problem"),
    [
        (DURATION, "soon", "'soon' is not a duration"),
        (DURATION, "-5s", "'-5s' is not a duration"),
        (DURATION, "5 weeks", "'5 weeks' is not a duration"),
        (DURATION, "0", "it is shorter than a millisecond"),
        (DURATION, "٣s", "'٣s' is not a duration"),
        (SIZE, "64KB", "'64KB' is not a size"),
        (SIZE, "0", "it is zero"),
        (FLAG, "maybe", "'maybe' is neither yes nor no"),
        (COUNT, "two", "'two' is not a whole number"),
        (COUNT, "²", "'²' is not a whole number"),
        (IDENTITY, "a b", "'a b' has characters that it cannot have, or too many"),
        (NAMES, " , ", "it lists nothing"),
        (NAMES, "a\x00", "it has characters that do not print"),
        (PATH, "~nosuchuser/x", "'~nosuchuser/x' is of a user who is not known here"),
        (MOMENT, "9999-12-31T23:59:59-14:00", "'9999-12-31T23:59:59-14:00' is too far away"),
        (MOMENT, "0001-01-01T00:00:00+14:00", "'0001-01-01T00:00:00+14:00' is too far away"),
        (PEERS, "http://a:1", "'http://a:1' has a scheme other than dns://"),
        (PEERS, "a:b", "'a:b' is not an address"),
        (address(1), "a:70000", "port 70000 is above 65535"),
        (address(1), "a b", "'a b' is not an address"),
        (address(1), ":80", "':80' is not an address"),
        (address(1), "ü..x:1", "'ü..x' is no host name: a part between its dots is empty, or longer than 63 characters"),
        (
            PEERS,
            "app-1..internal",
            "'app-1..internal' is no host name: a part between its dots is empty, or longer than 63 characters",
        ),
        (
            PEERS,
            f"{'a' * 64}.b:1",
            f"'{'a' * 64}.b' is no host name: a part between its dots is empty, or longer than 63 characters",
        ),
        (choice("x", "y"), "z", "there is no 'z'"),
    ],
)
def test_what_is_not_of_its_kind_is_named(kind: Kind, text: str, problem: str) -> None:
    """A wrong text is refused with what is wrong with it."""
    with pytest.raises(ValueError) as caught:
        kind.parse(text)
    assert str(caught.value) == problem


@given(st.floats(min_value=0.001, max_value=1e9))
def test_durations_survive_being_written_down(seconds: float) -> None:
    """What a duration is shown as is read as the same duration."""
    assert DURATION.parse(DURATION.show(seconds)) == seconds
