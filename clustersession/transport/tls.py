"""TLS between nodes: both sides show a certificate of the cluster's own authority, in TLS 1.2 or later.

A certificate belongs to a peer if its subject alternative names have the peer's identity (as a DNS name) or the host it was
reached at or comes from (as a DNS name or an IP address). Nothing falls back to plain text.
"""

from __future__ import annotations

import ssl
from collections.abc import Mapping
from ipaddress import ip_address
from typing import Any

from ..config import TlsConfig
from ..errors import ConfigError


def client_context(tls: TlsConfig) -> ssl.SSLContext:
    """For the side that connects. Raises `ConfigError` for files that cannot be read or do not belong together."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False  # `certified` does it: the identity is as good a name as the host
    return _loaded(context, tls)


def server_context(tls: TlsConfig) -> ssl.SSLContext:
    """For the side that listens. Raises `ConfigError` for files that cannot be read or do not belong together."""
    return _loaded(ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), tls)


def certified(certificate: Mapping[str, Any] | None, identity: str, host: str) -> bool:
    """Whether a verified certificate (`getpeercert`) belongs to the peer `identity` at `host`; an identity of "" is not asked."""
    address = _address(host)
    wanted = {("DNS", identity.lower())} if identity else set()
    wanted.add(("DNS", host.lower()) if address is None else ("IP Address", address))
    named: tuple[tuple[str, str], ...] = (certificate or {}).get("subjectAltName", ())
    return any((kind, _address(value) if kind == "IP Address" else value.lower()) in wanted for kind, value in named)


def _loaded(context: ssl.SSLContext, tls: TlsConfig) -> ssl.SSLContext:
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    context.verify_mode = ssl.CERT_REQUIRED
    try:
        context.load_cert_chain(tls.cert, tls.key)
    except (OSError, ValueError) as error:
        problem = f"the certificate {tls.cert!r} and the key {tls.key!r} cannot be used: {error}"
        raise ConfigError("CLUSTERSESSION_TLS_CERT", problem, "Name two readable PEM files that belong together.") from None
    try:
        context.load_verify_locations(tls.ca)
    except (OSError, ValueError) as error:
        problem = f"the authority {tls.ca!r} cannot be used: {error}"
        raise ConfigError("CLUSTERSESSION_TLS_CA", problem, "Name a readable PEM file with your own authority.") from None
    return context


def _address(host: str) -> str | None:
    """The one way to write it, if it is an IP address."""
    try:
        address = ip_address(host.partition("%")[0].strip())
    except ValueError:
        return None
    return str(getattr(address, "ipv4_mapped", None) or address)
