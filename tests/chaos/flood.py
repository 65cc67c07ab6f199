"""Floods: strangers at the port of a node, and visitors without a session at an app."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Final

from tests.end_to_end.cluster import Host

from . import beside, idle
from .beside import Phase
from .fleet import Fleet, copies
from .idle import Click
from .report import Row, change, spread
from .sizes import Sizes

P99_MORE: Final = 25.0  # percent
RSS_MORE_MIB: Final = 10.0
OWN_COPIES: Final = 2  # of the one session that the visitors' worker has made to forge it
TARGET: Final = "n3"  # every write of the users below waits for it


def of_strangers(sizes: Sizes, directory: Path) -> list[Row]:
    """At the port of the node that keeps the second copy of what is written meanwhile."""
    with Fleet(directory, 3).start() as fleet:
        victim = fleet[TARGET]
        host, port = victim.peer
        outs: list[Path] = []

        def hit() -> None:
            outs.append(victim.directory / f"flood-{len(outs)}.json")
            command = [sys.executable, "-m", "tests.chaos.flooder", host, str(port), str(sizes.strangers)]
            victim.launch("flood", [*command, "--out", str(outs[-1])])

        def heal() -> None:
            assert victim.end("flood") == 0, victim.log_path("flood").read_text()[-2000:]

        rows = _rows(sizes, *beside.measured(sizes, fleet, hit, heal, beside.HEALTHY), outs)
        sent = sum(json.loads(out.read_text())["sent"] for out in outs)
        refused = counted(victim, "peer_rejected") + counted(victim, "peer_crowded_out")
        assert refused > sent / 2, (refused, sent)
        return rows


def _rows(sizes: Sizes, seen: list[list[Click]], quiet: list[Phase], meanwhile: list[Phase], outs: list[Path]) -> list[Row]:
    [users] = seen
    floods = [json.loads(out.read_text()) for out in outs]
    sent, seconds = sum(each["sent"] for each in floods), sum(each["seconds"] for each in floods)
    assert sent > 0.5 * sizes.strangers * seconds, floods  # else it was no flood
    before, during = beside.within(users, quiet), beside.within(users, meanwhile)
    first, then = (spread([each.seconds for each in clicks]) for clicks in (before, during))
    more = change(first, then)
    wrong = idle.worst(users)
    print(*wrong[:5], sep="\n")
    return [
        Row(
            f"p99 of requests while strangers come to a node's port, {sizes.strangers:,} a second",
            f"at most +{P99_MORE:.0f} %",
            f"{more:+.0f} %: {then}, without them {first} ({sent:,} came, {sent / seconds:,.0f} a second)",
            more <= P99_MORE,
            clocked=True,
        ),
        Row(
            "requests refused, sessions wrong or lost meanwhile",
            "0",
            f"{idle.refused(during)} refused, {len(wrong)} wrong of {len(during):,}",
            not idle.refused(during) and not wrong,
        ),
    ]


def of_visitors(sizes: Sizes, directory: Path) -> list[Row]:
    """They bring no session, or one that nobody gave them, and the app only looks."""
    with Fleet(directory, 3).start() as fleet:
        found = idle.visited(fleet["n1"], sizes.visitors)
        entries = copies(fleet.hosts) - OWN_COPIES
        refused = counted(fleet["n1"], "refused_tampered") + counted(fleet["n1"], "refused_foreign")
        refused += counted(fleet["n1"], "refused_not_ours") + counted(fleet["n1"], "refused_unknown_key")
        assert refused > sizes.visitors // 3 - 1, refused
        mib = found.rss / 2**20
        return [
            Row(
                f"sessions stored for {sizes.visitors:,} visitors without one, or with a forged one",
                "0",
                f"{entries}, and {found.sockets} sockets opened; {refused:,} IDs were refused",
                entries == 0 and found.sockets == 0,
            ),
            Row(
                "memory of the worker that met them",
                f"at most +{RSS_MORE_MIB:.0f} MiB",
                f"{mib:+.1f} MiB",
                mib <= RSS_MORE_MIB,
            ),
        ]


def counted(host: Host, name: str) -> int:
    """What the host's metrics say of it."""
    lines = host.ask_admin("/metrics")[1].splitlines()
    return sum(int(line.split()[1]) for line in lines if line.startswith(f"clustersession_{name}_total"))
