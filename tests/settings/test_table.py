from pathlib import Path

import pytest

from clustersession.config import Config
from clustersession.settings import load_settings, new_key, reference_page
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


FILES = ("SECRET_FILE", "TLS_CERT", "TLS_KEY", "TLS_CA")  # which are not here
BESIDE = {"COOKIE_DOMAIN": {"COOKIE_NAME": "__Secure-cs"}, "COOKIE_PATH": {"COOKIE_NAME": "__Secure-cs"}}


@pytest.mark.parametrize("setting", [each for each in SETTINGS if each.short not in FILES], ids=lambda each: each.short)
def test_examples_can_be_set_alone(setting: Setting) -> None:
    """With the defaults of all others; what else a setting needs its text says."""
    environ = {"SECRET": new_key(1), "MODE": "on", **BESIDE.get(setting.short, {}), setting.short: setting.example}
    if setting.short == "SECRET":  # its example is in words
        environ["SECRET"] = new_key(2)
    load_settings({f"CLUSTERSESSION_{name}": text for name, text in environ.items()}, under_test=False)


def test_every_field_of_the_config_can_be_set() -> None:
    """Each field of `Config` is in the table, or is a part that has its own settings, or says only how it was set."""
    fields = {each.field.partition(".")[0] for each in SETTINGS}
    assert set(Config.__dataclass_fields__) - fields == {"lifetimes_set"}
