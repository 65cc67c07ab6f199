"""The command line and the environment with which a node process is started."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import clustersession

from ..config import Config
from ..settings import child_environ

OWED_EXIT: Final = 75
"""Of a node that could not hand over all: sessions were left with one copy, in its files. EX_TEMPFAIL of sysexits.h."""


def node_command(*flags: str) -> list[str]:
    """What runs the node in this Python. `-P`: a module in the current directory must not stand in for a real one."""
    return [_python(), "-P", "-m", "clustersession", "node", *flags]


def node_environ(config: Config, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environ` (None: this process's) with the settings of `config`, and with this package importable."""
    found = child_environ(config, environ)
    parent = Path(clustersession.__file__).parent.parent
    if parent.name not in ("site-packages", "dist-packages"):
        found["PYTHONPATH"] = ":".join([str(parent), *filter(None, [found.get("PYTHONPATH")])])
    return found


def _python() -> str:
    """The interpreter, also where another program has embedded it (uWSGI) and `sys.executable` is that program."""
    given = Path(sys.executable or "")
    if given.name.startswith(("python", "pypy")):
        return str(given)
    return str(Path(sys.exec_prefix, "bin", f"python{sys.version_info.major}.{sys.version_info.minor}"))
