"""Settings as text again: for the environment of a child process, for people, and for the reference page."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, NamedTuple

from ..config import Config
from ..core.keyring import KeyRing
from .load import process_environ
from .setting import PREFIX, Group, Setting
from .table import BY_FIELD, GROUPS, SETTINGS

_ONLY_IF_SET: Final = ("lifetimes.idle_s", "lifetimes.absolute_s")


class Shown(NamedTuple):
    """One setting as people see it: its value in force, masked where it is a secret, and whether the environment set it."""

    setting: Setting
    value: str
    given: bool


def to_environ(config: Config) -> dict[str, str]:
    """Environment variables that `load_settings` turns into `config` again, for a node that this process starts.

    Of a secret in a file only the file is named. Lifetimes that come from a framework are left out: a node needs none.
    """
    values = _values(config)
    if config.secret_file is not None:
        del values["secret"]
    if not config.lifetimes_set:
        for field in _ONLY_IF_SET:
            del values[field]
    return {BY_FIELD[field].name: BY_FIELD[field].kind.show(value) for field, value in values.items()}


def child_environ(config: Config, environ: Mapping[str, str] | None = None) -> dict[str, str]:
    """`environ` (None: this process's) with exactly the settings of `config` in it."""
    base = process_environ() if environ is None else environ
    return {**{name: text for name, text in base.items() if not name.startswith(PREFIX)}, **to_environ(config)}


def shown(config: Config, environ: Mapping[str, str]) -> list[Shown]:
    """Every setting with its value in force, in the order of the reference."""
    values = _values(config)
    return [Shown(each, _shown(each, values, config), bool(environ.get(each.name, "").strip())) for each in SETTINGS]


def _shown(setting: Setting, values: Mapping[str, Any], config: Config) -> str:
    if setting.field not in values:
        return ""
    if setting.field == "secret":
        return f"*** (keys {', '.join(map(str, KeyRing.parse(config.secret).kids))})"
    return "***" if setting.secret else setting.kind.show(values[setting.field])


def _values(config: Config) -> dict[str, Any]:
    """Values by field, without those that are not set."""
    found: dict[str, Any] = {}
    for setting in SETTINGS:
        value: Any = config
        for name in setting.field.split("."):
            value = None if value is None else getattr(value, name)
        if value is not None or setting.kind.none_word is not None:
            found[setting.field] = value
    return found


def reference_page() -> str:
    """docs/reference/settings.md, whole."""
    head = (
        "# Settings\n\n"
        "Everything is set by environment variables, which all begin with `CLUSTERSESSION_`.\n"
        "A variable that is empty counts as not set.\n"
        "`clustersession settings` shows what is in force, `clustersession check` what is wrong with it.\n"
        "This page is printed by `clustersession settings --reference`.\n"
    )
    return head + "".join(map(_section, GROUPS))


def _section(group: Group) -> str:
    return f"\n## {group.title}\n" + (f"\n{group.text}\n" if group.text else "") + "".join(map(_entry, group.settings))


def _entry(setting: Setting) -> str:
    example = setting.example if "`" in setting.example else f"`{setting.example}`"
    facts = f"- takes: {setting.kind.form}\n- default: {setting.default}\n- example: {example}\n"
    return f"\n### `{setting.name}`\n\n{setting.meaning}\n\n{facts}"
