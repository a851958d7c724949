"""Settings from a TOML file and the environment. What is not known, or cannot be, is refused by the name it was given.

The file's tables and the variables are laid over each other first, and judged as one: a variable may complete what
the file alone would get wrong. Each value remembers where it came from.
"""

import os
import tomllib
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Final, Literal, get_args, get_origin, get_type_hints

import attrs
import msgspec

from trio_swarm.errors import SettingsError
from trio_swarm.settings import FeedSettings, Settings
from trio_swarm.settings_rules import first_fault, flatten

PREFIX: Final = "TRIO_SWARM_"
_NOT_SETTINGS: Final = {"TRIO_SWARM_CONFIG", "TRIO_SWARM_SHARED"}
_SHOWN: Final = 60  # characters of a wrong value that are shown: the operator knows which it is by then

_WORDS: Final[dict[Any, str]] = {
    int: "a whole number",
    float: "a number",
    bool: "true or false",
    str: "text",
    tuple[str, ...]: "a list of texts",
}


def load(
    path: str | os.PathLike[str] | None = None,
    environment: Mapping[str, str] | None = None,
    *,
    defaults: Mapping[str, Any] | None = None,
) -> Settings:
    """Read the settings from a TOML file (if any), then from variables such as `TRIO_SWARM_LIMITS__CONNECTIONS`.

    Args:
        path: the file.
        environment: the variables; those of other programs are left alone.
        defaults: what holds, by dotted name, where neither says anything: for a command that has its own.

    Raises:
        SettingsError: the file cannot be read, a key or value is not known, or values do not add up; it names the
            place.
    """
    place = "settings" if path is None else os.fspath(path)
    values = dict(defaults or {})
    if path is not None:
        values.update(_leaves(Settings, _read(path), place, ""))
    variables: dict[str, str] = {}
    for name, text in sorted((environment or {}).items()):
        if name.startswith(PREFIX) and name not in _NOT_SETTINGS:
            key, kind = _find(name)
            values[key] = _convert(text, kind, name, strict=False)
            variables[key] = name
    fault = first_fault(flatten(Settings()) | values)
    if fault is not None:
        variable = next((variables[key] for key in fault.keys if key in variables), None)
        raise SettingsError(*((place, str(fault)) if variable is None else (variable, fault.reason)))
    settings: Settings = _build(Settings, values, "")
    return settings


def _read(path: str | os.PathLike[str]) -> dict[str, Any]:
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except OSError as error:
        raise SettingsError(os.fspath(path), f"cannot be read: {error.strerror}") from error
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(os.fspath(path), f"is not TOML: {error}") from error


def _leaves(cls: Any, table: Mapping[str, Any], place: str, prefix: str) -> Iterator[tuple[str, Any]]:
    """What a table says, by dotted names; what it cannot say is an operator's misspelling, and must not vanish."""
    hints = get_type_hints(cls)
    for key, value in table.items():
        name = f"{prefix}{key}"
        if key not in hints:
            raise SettingsError(place, f"unknown key {name}; known here: {', '.join(sorted(hints))}")
        if attrs.has(hints[key]):
            if not isinstance(value, Mapping):
                raise SettingsError(place, f"{name} is a table: write [{name}]")
            yield from _leaves(hints[key], value, place, f"{name}.")
        elif hints[key] == tuple[FeedSettings, ...]:
            yield name, _feeds(value, place)
        else:
            yield name, _convert(value, hints[key], place, name)


def _feeds(value: Any, place: str) -> tuple[FeedSettings, ...]:
    if isinstance(value, Mapping):
        raise SettingsError(place, "[feed] is a single table, and there may be several: write [[feed]]")
    if not isinstance(value, list) or not all(isinstance(table, Mapping) for table in value):
        raise SettingsError(place, "feed is a list of tables: write [[feed]]")
    feeds = []
    for number, table in enumerate(value, 1):
        which = f"feed.{table['name']}." if isinstance(table.get("name"), str) else f"feed.{number}."
        values = dict(_leaves(FeedSettings, table, place, which))
        for field in attrs.fields(FeedSettings):
            if field.default is attrs.NOTHING and f"{which}{field.name}" not in values:
                raise SettingsError(place, f"{which}{field.name} is missing")
        feeds.append(_build(FeedSettings, values, which))
    return tuple(feeds)


def _build(cls: Any, values: Mapping[str, Any], prefix: str) -> Any:
    arguments: dict[str, Any] = {}
    for name, hint in get_type_hints(cls).items():
        if attrs.has(hint):
            arguments[name] = _build(hint, values, f"{prefix}{name}.")
        elif f"{prefix}{name}" in values:
            arguments[name] = values[f"{prefix}{name}"]
    return cls(**arguments)


def _find(variable: str) -> tuple[str, Any]:
    """The dotted name of the setting that a variable sets, and its type."""
    cls: Any = Settings
    path = ""
    *tables, last = variable.removeprefix(PREFIX).lower().split("__")
    for table in tables:
        hint = get_type_hints(cls).get(table)
        if hint is None or not attrs.has(hint):
            raise _unknown(variable, cls, path)
        cls, path = hint, f"{path}{table}."
    hint = get_type_hints(cls).get(last)
    if hint is None or attrs.has(hint) or hint == tuple[FeedSettings, ...]:
        raise _unknown(variable, cls, path)
    return f"{path}{last}", hint


def _unknown(variable: str, cls: Any, path: str) -> SettingsError:
    start = PREFIX + path.replace(".", "__").upper()
    known = [
        f"{start}{name.upper()}{'__…' if attrs.has(hint) else ''}"
        for name, hint in sorted(get_type_hints(cls).items())
        if hint != tuple[FeedSettings, ...]
    ]
    return SettingsError(variable, f"names no setting that a variable can set; known here: {', '.join(known)}")


def _convert(value: Any, kind: Any, place: str, key: str | None = None, *, strict: bool = True) -> Any:
    try:
        return msgspec.convert(value, kind, strict=strict)
    except msgspec.ValidationError as error:
        shown = str(value).lower() if isinstance(value, bool) else repr(value)
        if len(shown) > _SHOWN:
            shown = f"{shown[:_SHOWN]}…"
        reason = f"{shown} is not {_words(kind)}"
        raise SettingsError(place, reason if key is None else f"{key}: {reason}") from error


def _words(kind: Any) -> str:
    if get_origin(kind) is Literal:
        return "one of " + ", ".join(str(choice) for choice in get_args(kind))
    choices = [choice for choice in get_args(kind) if choice is not type(None)]
    if type(None) in get_args(kind) and len(choices) == 1:
        return _words(choices[0])
    return _WORDS.get(kind, f"a {kind}")
