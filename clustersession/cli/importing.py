"""`clustersession import`: takes over all sessions of the old store, at a steady rate, and goes on where it was stopped."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Final

from ..errors import ClusterSessionError, SourceUnavailable
from ..settings import process_environ
from .import_state import ImportState

if TYPE_CHECKING:
    from ..integrations.importing import Imported, Importer

DONE_EXIT: Final = 0
FAILED_EXIT: Final = 1
NOT_BEGUN_EXIT: Final = 2
RATE: Final = 500.0
PROGRESS_S: Final = 5.0
PAUSES_S: Final = (0.2, 0.5, 1.0, 2.0)  # before another try, where somebody gave no answer
FAILED_IN_A_ROW_MAX: Final = 10
REASONS_MAX: Final = 50
WORDS: Final = {
    "taken": "taken over",
    "here_already": "here already",
    "ended_here": "logged out or over here",
    "not_accepted": "not valid in the old system",
    "refused": "refused, and left there",
    "failed": "failed",
}


def add_import(parser: argparse.ArgumentParser) -> None:
    """What `import` takes."""
    parser.add_argument(
        "--app",
        metavar="MODULE:APP",
        help="the app, as its server is given it; a Django project is known by DJANGO_SETTINGS_MODULE",
    )
    parser.add_argument(
        "--from", dest="source", metavar="MODULE:SOURCE", help="the source that lists the sessions, or a function that makes it"
    )
    parser.add_argument("--dry-run", action="store_true", help="say what would become of each, and write nothing")
    parser.add_argument("--rate", type=_rate, default=RATE, metavar="N", help=f"sessions a second (default: {RATE:g})")
    parser.add_argument("--resume", type=Path, metavar="FILE", help="keep in FILE how far it has come, and go on from there")
    parser.add_argument("--json", action="store_true", help="the result as JSON")
    parser.set_defaults(run=import_sessions)


def import_sessions(options: argparse.Namespace) -> int:
    """0: all are taken over, or rightly left; 1: some failed, or it was stopped; 2: it could not begin."""
    try:
        importer = _importer(options)
        state = ImportState.read(None if options.dry_run else options.resume, importer.name)
    except ClusterSessionError as error:
        print(f"clustersession: {error}", file=sys.stderr)
        return NOT_BEGUN_EXIT
    run = _Run(importer, state, options.rate, dry_run=options.dry_run)
    try:
        problem = run.all()
    except ClusterSessionError as error:  # its settings were good when it began
        problem = str(error)
    except KeyboardInterrupt:
        problem = "stopped"
    finally:
        importer.finish()
    run.report(problem, as_json=options.json)
    return FAILED_EXIT if problem is not None or state.counts["failed"] else DONE_EXIT


def _importer(options: argparse.Namespace) -> Importer:
    """Raises `ConfigError` and whatever else of ours keeps this host's store from being opened."""
    sys.path.insert(0, str(Path.cwd()))  # as app servers do
    from ..integrations.importing import importer  # late: it loads all of the middleware

    return importer(options.app, options.source, django="DJANGO_SETTINGS_MODULE" in process_environ())


class _Run:
    """One import from where `state` stands."""

    def __init__(self, importer: Importer, state: ImportState, rate: float, *, dry_run: bool) -> None:
        self._importer, self._state, self._dry_run = importer, state, dry_run
        self._step_s = 1.0 / rate
        self._began = self._next_at = time.monotonic()
        self._told_at, self._told_count = self._began, state.counts.total()
        self._failed_in_a_row = 0
        self._why = ""
        self.complete = False

    def all(self) -> str | None:
        """Every page. What kept it from the end, None for nothing."""
        pauses = iter(PAUSES_S)
        while True:
            count = self._state.counts.total()
            try:
                for cookies, cursor in self._importer.pages(self._state.cursor):
                    if not all(self._one(cookie) for cookie in cookies):
                        return f"{FAILED_IN_A_ROW_MAX} sessions in a row got no answer; the last: {self._why}"
                    self._state.page_done(cursor)
            except SourceUnavailable as error:
                pauses = iter(PAUSES_S) if self._state.counts.total() > count else pauses
                pause_s = next(pauses, None)
                if pause_s is None:
                    return str(error)
                time.sleep(pause_s)
            else:
                self.complete = True
                return None

    def _one(self, cookie: str) -> bool:
        """Whether to go on after it."""
        self._pace()
        found = self._tried(cookie)
        self._state.count(found.fate.value, found.why if found.fate == "refused" else "")
        self._why = found.why
        self._failed_in_a_row = self._failed_in_a_row + 1 if found.fate == "failed" else 0
        self._tell()
        return self._failed_in_a_row < FAILED_IN_A_ROW_MAX

    def _tried(self, cookie: str) -> Imported:
        found = self._importer.take(cookie, dry_run=self._dry_run)
        for pause_s in PAUSES_S if self._failed_in_a_row == 0 else ():
            if found.fate != "failed":
                break
            time.sleep(pause_s)
            found = self._importer.take(cookie, dry_run=self._dry_run)
        return found

    def _pace(self) -> None:
        """No faster than the rate, and without catching up on a pause."""
        now = time.monotonic()
        if self._next_at > now:
            time.sleep(self._next_at - now)
        self._next_at = max(self._next_at, now) + self._step_s

    def _tell(self) -> None:
        now = time.monotonic()
        if now - self._told_at < PROGRESS_S:
            return
        count = self._state.counts.total()
        rate = (count - self._told_count) / (now - self._told_at)
        print(f"{count} sessions, {rate:.0f} a second: {_listed(self._state.counts)}", file=sys.stderr, flush=True)
        self._told_at, self._told_count = now, count

    def report(self, problem: str | None, *, as_json: bool) -> None:
        """What came of it, on standard output."""
        state = self._state
        if as_json:
            result = {
                "source": self._importer.name,
                "dry_run": self._dry_run,
                "complete": self.complete,
                "resumed": state.resumed,
                "counts": {fate: state.counts[fate] for fate in WORDS},
                "refused": dict(state.reasons),
                "seconds": round(time.monotonic() - self._began, 3),
                "problem": problem,
            }
            print(json.dumps(result, indent=2))
            return
        head = f"{state.counts.total()} sessions of {self._importer.name}{' (nothing was written)' if self._dry_run else ''}"
        print(f"{head}: {_listed(state.counts) or 'there is none'}")
        for reason, count in state.reasons.most_common(REASONS_MAX):
            print(f"  refused {count}: {reason}")
        if problem is not None:
            print(f"not complete: {problem}")


def _listed(counts: Counter[str]) -> str:
    return ", ".join(f"{counts[fate]} {words}" for fate, words in WORDS.items() if counts[fate])


def _rate(text: str) -> float:
    try:
        rate = float(text)
    except ValueError:
        rate = 0.0
    if not 0.1 <= rate <= 1e6:
        raise argparse.ArgumentTypeError("a number of sessions a second, at least 0.1")
    return rate
