"""Processes for people."""

from __future__ import annotations

import os
import subprocess

from clustersession.node.stuck import described


def test_a_process_is_named_without_its_arguments() -> None:
    """They may hold secrets."""
    child = subprocess.Popen(["sleep", "60"])
    try:
        assert described(child.pid).startswith(f"process {child.pid} (sleep, ")
        assert "60" not in described(child.pid).replace(str(child.pid), "")
    finally:
        child.kill()
        child.wait()
    assert described(child.pid) == f"process {child.pid}, which has ended meanwhile"


def test_what_cannot_be_named_is_said_so() -> None:
    """Another PID namespace, or nobody any more."""
    assert described(0) == "a process in another PID namespace"
    assert described(None) == "a process that has ended meanwhile"
    assert f"process {os.getpid()} (" in described(os.getpid())
