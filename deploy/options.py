"""Settings become click's options: a flag, else the environment (BERTH_SECTION_NAME), else the file, else the default."""

from __future__ import annotations

import functools
import tomllib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import MISSING, Field, fields
from pathlib import Path
from typing import Any, get_type_hints

import click

from deploy.errors import BadSettings
from deploy.settings import SECTIONS, Pairs, Texts

FILE = "deploy.toml"
"""Read where it is there and no other is named."""
Verb = Callable[..., Any]


class Pair(click.ParamType[tuple[str, str]]):
    """NAME=VALUE."""

    name = "NAME=VALUE"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, str]:
        """Return both parts."""
        if isinstance(value, tuple):
            return value
        name, equals, rest = str(value).partition("=")
        if not (name and equals):
            self.fail(f"{value!r} has no '='; NAME=VALUE was expected.", param, ctx)
        return name, rest


def takes(*sections: type) -> Callable[[Verb], Verb]:
    """Decorate a verb with a flag for each setting of some sections; it is called with one object a section, in this order."""

    def decorate(verb: Verb) -> Verb:
        @functools.wraps(verb)
        def call(**given: Any) -> Any:
            made = [
                section(**{one.name: _value(kind, given.pop(one.name)) for one, kind, _ in _settings(section)})
                for section in sections
            ]
            return verb(*made, **given)

        for section in reversed(sections):
            for one, kind, meaning in reversed(list(_settings(section))):
                _option(section, one, kind, meaning)(call)
        return call

    return decorate


def defaults_of(group: click.Group, path: Path | None) -> dict[str, Any]:
    """Return click's default_map: for each verb what the settings file says of its options.

    Args:
        group: the command line.
        path: of the file; without one, deploy.toml where that is there.

    Raises:
        BadSettings: the file can't be read, or has a name that no section has.
    """
    if path is None:
        path = Path(FILE)
        if not path.exists():
            return {}
    try:
        told = tomllib.loads(path.read_text())
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise BadSettings(f"The settings file {path} can't be read: {error}") from None
    known = {vars(section)["section"]: {one.name for one in fields(section)} for section in SECTIONS}
    for name, table in told.items():
        if name not in known or not isinstance(table, dict):
            raise BadSettings(f"{path} has [{name}]; the tables are {', '.join(known)}. docs/deploy.md describes each.")
        if unknown := set(table) - known[name]:
            raise BadSettings(
                f"{path}, [{name}] has {', '.join(sorted(unknown))}; it takes {', '.join(sorted(known[name]))}. "
                "docs/deploy.md describes each."
            )
    flat = {key: _flat(value) for table in told.values() for key, value in table.items()}
    return _defaults(group, flat)


def flags_of(*given: Any) -> list[str]:
    """Return flags that say all that some sections hold: for a verb that is run as a process."""
    flags: list[str] = []
    for section in given:
        for one, kind, _ in _settings(type(section)):
            flag, value = "--" + one.name.replace("_", "-"), getattr(section, one.name)
            if kind is bool:
                flags.append(flag if value else f"--no-{flag[2:]}")
            elif kind == Pairs:
                flags += [word for item in value.items() for word in (flag, "=".join(item))]
            elif kind == Texts:
                flags += [word for text in value for word in (flag, text)]
            else:
                flags += [flag, str(value)]
    return flags


def rows_of_settings() -> Iterator[tuple[str, str, str, str, str]]:
    """Yield section, name, environment variable, default and meaning of each setting, for docs/deploy.md."""
    for section in SECTIONS:
        for one, kind, meaning in _settings(section):
            default = "" if one.default is MISSING or one.default in ("", ()) else str(one.default)
            yield (
                vars(section)["section"],
                one.name,
                _variable(section, one),
                default.lower() if kind is bool else default,
                meaning,
            )


def _settings(section: type) -> Iterator[tuple[Field[Any], Any, str]]:
    """Yield each field of a section with its type and its meaning."""
    hints = get_type_hints(section, include_extras=True)
    for one in fields(section):
        yield one, hints[one.name].__origin__, hints[one.name].__metadata__[0]


def _option(section: type, one: Field[Any], kind: Any, meaning: str) -> Callable[[Verb], Verb]:
    flag = "--" + one.name.replace("_", "-")
    shared: dict[str, Any] = {"envvar": _variable(section, one), "help": meaning + ".", "show_envvar": True}
    if kind is bool:
        return click.option(f"{flag}/--no-{flag[2:]}", one.name, default=one.default, show_default=True, **shared)
    if kind == Pairs:
        return click.option(flag, one.name, type=Pair(), multiple=True, **shared)
    if kind == Texts:
        return click.option(flag, one.name, multiple=True, metavar="NAME", **shared)
    return click.option(flag, one.name, type=kind, default=one.default, show_default=one.default != "", **shared)


def _variable(section: type, one: Field[Any]) -> str:
    return f"BERTH_{vars(section)['section']}_{one.name}".upper()


def _value(kind: Any, given: Any) -> Any:
    return dict(given) if kind == Pairs else given


def _defaults(group: click.Group, flat: Mapping[str, Any]) -> dict[str, Any]:
    """Return what each verb's options are told, and in turn what those of its words are."""
    return {
        name: _defaults(command, flat)
        if isinstance(command, click.Group)
        else {option.name: flat[option.name] for option in command.params if option.name in flat}
        for name, command in group.commands.items()
    }


def _flat(value: Any) -> Any:
    if isinstance(value, Mapping):
        return [f"{name}={each}" for name, each in value.items()]
    return list(value) if isinstance(value, Sequence) and not isinstance(value, str) else value
