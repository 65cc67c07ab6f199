"""What is wrong with a cluster, as far as its hosts and the ways between them show it: one finding for each cause."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from enum import StrEnum
from statistics import median_low
from typing import Final

import msgspec

from .facts import CanaryFacts, Checked, Examination, LinkFacts, NodeFacts
from .session_id import CLOCK_SKEW_S
from .verdict import age, names

HEARD_LATELY_S: Final = 2.0  # some heartbeats long, and shorter than it takes to count a host as dead
NEARLY_FULL: Final = 0.9
BOARD: Final = "16"
AUTH: Final = "auth"
NAMESAKE: Final = "namesake"
_WAYS: Final = frozenset({"refused", "timeout", "breaker", "garbage", "auth", "budget", "busy", "unknown", "stale"})
_WHYS: Final[Mapping[str, str]] = {
    "refused": "nothing listens there",
    "timeout": "no answer in time",
    "breaker": "calls failed again and again, so it is tried seldom",
    NAMESAKE: "another node answers there, and has the name of this one",
    "garbage": "an answer that this release cannot read",
    "auth": "it refuses this host, or this host it: they have different secrets, cluster names or certificates",
    "budget": "no answer in time",
    "busy": "too many calls wait for it",
    "later": "it has not synced yet",
    "full": "its store is full",
    "down": "its store cannot be written",
    "notmine": "it did not have it",
}


class Gravity(StrEnum):
    """NOTE: worth knowing. TROUBLE: new sessions stick, and this should be mended. BREAKS: new sessions do not stick."""

    NOTE = "note"
    TROUBLE = "trouble"
    BREAKS = "breaks"


class Finding(msgspec.Struct, frozen=True, kw_only=True):
    """`where`: the hosts it is about; `words`, `advice`: whole sentences."""

    code: str
    gravity: Gravity
    where: tuple[str, ...]
    words: str
    advice: str = ""


def said(why: str) -> str:
    """A reason for no answer, or an unexpected one, in words."""
    return _WHYS.get(why, why)


def answering(examination: Examination) -> dict[str, NodeFacts]:
    """Those that have told of themselves."""
    return {each.node: each.facts for each in examination.members if each.facts is not None}


def of_hosts(examination: Examination) -> Iterator[Finding]:
    """All that the hosts and the ways between them show, the likeliest cause of all else first."""
    nodes = answering(examination)
    yield from _secrets(examination, nodes)
    yield from _namesakes(nodes)
    yield from _clocks(examination, nodes)
    yield from _ways(examination, nodes)
    yield from _canaries(nodes)
    for facts in nodes.values():
        yield from _of_store(facts)
    yield from _unmet(examination, nodes)
    yield from _remarks(nodes)


# --- secrets ---------------------------------------------------------------------------------------------------------------


def _secrets(examination: Examination, nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    by_kid: dict[str, dict[str, list[str]]] = {}
    for facts in nodes.values():
        for key in facts.ring.split():
            by_kid.setdefault(key.partition(":")[0], {}).setdefault(key, []).append(facts.node)
    advice = "Give all hosts the same CLUSTERSESSION_SECRET (or ring in CLUSTERSESSION_SECRET_FILE), and restart what is changed."
    for kid, prints in by_kid.items():
        if len(prints) > 1:
            groups = " and ".join(names(hosts) for hosts in prints.values())
            words = f"Key {kid} is another one on {groups}: each refuses the cookies that the other makes with it."
            yield Finding(code="secret", gravity=Gravity.BREAKS, where=_all(prints.values()), words=words, advice=advice)
    refused = {address for facts in nodes.values() for address, why in facts.unmet.items() if why == AUTH}
    by_address = {each.address: each.node for each in examination.members}
    strangers = {by_address.get(address, address) for address in refused}
    strangers |= {link.peer for facts in nodes.values() for link in facts.links if link.why == AUTH}
    if strangers:
        fewer = nodes.keys() if len(nodes) < len(strangers) else strangers
        both = f"{names(sorted(nodes))} on one side, {names(sorted(strangers))} on the other"
        words = f"Hosts refuse each other, {both}: they have different secrets, cluster names or certificates."
        tls = "With TLS look whether the certificates have expired or do not name their hosts: the nodes' logs say it."
        yield Finding(code="secret", gravity=Gravity.BREAKS, where=tuple(sorted(fewer)), words=words, advice=f"{advice} {tls}")
    lacking = [kid for kid, prints in by_kid.items() if len(_all(prints.values())) < len(nodes)]
    if lacking:
        words = f"Key {names(sorted(lacking))} is not on every host yet: it signs nothing until it is."
        yield Finding(code="ring", gravity=Gravity.NOTE, where=(), words=words)


def _all(groups: Iterable[list[str]]) -> tuple[str, ...]:
    return tuple(sorted(name for group in groups for name in group))


def _namesakes(nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    for facts in nodes.values():
        at = [address for address, why in sorted(facts.unmet.items()) if why == NAMESAKE]
        if at:
            words = f"Another host calls itself {facts.node} too, at {names(at)}: neither finds the sessions of the other."
            advice = "Give each host a CLUSTERSESSION_NODE of its own, and restart it."
            yield Finding(code="name", gravity=Gravity.BREAKS, where=(facts.node,), words=words, advice=advice)


# --- clocks ----------------------------------------------------------------------------------------------------------------


def _clocks(examination: Examination, nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    measured = [each for each in examination.members if each.facts is not None]
    if len(measured) < 2:
        return
    middle = median_low([each.ahead_s for each in measured])
    wrong = [each for each in measured if abs(each.ahead_s - middle) - each.within_s > CLOCK_SKEW_S]
    if not wrong:
        return
    limits = [facts.absolute_s for facts in nodes.values() if facts.absolute_s is not None]
    widest = max(abs(each.ahead_s - middle) for each in wrong)
    breaks = bool(limits) and widest > min(limits)
    where = tuple(each.node for each in (wrong if len(measured) > 2 else measured))  # of two nobody knows which is right
    offs = ", ".join(f"{each.node} is {_off(each, middle)}" for each in wrong)
    rest = [each.node for each in measured if each not in wrong]
    words = f"The wall clocks differ: {offs} {names(rest)}."
    if breaks:
        words += f" A session may live for {age(min(limits))} in all, so a fresh cookie of one host is over for another."
    else:
        words += " Sessions stick all the same, but the age of a cookie is judged by these clocks."
    advice = "Set the clocks right, and let a time service (chrony, systemd-timesyncd) keep them so; no restart is needed."
    gravity = Gravity.BREAKS if breaks else Gravity.TROUBLE
    yield Finding(code="clock", gravity=gravity, where=where, words=words, advice=advice)


def _off(each: Checked, middle: float) -> str:
    off = each.ahead_s - middle
    return f"{age(abs(off))} {'ahead of' if off > 0 else 'behind'}"


# --- ways between hosts ----------------------------------------------------------------------------------------------------


def _ways(examination: Examination, nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    failing = {(facts.node, peer): why for facts in nodes.values() for peer, why in _failing(facts)}
    alive = {*nodes, *_heard(nodes)}
    refusing = {peer for (_, peer), why in failing.items() if why == AUTH}
    leaving = {each.node for each in examination.members if each.state == "leaving"}
    cut = {pair: why for pair, why in failing.items() if pair[1] in alive and why != AUTH and pair[1] not in leaving}
    if cut:
        pairs = ", ".join(f"{source} to {target} ({said(why)})" for (source, target), why in sorted(cut.items()))
        words = f"Hosts that run cannot reach each other: {pairs}. Where no owner of a session can be asked, it is a 503 there."
        advice = "Let every host reach every other at its CLUSTERSESSION_ADVERTISE address: look at firewalls, routes and names."
        where = tuple(sorted({name for pair in cut for name in pair}))
        yield Finding(code="link", gravity=Gravity.TROUBLE, where=where, words=words, advice=advice)
    gone = [each for each in examination.members if each.facts is None and each.node not in alive | leaving | refusing]
    reached = [name for name in nodes if name != examination.asked]
    if gone and not reached and len(gone) > 1:
        words = f"{examination.asked} reaches none of {names(each.node for each in gone)}: most likely this host is cut off."
        advice = "If the others serve, take this host out of the balancer until it can reach them."
        yield Finding(code="cut_off", gravity=Gravity.BREAKS, where=(examination.asked,), words=words, advice=advice)
    elif gone:
        whys = ", ".join(f"{each.node} ({said(each.why or '')})" for each in gone)
        words = f"No host reaches {whys}: down, or cut off. Should it still serve users, their sessions do not stick elsewhere."
        advice = "Start it, or take it out of the balancer and CLUSTERSESSION_PEERS. Its sessions have other owners by now."
        yield Finding(code="down", gravity=Gravity.TROUBLE, where=tuple(each.node for each in gone), words=words, advice=advice)


def _failing(facts: NodeFacts) -> Iterator[tuple[str, str]]:
    """Whom a node cannot reach, and why. Canaries are surer than single heartbeats."""
    sent = {each.backup: each for each in facts.canaries}
    for link in facts.links:
        of_canary = sent.get(link.peer)
        why = _why_of(of_canary, link)
        if why is not None and link.state not in ("left", "leaving"):
            yield link.peer, AUTH if link.why == AUTH else why


def _why_of(sent: CanaryFacts | None, link: LinkFacts) -> str | None:
    if sent is None:
        return link.why
    return sent.why if sent.at == sent.backup and sent.why in _WAYS else None


def _heard(nodes: Mapping[str, NodeFacts]) -> Iterator[str]:
    """Those who run, as somebody knows who has called them, or was called by them, lately."""
    for facts in nodes.values():
        for link in facts.links:
            answered = link.why is None and link.ago_s is not None and link.ago_s < HEARD_LATELY_S
            if answered or (link.called_ago_s is not None and link.called_ago_s < HEARD_LATELY_S):
                yield link.peer
        yield from (each.backup for each in facts.canaries if each.step is None)


def _unmet(examination: Examination, nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """Addresses of the settings where nobody is, and names without any. Those of members that are dead are told of as such."""
    known, others = {each.address for each in examination.members}, (AUTH, NAMESAKE)
    unmet = {each for facts in nodes.values() for each in facts.unmet.items()}
    found = sorted((at, why) for at, why in unmet if why not in others and at not in known)
    if found:
        listed = ", ".join(f"{address} ({said(why)})" for address, why in found)
        words = f"CLUSTERSESSION_PEERS names {listed}, where no member of the cluster answers."
        advice = "Start a node there, mend the name, or take it out. A host that serves users there has their sessions alone."
        yield Finding(code="unmet", gravity=Gravity.TROUBLE, where=(), words=words, advice=advice)


# --- single hosts ----------------------------------------------------------------------------------------------------------


def _canaries(nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    """Those that failed where both hosts could be reached."""
    for facts in nodes.values():
        failed = [each for each in facts.canaries if each.step is not None and each.why not in _WAYS]
        if failed:
            listed = ", ".join(f"{each.step} with {each.backup} at {each.at} ({said(each.why or '')})" for each in failed)
            syncing = all(each.why == "later" for each in failed)
            words = f"Canary sessions of {facts.node} failed: {listed}."
            advice = "Ask again in a minute." if syncing else "Look at the log of these nodes, and run this again."
            gravity = Gravity.TROUBLE if syncing else Gravity.BREAKS
            yield Finding(code="canary", gravity=gravity, where=(facts.node,), words=words, advice=advice)


def _of_store(facts: NodeFacts) -> Iterator[Finding]:
    where = (facts.node,)
    if facts.store_error is not None:
        advice = "Stop this node and its app, remove the files it names, and start them: the other hosts have the sessions."
        words = f"The store of {facts.node} cannot be read: {facts.store_error}"
        yield Finding(code="store", gravity=Gravity.BREAKS, where=where, words=words, advice=advice)
    for number, process in facts.down.items():
        part = "The board" if number == BOARD else f"Sixteenth {int(number):x}"
        words = f"{part} of the store of {facts.node} cannot be written: {process} has held its lock for more than a second."
        advice = "Let that process go on (kill -CONT), or end it: a process that has ended holds no lock."
        yield Finding(code="shard", gravity=Gravity.TROUBLE, where=where, words=words, advice=advice)
    if facts.bytes_max and facts.bytes_used > NEARLY_FULL * facts.bytes_max:
        share = 100 * facts.bytes_used / facts.bytes_max
        words = f"The store of {facts.node} is {share:.0f} % full: the oldest anonymous sessions make room, then nothing can."
        advice = "Raise CLUSTERSESSION_MAX_BYTES and the memory of its place, or add a host."
        yield Finding(code="room", gravity=Gravity.TROUBLE, where=where, words=words, advice=advice)


def _remarks(nodes: Mapping[str, NodeFacts]) -> Iterator[Finding]:
    releases = sorted({facts.release for facts in nodes.values()})
    if len(releases) > 1:
        words = f"The hosts run different releases: {', '.join(releases)}. They understand each other."
        yield Finding(code="release", gravity=Gravity.NOTE, where=(), words=words, advice="Finish the update.")
    exposed = tuple(sorted(facts.node for facts in nodes.values() if facts.exposed))
    if exposed:
        words = f"{names(exposed)} talk to other hosts over plain HTTP: values are sealed, but who calls whom can be seen."
        yield Finding(code="plain", gravity=Gravity.NOTE, where=exposed, words=words, advice="Set CLUSTERSESSION_TLS_*.")
    unsynced = tuple(sorted(facts.node for facts in nodes.values() if not facts.synced))
    if unsynced:
        words = f"{names(unsynced)} has not compared its sessions with the others yet, and serves none of them by itself."
        yield Finding(code="syncing", gravity=Gravity.NOTE, where=unsynced, words=words, advice="Ask again in a minute.")
    owing = [facts for facts in nodes.values() if facts.debt]
    if owing:
        words = ", ".join(f"{facts.debt} sessions on {facts.node} wait for a second copy" for facts in owing) + "."
        yield Finding(code="debt", gravity=Gravity.NOTE, where=tuple(each.node for each in owing), words=words)
    for facts in nodes.values():
        for note in facts.notes:
            yield Finding(code="setting", gravity=Gravity.NOTE, where=(facts.node,), words=f"{facts.node}: {note}")
