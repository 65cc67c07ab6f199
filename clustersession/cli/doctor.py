"""`clustersession doctor`: is the cluster well, and if users are logged out, is it a few old cookies or do new sessions not
stick?"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from ..core.diagnosis import Diagnosis, diagnosis
from ..core.facts import Checked, Examination
from ..core.findings import said
from ..core.verdict import age
from ..errors import ClusterSessionError, ConfigError
from .show import asked

TROUBLE_EXIT: Final = 1
UNKNOWN_EXIT: Final = 2
ANSWER_S: Final = 10.0


def add_doctor(parser: argparse.ArgumentParser) -> None:
    """What `doctor` takes."""
    parser.add_argument("--json", action="store_true", help="all of it, as JSON")
    parser.set_defaults(run=doctor)


def doctor(options: argparse.Namespace) -> int:
    """Prints the verdict and what was found. 0: healthy, or harmless; 1: trouble; 2: this host's node could not be asked."""
    try:
        examination = _examination()
    except ConfigError:
        raise
    except ClusterSessionError as error:
        words = f"{error}. `clustersession check` says what is wrong with the settings here."
        print(json.dumps({"verdict": "unknown", "words": words}, indent=2) if options.json else f"unknown: {words}")
        return UNKNOWN_EXIT
    found = diagnosis(examination)
    if options.json:
        print(json.dumps(as_json(examination, found), indent=2))
    else:
        print("\n".join(_lines(examination, found)))
    return 0 if found.verdict.harmless else TROUBLE_EXIT


def _examination() -> Examination:
    try:
        return msgspec.json.decode(asked("/doctor", timeout_s=ANSWER_S).content, type=Examination)
    except msgspec.DecodeError as error:
        raise ClusterSessionError(f"the node's answer cannot be read ({error}); is it of another release?") from error


def as_json(examination: Examination, found: Diagnosis) -> dict[str, Any]:
    """The diagnosis, with what it was made from."""
    return {**msgspec.to_builtins(found), "examination": msgspec.to_builtins(examination)}


# --- for people ------------------------------------------------------------------------------------------------------------


def _lines(examination: Examination, found: Diagnosis) -> Iterator[str]:
    yield found.words
    if found.advice:
        yield f"  -> {found.advice}"
    for each in found.findings:
        if f"{each.words}" not in found.words:
            yield f"{each.gravity} ({each.code}): {each.words}"
            if each.advice:
                yield f"  -> {each.advice}"
    old = found.old_cookies
    if old is not None and not found.verdict.harmless:
        yield f"Beside that: {old.sessions} sessions with old cookies in the last hour ({old.trend})."
    yield f"cluster {examination.cluster}, asked on {examination.asked}, in {examination.seconds:.1f} s"
    width = max(len(each.node) for each in examination.members)
    for member in examination.members:
        yield f"  {member.node:<{width}}  {member.state:<7}  {', '.join(_details(member))}"


def _details(member: Checked) -> Iterator[str]:
    facts = member.facts
    if facts is None:
        yield f"no answer: {said(member.why or '')}"
        return
    yield f"release {facts.release}"
    yield f"mode {facts.mode}"
    yield "synced" if facts.synced else "not synced"
    if facts.bytes_max:
        yield f"{facts.entries} entries, store {100 * facts.bytes_used / facts.bytes_max:.0f} % full"
    if abs(member.ahead_s) > max(1.0, member.within_s):
        yield f"clock {age(abs(member.ahead_s))} {'ahead' if member.ahead_s > 0 else 'behind'}"
    if facts.canaries:
        yield f"canaries {sum(each.step is None for each in facts.canaries)} of {len(facts.canaries)}"
