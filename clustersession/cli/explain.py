"""`clustersession explain`: where a session lives, what each owner has of it, and if it is gone why."""

from __future__ import annotations

import argparse
import io
import json
import re
import sys
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..core.holdings import Answer, Facts, Holding, Report
from ..core.keyring import KeyRing
from ..core.session_id import SessionId
from ..core.verdict import Fate, Named, Verdict, age, names, said_by, verdict
from ..errors import ClusterSessionError, ConfigError
from ..settings import load_settings
from .cookie_input import Refused, named_in, read_id
from .show import asked

BAD_ID_EXIT: Final = 2
EXITS: Final = {Fate.ALIVE: 0, Fate.GONE: 1, Fate.UNKNOWN: 3}
INPUT_CHARS_MAX: Final = 64 * 1024
STDIN: Final = "-"
_is_handle = re.compile(r"[0-9a-fA-F]{32}").fullmatch


def add_explain(parser: argparse.ArgumentParser) -> None:
    """What `explain` takes."""
    parser.add_argument(
        "handle",
        nargs="?",
        default=STDIN,
        help="the session's public handle, as session.id shows it; without it, or with -, its cookie is read from standard input",
    )
    parser.add_argument(
        "--cookie", metavar="NAME", action="append", help="the cookie's name (default: the settings'); repeatable"
    )
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")
    parser.set_defaults(run=explain, parser=parser)


def explain(options: argparse.Namespace) -> int:
    """Prints the verdict and what each member has. 0: alive; 1: gone; 2: no ID of this cluster; 3: not known."""
    if options.handle != STDIN:
        if not _is_handle(options.handle):  # it may be a secret, so it is not repeated
            options.parser.error("a handle has 32 hex digits; a cookie is a secret: give it on standard input, never here")
        return _explained(options, options.handle.lower(), None)
    if isinstance(sys.stdin, io.TextIOWrapper):
        sys.stdin.reconfigure(errors="replace")  # what is no text is no ID either
    text = sys.stdin.read(INPUT_CHARS_MAX)
    if _is_handle(text.strip()):
        return _explained(options, text.strip().lower(), None)
    config = load_settings(under_test=False)
    if config.mode == "dev":
        raise ConfigError("CLUSTERSESSION_MODE", "dev mode has no node that could be asked", "Unset it.")
    found = read_id(text, config, KeyRing.parse(config.secret), tuple(options.cookie or config.cookie.names))
    if isinstance(found, Refused):
        return _told(options, "bad_id", found.words, BAD_ID_EXIT, reason=found.reason)
    return _explained(options, found.handle, found)


def _explained(options: argparse.Namespace, handle: str, sid: SessionId | None) -> int:
    try:
        report = _report(handle)
    except ConfigError:
        raise
    except ClusterSessionError as error:
        return _told(options, "node_unreachable", str(error), EXITS[Fate.UNKNOWN])
    named = None
    if sid is not None:
        config = load_settings(under_test=False)
        named = named_in(sid, config, KeyRing.parse(config.secret), (each.node for each in report.holdings))
    found = verdict(report, named)
    if options.json:
        print(json.dumps(_as_json(report, named, found), indent=2))
    else:
        print("\n".join(_lines(report, named, found)))
    return EXITS[found.fate]


def _report(handle: str) -> Report:
    try:
        return msgspec.json.decode(asked(f"/explain/{handle}").content, type=Report)
    except msgspec.DecodeError as error:
        raise ClusterSessionError(f"the node's answer cannot be read ({error}); is it of another release?") from error


def _told(options: argparse.Namespace, code: str, words: str, exit_code: int, **more: str) -> int:
    """There is no report."""
    if options.json:
        fate = {"fate": Fate.UNKNOWN} if exit_code == EXITS[Fate.UNKNOWN] else {}
        print(json.dumps({"verdict": {**fate, "code": code, "words": words, **more}}, indent=2))
    else:
        print(f"{code}: {words}")
    return exit_code


def _as_json(report: Report, named: Named | None, found: Verdict) -> dict[str, Any]:
    return {
        "verdict": msgspec.to_builtins(found),
        "cookie": msgspec.to_builtins(named),
        "report": msgspec.to_builtins(report),
    }


# --- for people ------------------------------------------------------------------------------------------------------------


def _lines(report: Report, named: Named | None, found: Verdict) -> Iterator[str]:
    yield f"{found.fate} ({found.code}): {found.words}."
    yield from found.notes
    yield f"session {report.handle}, asked on {report.asked}"
    if named is not None:
        owners = names(owner or "a host that is no member" for owner in named.owners)
        epoch, version = named.floor
        yield f"its cookie, {age(named.age_s)} old, names {owners} and has seen version {version} of epoch {epoch}"
    width = max(len(each.node) for each in report.holdings)
    for each in report.holdings:
        yield f"  {each.node:<{width}}  {each.state:<7}  {_line(each)}"


def _line(holding: Holding) -> str:
    facts = holding.facts
    if facts is None:
        return said_by(holding)
    if facts.ended is not None:
        return f"{said_by(holding)}: {facts.ended.reason}, {age(facts.ended.ago_s)} ago"
    where = f"version {facts.version} of epoch {facts.epoch} of {names(owner for owner in facts.owners if owner)}"
    if holding.answer is Answer.MOVED:
        kept = ", and keeps the last copy until they have it" if facts.retained else ""
        return f"{said_by(holding)}: {where}{kept}"
    return f"{said_by(holding)}: {where}; {', '.join(_details(facts))}"


def _details(facts: Facts) -> Iterator[str]:
    yield "answers from it" if facts.serving else "asks others before it answers from it"
    if not facts.accepted:
        yield "change of owners pending"
    if facts.unheld:
        yield "last write perhaps not held by the other"
    yield f"{facts.keys} keys"
    yield f"{facts.bytes} bytes"
    yield "logged in" if facts.principal else "nobody logged in"
    if facts.auth_ago_s is not None:
        yield f"since {age(facts.auth_ago_s)}"
    yield f"created {age(facts.created_ago_s)} ago"
    yield f"used {age(facts.last_seen_ago_s)} ago"
    for left, what in ((facts.idle_left_s, "unused"), (facts.absolute_left_s, "in all")):
        if left is not None:
            yield f"{age(left)} left {what}"
