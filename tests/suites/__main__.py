"""`python -m tests.suites [SUITE]... [-- arguments of its runner]`: each suite in a process of its own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Final, NamedTuple

from .sources import unpacked

HERE: Final = Path(__file__).parent
ADAPTERS: Final = HERE / "adapters"
SECRET: Final = "1:K7rV9xq2LmP4sTzW8yBnC3dFgH6jQaEu"  # for tests, and known to all


class Suite(NamedTuple):
    """`tests`: what the runner is given, in `directory` of the sources."""

    tests: tuple[str, ...]
    project: str
    directory: str = "."
    cookie_name: str = ""  # the environment's; empty: the integration decides


SUITES: Final = {
    "django": Suite((str(ADAPTERS / "django_sessions.py"),), "django", "tests"),
    "django_apps": Suite(
        (
            *("messages_tests", "csrf_tests", "test_client"),
            *(f"auth_tests.test_{name}" for name in ("basic", "context_processors", "login", "middleware", "views")),
        ),
        "django",
        "tests",
    ),
    "flask": Suite(
        (
            *(f"tests/test_{name}.py" for name in ("basic", "testing", "json_tag", "session_interface", "helpers")),
            *(f"tests/test_{name}.py" for name in ("signals", "templating", "converters")),
            *(
                f"tests/test_reqctx.py::{name}"
                for name in ("TestGreenletContextCopying", "test_session_error_pops_context", "test_session_dynamic_cookie_name")
            ),
        ),
        "flask",
        cookie_name="session",
    ),
    "starlette": Suite(("tests/middleware/test_session.py",), "starlette"),
}


def run(name: str, arguments: list[str]) -> int:
    """The exit code."""
    suite = SUITES[name]
    sources = unpacked(suite.project)
    directory = sources / suite.directory
    environ = {each: value for each, value in os.environ.items() if not each.startswith(("CLUSTERSESSION_", "PYTEST_"))}
    environ |= {
        "CLUSTERSESSION_MODE": "dev",
        "CLUSTERSESSION_SECRET": SECRET,
        "CLUSTERSESSION_COOKIE_NAME": suite.cookie_name,
        "PYTHONPATH": os.pathsep.join([str(ADAPTERS), str(directory)]),
        "SUITE": name,
        "SUITE_EXCUSED": str(HERE / "excused.toml"),
    }
    print(f"=== {name}, of {sources.name}", flush=True)
    runner = [str(ADAPTERS / f"{name}.py")] if name == "django_apps" else ["-m", "pytest", *_pytest_options(name, directory)]
    return subprocess.run([sys.executable, *runner, *suite.tests, *arguments], cwd=directory, env=environ, check=False).returncode


def _pytest_options(name: str, directory: Path) -> list[str]:
    plugins = ["-p", f"suite_{name}", "-p", "suite_excused", "-p", "no:cacheprovider"]
    return ["-c", os.devnull, "--rootdir", str(directory), "-q", "-rxX", *plugins]


def main(arguments: list[str]) -> int:
    split = arguments.index("--") if "--" in arguments else len(arguments)
    names = arguments[:split] or list(SUITES)
    return max(run(name, arguments[split + 1 :]) for name in names)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
