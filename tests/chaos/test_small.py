"""The scenarios still work, at a small size; whoever breaks a claim is told so."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from . import __main__ as command
from . import report
from .report import Row
from .scenarios import SCENARIOS
from .sizes import SMALL

HELD = Row("sessions lost", "0", "0 of 10", passed=True)
BROKEN = Row("sessions lost", "0", "3 of 10", passed=False)


@pytest.mark.parametrize("name", sorted(SCENARIOS.keys() - {"elsewhere"}))  # which the suite runs anyway
def test_nothing_is_lost_at_a_small_size(name: str, tmp_path: Path) -> None:
    """Every scenario comes to its end, and no claim is broken that does not depend on the speed of the machine."""
    rows = SCENARIOS[name](SMALL, tmp_path)
    print(report.table(rows))
    assert rows
    assert [row for row in rows if not row.passed and not row.clocked] == []


@pytest.mark.parametrize(("row", "code"), [(HELD, 0), (BROKEN, 1)])
def test_a_broken_claim_breaks_the_run(
    row: Row, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """The exit code, the table, the page and the JSON all say whether the claim held."""
    monkeypatch.setattr(command, "run", lambda name, sizes: [row])
    page, figures = tmp_path / "page.md", tmp_path / "figures.json"
    page.write_text(f"# Page\n\n{report.MARK}\nold\n")
    assert command.main(["--only", "kills", "--docs", str(page), "--json", str(figures)]) == code
    assert row.measured in capsys.readouterr().out
    assert ("**NO**" in page.read_text()) == (code == 1)
    assert "old" not in page.read_text()
    assert [each["passed"] for each in json.loads(figures.read_text())] == [row.passed]


def test_a_scenario_that_comes_to_no_end_is_a_broken_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is reported beside the others, which still run."""

    def stuck(sizes: object, directory: Path) -> list[Row]:
        raise AssertionError("a node does not start")

    monkeypatch.setattr(command, "SCENARIOS", {"stuck": stuck})
    [row] = command.run("stuck", SMALL)
    assert (row.passed, row.measured) == (False, "a node does not start")


def test_a_page_without_its_mark_is_left_alone(tmp_path: Path) -> None:
    """Nobody's text is overwritten by mistake."""
    page = tmp_path / "page.md"
    page.write_text("# Page\n")
    with pytest.raises(ValueError, match="has no line"):
        report.rewrite(page, [HELD], 60.0)
    assert page.read_text() == "# Page\n"
