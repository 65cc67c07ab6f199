"""How the text of a setting becomes a value, and back: one `Kind` for each form a setting can have.

`parse` raises `ValueError` with the problem in words; `form` says what is accepted. `show(parse(text))` parses to the same.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, NamedTuple

from ..config import Address

PEER_PORT: Final = 10060
ADMIN_PORT: Final = 10061
DNS_SCHEME: Final = "dns://"


class Kind(NamedTuple):
    """One form of settings: what it accepts in words, and both directions. `none_word`: what is written for None."""

    form: str
    parse: Callable[[str], Any]
    show: Callable[[Any], str] = str
    none_word: str | None = None


def _text(text: str) -> str:
    if any(not c.isprintable() for c in text):
        raise ValueError("it has characters that do not print")
    return text


def _identity(text: str) -> str:
    if not re.fullmatch(r"[A-Za-z0-9._:-]{1,128}", text):
        raise ValueError(f"{text!r} has characters that it cannot have, or too many")
    return text


def _path(text: str) -> str:
    try:
        return str(Path(text).expanduser().absolute())  # the node that a worker starts has another directory
    except RuntimeError:
        raise ValueError(f"{text!r} is of a user who is not known here") from None


_FLAGS = {"1": True, "true": True, "yes": True, "on": True, "0": False, "false": False, "no": False, "off": False}


def _flag(text: str) -> bool:
    if text.lower() not in _FLAGS:
        raise ValueError(f"{text!r} is neither yes nor no")
    return _FLAGS[text.lower()]


def _count(text: str) -> int:
    if not re.fullmatch(r"[0-9]{1,9}", text):
        raise ValueError(f"{text!r} is not a whole number")
    return int(text)


_SIZE_UNITS = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "kib": 2**10, "mib": 2**20, "gib": 2**30}


def _size(text: str) -> int:
    match = re.fullmatch(r"([0-9]{1,15}) ?([a-z]*)", text.lower())
    if not match or match[2] not in _SIZE_UNITS:
        raise ValueError(f"{text!r} is not a size")
    if int(match[1]) == 0:
        raise ValueError("it is zero")
    return int(match[1]) * _SIZE_UNITS[match[2]]


_DURATION_UNITS = {"": 1.0, "ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}


def _delay(text: str) -> float:
    match = re.fullmatch(r"([0-9]{1,12}(?:\.[0-9]{1,20})?) ?([a-z]*)", text.lower())
    if not match or match[2] not in _DURATION_UNITS:
        raise ValueError(f"{text!r} is not a duration")
    return float(match[1]) * _DURATION_UNITS[match[2]]


def _duration(text: str) -> float:
    seconds = _delay(text)
    if seconds < _DURATION_UNITS["ms"]:
        raise ValueError("it is shorter than a millisecond")
    return seconds


def _seconds(value: float) -> str:
    for unit in ("d", "h", "m"):
        if value and math.fmod(value, _DURATION_UNITS[unit]) == 0:
            return f"{value / _DURATION_UNITS[unit]:.0f}{unit}"
    return repr(float(value)).removesuffix(".0") + "s"


def _moment(text: str) -> float:
    try:
        found = datetime.fromisoformat(text)
    except ValueError:
        raise ValueError(f"{text!r} is not a day like 2027-01-31, nor a moment like 2027-01-31T12:00+01:00") from None
    try:
        return (found if found.tzinfo else found.replace(tzinfo=UTC)).astimezone(UTC).timestamp()
    except OverflowError:
        raise ValueError(f"{text!r} is too far away") from None


def _iso(value: float) -> str:
    return datetime.fromtimestamp(value, UTC).isoformat()


def host_port(text: str) -> tuple[str, int | None]:
    """`host`, `host:port`, `[v6]`, `[v6]:port` or a bare IPv6 address."""
    match = re.fullmatch(r"(?:\[(?P<v6>[0-9A-Fa-f:.%]+)\]|(?P<host>[^\s\[\]:/,]+))(?::(?P<port>[0-9]{1,5}))?", text)
    if match is None and text.count(":") > 1 and re.fullmatch(r"[0-9A-Fa-f:.]+", text):
        return text, None
    if match is None:
        raise ValueError(f"{text!r} is not an address")
    port = None if match["port"] is None else int(match["port"])
    if port is not None and port > 65535:
        raise ValueError(f"port {port} is above 65535")
    return match["v6"] or _host_name(match["host"]), port


def _host_name(text: str) -> str:
    """What a resolver takes: others raise, far from the setting."""
    try:
        text.encode("idna")
    except UnicodeError:
        raise ValueError(f"{text!r} is no host name: a part between its dots is empty, or longer than 63 characters") from None
    return text


def is_loopback(host: str) -> bool:
    """Whether `host`, as written, can only be reached from this host."""
    return host in ("localhost", "::1") or (host.startswith("127.") and host.replace(".", "").isdigit())


def _address(default_port: int) -> Callable[[str], Address]:
    def parse(text: str) -> Address:
        host, port = host_port(text)
        return Address(host=host, port=default_port if port is None else port)

    return parse


def _peer(text: str) -> str:
    scheme = DNS_SCHEME if text.startswith(DNS_SCHEME) else ""
    if "://" in text and not scheme:
        raise ValueError(f"{text!r} has a scheme other than {DNS_SCHEME}")
    return scheme + str(_address(PEER_PORT)(text.removeprefix(scheme)))


def _listed(item: Callable[[str], str]) -> Callable[[str], tuple[str, ...]]:
    def parse(text: str) -> tuple[str, ...]:
        found = tuple(item(each) for each in re.split(r"[,\s]+", text) if each)
        if not found:
            raise ValueError("it lists nothing")
        return found

    return parse


def or_none(kind: Kind, word: str = "none") -> Kind:
    """`kind`, or `word` for None."""
    return Kind(
        f"{kind.form}, or '{word}'",
        lambda text: None if text.lower() == word else kind.parse(text),
        lambda value: word if value is None else kind.show(value),
        none_word=word,
    )


def choice(*words: str) -> Kind:
    """One of `words`, in any case."""

    def parse(text: str) -> str:
        by_lower = {word.lower(): word for word in words}
        if text.lower() not in by_lower:
            raise ValueError(f"there is no {text!r}")
        return by_lower[text.lower()]

    return Kind("one of " + ", ".join(f"'{word}'" for word in words), parse)


TEXT: Final = Kind("a text", _text)
IDENTITY: Final = Kind("1 to 128 letters, digits, '.', '_', ':' and '-'", _identity)
PATH: Final = Kind("a path; a relative one is taken from the directory the process starts in", _path)
FLAG: Final = Kind("'1' or '0' (also yes/no, true/false, on/off)", _flag, lambda value: "1" if value else "0")
COUNT: Final = Kind("a whole number", _count)
SIZE: Final = Kind("bytes, or a number with KiB, MiB or GiB", _size)
DURATION: Final = Kind("seconds, or a number with ms, s, m, h or d", _duration, _seconds)
DELAY: Final = Kind("seconds, or a number with ms, s, m, h or d; 0 for none", _delay, _seconds)
MOMENT: Final = Kind("a day or a moment as in ISO 8601, in UTC unless it says otherwise", _moment, _iso)
NAMES: Final = Kind("names, separated by commas or spaces", _listed(_text), ",".join)
PEERS: Final = Kind(f"host:port or {DNS_SCHEME}name:port, separated by commas or spaces", _listed(_peer), ",".join)


def address(default_port: int) -> Kind:
    """A host with a port, or without one and then with `default_port`."""
    return Kind(
        f"host or host:port, an IPv6 host with a port in brackets; port {default_port} unless given", _address(default_port)
    )
