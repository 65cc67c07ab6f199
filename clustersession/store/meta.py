"""Whose files these are: the record beside them that is read before any of them is opened.

Times in the files are of the host's clock since boot, and LMDB tells dead readers by their process number. So files of
another boot are worthless and are discarded; those of another PID namespace are taken over once nobody uses them any more.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Final

import msgspec

from ..errors import StoreRefused

META_NAME: Final = "meta.json"
FORMAT: Final = 2
_BOOT_ID: Final = Path("/proc/sys/kernel/random/boot_id")
_PID_NAMESPACE: Final = Path("/proc/self/ns/pid")


class Setting(msgspec.Struct, frozen=True):
    """What the files belong to: the cluster's node, and this boot and PID namespace of the host."""

    cluster: str
    node: str
    boot: str
    pid_namespace: int


class Meta(msgspec.Struct, frozen=True):
    """`meta.json`. `born`: the host's clock when the files were created or last emptied; `bytes_max`: what they may grow to."""

    cluster: str
    node: str
    boot: str
    pid_namespace: int
    born: float
    bytes_max: int
    format: int = FORMAT


def new_meta(setting: Setting, born: float, bytes_max: int) -> Meta:
    return Meta(setting.cluster, setting.node, setting.boot, setting.pid_namespace, born, bytes_max)


class _Versioned(msgspec.Struct):
    format: int


def here(cluster: str, node: str) -> Setting:
    """This process's setting. Raises `StoreRefused` where the kernel does not tell it."""
    try:
        boot = _BOOT_ID.read_text(encoding="ascii").strip()
        return Setting(cluster, node, boot, _PID_NAMESPACE.stat().st_ino)
    except OSError as error:
        remedy = "A store that processes share needs Linux with /proc; use CLUSTERSESSION_MODE=dev here"
        raise StoreRefused(f"{error.filename}: {error.strerror}. {remedy}.") from error


def read_meta(place: Path) -> Meta | None:
    """None: there are no files yet. Raises `StoreRefused` for what this release cannot read."""
    path = place / META_NAME
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreRefused(f"{path}: {error.strerror}. Run every process of the node as the user that owns it.") from error
    remedy = f"Stop all processes of this node and remove {place}; its sessions are on the other hosts too"
    try:
        version = msgspec.json.decode(data, type=_Versioned).format
        if version != FORMAT:
            raise StoreRefused(f"{path}: the files have format {version}, this release has format {FORMAT}. {remedy}.")
        return msgspec.json.decode(data, type=Meta)
    except msgspec.DecodeError as error:
        raise StoreRefused(f"{path} cannot be read ({error}). {remedy}.") from error


def write_meta(place: Path, meta: Meta) -> None:
    """Puts it in place in one step: there is the old one or the new one, never half of it. Raises `OSError`."""
    path = place / META_NAME
    new = path.with_suffix(f".{os.getpid()}")
    new.write_bytes(msgspec.json.format(msgspec.json.encode(meta)))
    new.replace(path)


def fits(place: Path, meta: Meta, setting: Setting, *, in_use: bool) -> str | None:
    """None: the files are this setting's. Else why all in them must go ("boot") or only LMDB's lock files ("namespace").

    Raises `StoreRefused` for the files of another node, and of another PID namespace that may still use them.
    """
    if (meta.cluster, meta.node) != (setting.cluster, setting.node):
        raise StoreRefused(
            f"{place}: these are the files of node {meta.node!r} of cluster {meta.cluster!r}, not of {setting.node!r} of "
            f"{setting.cluster!r}. Give each node a CLUSTERSESSION_DATA_DIR of its own."
        )
    if meta.boot != setting.boot and not in_use:
        return "boot"
    if meta.boot != setting.boot:
        raise StoreRefused(f"{place}: another host uses these files. Give each host a CLUSTERSESSION_DATA_DIR of its own.")
    if meta.pid_namespace == setting.pid_namespace:
        return None
    if in_use:
        raise StoreRefused(
            f"{place}: processes of another PID namespace use these files. Let the containers of one node share theirs "
            "(`pid: service:...` in compose, `shareProcessNamespace: true` in Kubernetes), or give each its own node name."
        )
    return "namespace"
