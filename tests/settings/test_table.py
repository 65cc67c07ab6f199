from pathlib import Path

import pytest

from clustersession.config import Config
from clustersession.settings import reference_page
from clustersession.settings.setting import Setting
from clustersession.settings.table import SETTINGS

PAGE = Path(__file__).parents[2] / "docs" / "reference" / "settings.md"


def test_the_reference_page_is_what_the_table_says() -> None:
    """docs/reference/settings.md is `clustersession settings --reference`; run that again after a change of the table."""
    assert PAGE.read_text(encoding="utf-8") == reference_page()


def test_names_and_fields_are_there_once() -> None:
    """No two settings have the same name, and no two set the same field."""
    assert len({each.name for each in SETTINGS}) == len({each.field for each in SETTINGS}) == len(SETTINGS)


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda each: each.short)
def test_examples_are_taken(setting: Setting) -> None:
    """The example of every setting is one that its kind accepts, and shows as something it accepts again."""
    value = setting.kind.parse(setting.example)
    assert setting.kind.parse(setting.kind.show(value)) == value


def test_every_field_of_the_config_can_be_set() -> None:
    """Each field of `Config` is in the table, or is a part that has its own settings, or says only how it was set."""
    fields = {each.field.partition(".")[0] for each in SETTINGS}
    assert set(Config.__dataclass_fields__) - fields == {"lifetimes_set"}
