"""The one table of settings. Parsing, errors, `clustersession settings` and docs/reference/settings.md all come from it."""

from __future__ import annotations

from typing import Final

from .kinds import (
    ADMIN_PORT,
    COUNT,
    DELAY,
    DURATION,
    FLAG,
    IDENTITY,
    MOMENT,
    NAMES,
    PATH,
    PEER_PORT,
    PEERS,
    TEXT,
    address,
    choice,
    or_none,
)
from .session_table import COOKIE, LIMITS, USERS
from .setting import Group, Setting

_SECRET = Group(
    "Secret",
    "One of the two is needed, the same on every host. `clustersession key new` makes one.",
    (
        Setting(
            "SECRET",
            TEXT,
            "secret",
            "none: it must be set",
            "what `clustersession key new` prints",
            "The ring of keys, `kid:key,...`; a plain text is key 1. The first key signs once every live host has it, all "
            "verify. To rotate, put a new key in front on one host after the other; drop the old one when the sessions it "
            "signed have ended.",
            secret=True,
        ),
        Setting(
            "SECRET_FILE",
            PATH,
            "secret_file",
            "none",
            "/run/secrets/clustersession",
            "A file with the ring instead. It is read again within a second when it changes, by the node and by every worker; a "
            "broken new content is logged and the last good ring stays in use. Give each change two seconds before the next.",
        ),
    ),
)

_NODE = Group(
    "This host and its cluster",
    "All worker processes of a host are one node.",
    (
        Setting(
            "NODE", IDENTITY, "node", "the host name", "shop-1", "Who this host is: unique in the cluster, stable over restarts."
        ),
        Setting(
            "CLUSTER", IDENTITY, "cluster", "default", "shop", "Which cluster it belongs to; sessions of another one are foreign."
        ),
        Setting(
            "PEERS",
            PEERS,
            "peers",
            "none: this host is alone",
            "10.0.0.4:10060,10.0.0.5:10060",
            "Where to find the others at start. `dns://name:port` is every address of that name (compose, headless services). "
            "Until one of them is met, but for 10 s at most, `/readyz` says 503.",
        ),
        Setting(
            "LISTEN", address(PEER_PORT), "listen", "0.0.0.0:10060", "10.0.0.3:10060", "Where this host takes calls of its peers."
        ),
        Setting(
            "ADVERTISE",
            address(PEER_PORT),
            "advertise",
            "the address of the route to the first peer",
            "10.0.0.3:10060",
            "Where the peers reach this host, if that is not where it listens. Without a port: that of LISTEN.",
        ),
        Setting(
            "ZONE",
            TEXT,
            "zone",
            "none",
            "eu-west-1a",
            "Its failure domain: a backup is placed in another zone, or brought there within minutes after a death.",
        ),
        Setting(
            "ADMIN_LISTEN",
            or_none(address(ADMIN_PORT), "off"),
            "admin_listen",
            "127.0.0.1:10061",
            "off",
            "The control listener: /healthz, /readyz, /metrics, /status, /explain, /doctor. Beyond loopback: with ADMIN_TOKEN.",
        ),
        Setting(
            "ADMIN_TOKEN",
            TEXT,
            "admin_token",
            "none",
            "pQ7tW2xLr0bN5vKc",
            "The bearer token of the control listener, 16 characters or more.",
            secret=True,
        ),
    ),
)

_RUNNING = Group(
    "How it runs",
    "",
    (
        Setting(
            "MODE",
            choice("on", "mirror", "shadow", "off", "dev"),
            "mode",
            "on; dev under pytest",
            "dev",
            "`dev` keeps sessions in the memory of one process, opens no port and starts nothing: for development and tests. "
            "`mirror`, `shadow` and `off` are for a site whose sessions are adopted: `mirror` writes every session back to the "
            "old system too and takes over what other hosts change there, `off` leaves all to the old system, and `shadow` does "
            "so too but keeps a copy in the cluster and counts where it differs.",
        ),
        Setting(
            "MODE_SWITCH",
            FLAG,
            "mode_switch",
            "0",
            "1",
            "Whether this host follows `clustersession mode`, without a restart. The mode set here counts until that is used.",
        ),
        Setting(
            "PROFILE",
            choice("default", "strict"),
            "profile",
            "default",
            "strict",
            "`strict` ends sessions after 30 minutes idle and 12 hours in all, whatever the framework's own settings say.",
        ),
        Setting(
            "STORE",
            choice("lmdb", "memory"),
            "store",
            "lmdb; memory in dev mode",
            "lmdb",
            "Where this host keeps records. `memory` is for dev mode only.",
        ),
        Setting(
            "DATA_DIR",
            PATH,
            "data_dir",
            "$RUNTIME_DIRECTORY, $XDG_RUNTIME_DIR, /dev/shm or the state directory: the first that fits",
            "/var/lib/clustersession",
            "The directory of the store.",
        ),
        Setting(
            "SPAWN",
            FLAG,
            "spawn",
            "1; 0 in dev mode",
            "0",
            "Whether a worker starts the host's node when none runs. `clustersession run` sets it to 0 for the app.",
        ),
        Setting(
            "NOTICE",
            DELAY,
            "timeouts.notice_s",
            "0s",
            "2s",
            "How long `clustersession run`, told to end, leaves the app to serve while `/readyz` is 503 already: longer than the "
            "balancer takes to notice. A second signal ends that. Where a time to stop is limited, this is part of it.",
        ),
        Setting(
            "PRINCIPAL",
            NAMES,
            "principal_keys",
            "_user_id,_auth_user_id",
            "user_id",
            "The session keys that say who is logged in. When one of them changes, the session gets a new ID.",
        ),
        Setting(
            "MIN_COPIES",
            COUNT,
            "min_copies",
            "1",
            "2",
            "2 refuses a write that only one host could take; 1 takes it and counts it as degraded.",
        ),
        Setting(
            "UNAVAILABLE",
            choice("503", "anonymous"),
            "unavailable",
            "503",
            "anonymous",
            "What a request gets whose session no owner answers for: an error to repeat, or no session for this one request.",
        ),
        Setting(
            "ADOPT_UNTIL",
            or_none(MOMENT),
            "adopt_until",
            "none",
            "2027-01-31",
            "After this, sessions of the system of before are not taken over any more, where the app is set up to do that.",
        ),
        Setting(
            "ADOPT_IMPORTED",
            FLAG,
            "adopt_imported",
            "0",
            "1",
            "1 when `clustersession import` has taken over all sessions: the old store is not asked any more and may be switched "
            "off; an old cookie opens what was taken over, and nothing else.",
        ),
    ),
)

_TLS = Group(
    "TLS between the hosts",
    "All three or none; the same authority on every host. Both sides show a certificate.",
    (
        Setting(
            "TLS_CERT", PATH, "tls.cert", "none", "/etc/clustersession/node.pem", "This host's certificate, PEM, with its chain."
        ),
        Setting("TLS_KEY", PATH, "tls.key", "none", "/etc/clustersession/node.key", "Its private key, PEM."),
        Setting(
            "TLS_CA", PATH, "tls.ca", "none", "/etc/clustersession/ca.pem", "The authority whose certificates are taken, PEM."
        ),
    ),
)

_TIMEOUTS = Group(
    "Time-outs",
    "Rarely changed; the same on every host.",
    (
        Setting("CONNECT_TIMEOUT", DURATION, "timeouts.connect_s", "100ms", "200ms", "To open a connection to a peer."),
        Setting("REQUEST_TIMEOUT", DURATION, "timeouts.request_s", "250ms", "500ms", "For one answer of a peer."),
        Setting(
            "REQUEST_BUDGET",
            DURATION,
            "timeouts.budget_s",
            "600ms",
            "1s",
            "For all peer calls of one request of the app together.",
        ),
        Setting(
            "HEARTBEAT_INTERVAL", DURATION, "timeouts.heartbeat_s", "500ms", "1s", "Between two heartbeats to the same peer."
        ),
        Setting(
            "LEASE_TIMEOUT",
            DURATION,
            "timeouts.lease_s",
            "2s",
            "1500ms",
            "How long an answered heartbeat lets a host serve its own copy alone.",
        ),
        Setting(
            "SUSPECT_TIMEOUT", DURATION, "timeouts.suspect_s", "1.2s", "3s", "Without an answer for so long, a peer is suspect."
        ),
        Setting(
            "DEAD_TIMEOUT",
            DURATION,
            "timeouts.dead_s",
            "3s",
            "10s",
            "Without an answer for so long, a peer is dead and its sessions move.",
        ),
        Setting(
            "DRAIN_TIMEOUT",
            DURATION,
            "timeouts.drain_s",
            "25s",
            "2m",
            "How long a node that was told to end may take to hand over its sessions.",
        ),
        Setting(
            "READY_TIMEOUT",
            DURATION,
            "timeouts.ready_s",
            "5s",
            "10s",
            "How long a worker's first request waits for the host's node, at least 2s: what has not started by then is given up.",
        ),
    ),
)

GROUPS: Final = (_SECRET, _NODE, _RUNNING, COOKIE, LIMITS, USERS, _TLS, _TIMEOUTS)
SETTINGS: Final = tuple(setting for group in GROUPS for setting in group.settings)
BY_FIELD: Final = {setting.field: setting for setting in SETTINGS}
BY_NAME: Final = {setting.name: setting for setting in SETTINGS}
