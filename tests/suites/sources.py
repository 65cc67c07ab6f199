"""The frameworks' source distributions, which have the tests that their wheels lack, in the versions that are installed."""

from __future__ import annotations

import subprocess
import sys
import tarfile
from importlib.metadata import version
from pathlib import Path
from typing import Final

CACHE: Final = Path(__file__).parents[2] / ".suites"


def unpacked(project: str) -> Path:
    """The directory of the project's sources, downloaded with pip unless it is there already."""
    release = f"{project}-{version(project)}"
    directory = CACHE / release
    if not directory.exists():
        with tarfile.open(_downloaded(project, release)) as archive:
            archive.extractall(CACHE / f"{release}.part", filter="data")
        (CACHE / f"{release}.part" / release).rename(directory)
        (CACHE / f"{release}.part").rmdir()
    return directory


def _downloaded(project: str, release: str) -> Path:
    archive = CACHE / f"{release}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        wanted = ["--no-binary", project, "--dest", str(CACHE), f"{project}=={version(project)}"]
        subprocess.run([*pip, *wanted], check=True)
    return archive
