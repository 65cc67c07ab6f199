"""Mass runs, replay and shrinking: what fails is told, and can be seen again."""

from __future__ import annotations

import io
import shlex

import pytest

from . import __main__ as command
from .many import Job, jobs_of, run_many
from .schedules import SCHEDULES, mixed
from .shrink import Shrunk, shrink

BROKEN = "an end is acked by one owner"
FAILING = Job(17, 60.0, "one at a time", build=BROKEN, plain=True)
UNFENCED = Job(10002, 7.0, "one at a time", build="the fence of a lock is not checked", users=2, nodes=5, faults=(4,))


def test_the_mix_gives_every_schedule_every_number_of_hosts() -> None:
    """Faults and sizes of the cluster do not go in step."""
    seen = {(mixed(seed)[0], seed % 3) for seed in range(3 * len(SCHEDULES))}
    assert len(seen) == 3 * len(SCHEDULES)


def test_a_third_of_the_mix_is_in_zones() -> None:
    """Two or three, of each schedule with each number of hosts."""
    seeds = range(6 * 3 * len(SCHEDULES))
    zoned = {(*mixed(seed), seed % 3) for seed in seeds if mixed(seed)[1]}
    assert len(zoned) == len(seeds) / 3
    assert {zones for _, zones, _ in zoned} == {2, 3}


def test_a_run_that_breaks_no_rule_says_what_happened() -> None:
    """Exit code 0, and a table of the faults that struck and of what users did."""
    out = io.StringIO()
    assert run_many(jobs_of(range(3), 12.0), 1, out) == 0
    assert "3/3 seeds" in out.getvalue()
    assert "fault: " in out.getvalue()
    assert "violations                                0" in out.getvalue()


def test_a_failing_seed_is_printed_with_the_command_that_replays_it(capsys: pytest.CaptureFixture[str]) -> None:
    """Exit code 1; the command breaks the same rule by the same session."""
    out = io.StringIO()
    jobs = [Job(5, 15.0, FAILING.schedule, build="no record is final", plain=True)]
    assert run_many(jobs, 1, out) == 1
    first = next(line.strip() for line in out.getvalue().splitlines() if "session lost" in line)
    line = next(line for line in out.getvalue().splitlines() if "python -m tests.simulation" in line)
    assert command.main(shlex.split(line)[3:]) == 1
    assert first in capsys.readouterr().out


def test_a_run_without_faults_has_shown_nothing() -> None:
    """It must not pass."""
    out = io.StringIO()
    assert run_many([Job(0, 2.0, "one at a time")], 1, out) == 1
    assert "has shown nothing" in out.getvalue()


def test_a_failing_seed_becomes_a_short_story() -> None:
    """The same rule, with fewer faults and less time, told of the one session, in words, up to what was broken."""
    before = FAILING.run()
    found = shrink(FAILING)
    assert found is not None
    assert found.violation.rule == before.violations[0].rule
    assert found.job.faults is not None
    assert len(found.job.faults) <= 2
    assert found.job.seconds < FAILING.seconds
    story = found.story()
    assert len(story) < 150
    assert story[-1].split(" !!! ")[1] == f"{found.violation.rule}: {found.violation.detail}"
    assert any("holds the tombstone" in line for line in story)
    assert any("user: logout acked, at n" in line for line in story)


def test_a_story_tells_of_operations_and_locks() -> None:
    """Who asked for a lock, who got it, and what was made of what."""
    violation = UNFENCED.run().violations[0]
    assert violation.rule == "not based on the last"
    story = "\n".join(Shrunk(UNFENCED, violation, 1).story())
    for words in (
        "taking the lock 'held'",
        "refused, another request has the lock 'held'",
        "has the lock for",
        "giving up the lock",
    ):
        assert words in story, story
    assert "were both acked" in story.splitlines()[-1]


def test_a_seed_that_breaks_no_rule_has_no_story() -> None:
    """There is nothing to shrink."""
    assert shrink(Job(0, 8.0, "one at a time")) is None


def test_faults_are_chosen_by_name(capsys: pytest.CaptureFixture[str]) -> None:
    """`--kinds` replaces those of the schedule; an unknown one is refused with the list of those there are."""
    assert command.main(["--seed", "1", "--seconds", "12", "--kinds", "heavy drop,isolation, lossy heal"]) == 0
    faults = {line.split("  ")[0] for line in capsys.readouterr().out.splitlines() if line.startswith("fault: ")}
    assert faults <= {"fault: heavy drop", "fault: isolation, lossy heal"}
    assert faults
    with pytest.raises(SystemExit):
        command.main(["--seed", "1", "--kinds", "earthquake"])
    assert "there are" in capsys.readouterr().err
