"""Settings: frozen dataclasses, changed by `name=value`, checked before work starts."""

import dataclasses
import difflib
import json
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar, get_type_hints

from gptwo.errors import UsageError

Config = TypeVar("Config")


def to_dict(config: Any) -> dict[str, Any]:
    """Nested plain values, as they are saved and compared."""
    return json.loads(json.dumps(dataclasses.asdict(config), default=str))


def differences(old: Mapping[str, Any], new: Mapping[str, Any], prefix: str = "") -> list[str]:
    """`["lr: 0.001 -> 0.003"]`: where two nested settings differ."""
    lines = []
    for key in sorted({*old, *new}):
        a, b, name = old.get(key), new.get(key), f"{prefix}{key}"
        if isinstance(a, Mapping) and isinstance(b, Mapping):
            lines += differences(a, b, f"{name}.")
        elif a != b:
            lines.append(f"{name}: {a!r} -> {b!r}")
    return lines


def from_dict(kind: type[Config], values: dict[str, Any]) -> Config:
    """The reverse of `to_dict`, with types and ranges checked."""
    _refuse_unknown(kind, values, kind)
    return _validated(kind, values)


def with_settings(config: Config, settings: Iterable[str]) -> Config:
    """`with_settings(recipe, ["training.lr=3e-4"])`; an unknown name is a `UsageError`."""
    values = to_dict(config)
    for setting in settings:
        name, separator, text = setting.partition("=")
        if not separator:
            raise UsageError(f"setting {setting!r} has no value", remedy="write it as name=value")
        _assign(type(config), values, name.strip(), _parse(text))
    return from_dict(type(config), values)  # type: ignore[arg-type]


def _parse(text: str) -> Any:
    try:
        return json.loads(text)
    except json.JSONDecodeError:
        if text in ("True", "False"):
            return text == "True"
        return None if text == "None" else text  # "none" is the name of a choice


def _assign(kind: type, values: dict[str, Any], name: str, value: Any) -> None:
    *path, last = name.split(".")
    target: Any = values
    target_kind: Any = kind
    for part in path:
        _known(target_kind, part, name, kind)
        target_kind = _field_type(target_kind, part)
        target = target[part]
        if not isinstance(target, dict) or not dataclasses.is_dataclass(target_kind):
            raise UsageError(f"setting {name!r}: {part!r} has no parts", remedy=_listing(kind))
    _known(target_kind, last, name, kind)
    if dataclasses.is_dataclass(_field_type(target_kind, last)):
        raise UsageError(
            f"setting {name!r} is a group, not a value",
            remedy=f"set one of its fields, for instance {_names(kind, name + '.')[0]}=...",
        )
    target[last] = value


def _known(kind: Any, part: str, name: str, root: type) -> None:
    if part in {field.name for field in dataclasses.fields(kind)}:
        return
    names = _names(root)
    near = difflib.get_close_matches(name, names, n=1, cutoff=0.0)
    tails = [known for known in names if known.split(".")[-1] == name.split(".")[-1]]
    raise UsageError(f"unknown setting {name!r}", remedy=f"the nearest is {(tails or near)[0]!r}")


def _field_type(kind: Any, name: str) -> Any:
    hint = get_type_hints(kind)[name]
    choices = [arg for arg in getattr(hint, "__args__", ()) if dataclasses.is_dataclass(arg)]
    return choices[0] if choices else hint


def _names(kind: type, prefix: str = "") -> list[str]:
    """All dotted names below `kind`, kept to those that start with `prefix`."""

    def walk(node: type, path: str) -> list[str]:
        names = []
        for field in dataclasses.fields(node):
            inner = _field_type(node, field.name)
            if dataclasses.is_dataclass(inner) and isinstance(inner, type):
                names += walk(inner, f"{path}{field.name}.")
            else:
                names.append(f"{path}{field.name}")
        return names

    return [name for name in walk(kind, "") if name.startswith(prefix)]


def _listing(kind: type) -> str:
    return "settings are: " + ", ".join(_names(kind))


def _refuse_unknown(kind: type, values: dict[str, Any], root: type, prefix: str = "") -> None:
    for name, value in values.items():
        _known(kind, name, prefix + name, root)
        inner = _field_type(kind, name)
        if dataclasses.is_dataclass(inner) and isinstance(value, dict):
            _refuse_unknown(inner, value, root, f"{prefix}{name}.")  # type: ignore[arg-type]


def _validated(kind: Any, values: dict[str, Any]) -> Any:
    from pydantic import TypeAdapter, ValidationError  # late: slow to import

    try:
        return TypeAdapter(kind).validate_python(values)
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        message = first["msg"].removeprefix("Value error, ")
        found = "" if isinstance(first["input"], dict) else f", found {first['input']!r}"
        raise UsageError(
            f"setting {where}: {message}{found}" if where else f"{message}{found}",
            remedy="see the resolved settings with --dry-run",
        ) from None
