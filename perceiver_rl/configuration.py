"""Typed configuration from nested dictionaries: every key is known, every value has the declared type.

Configuration lives in frozen dataclasses next to the classes that they configure. What a user writes (a
dictionary in an RLlib `model_config`, `--set` on the command line) becomes such a dataclass here, and
whatever does not fit is an error that lists what would.
"""

from __future__ import annotations

import dataclasses
import difflib
import types
from collections.abc import Mapping
from typing import Any, Literal, TypeVar, Union, get_args, get_origin, get_type_hints

Config = TypeVar("Config")


def from_mapping(cls: type[Config], values: Mapping[str, Any], where: str) -> Config:
    """Make a configuration dataclass from a nested mapping.

    Args:
        cls: The dataclass.
        values: Field name → value; a field that is itself a dataclass takes a mapping. Fields left out keep
            their default.
        where: Name of this mapping for messages, e.g. `"model_config['perceiver_rl']"`.

    Raises:
        ValueError: If a key is unknown (the message lists the known ones), a value has another type, or the
            dataclass itself refuses it. The message says where.
    """
    hints = get_type_hints(cls)
    fields = {field.name: hints[field.name] for field in dataclasses.fields(cls)}  # type: ignore[arg-type]
    for key in values:
        if key not in fields:
            raise ValueError(unknown_name(f"{where}: unknown key", str(key), fields))
    coerced = {key: _coerce(fields[key], value, f"{where}.{key}") for key, value in values.items()}
    try:
        return cls(**coerced)
    except ValueError as error:  # a field's own check, which does not know where the mapping stands
        raise ValueError(f"{where}: {error}") from error


def to_mapping(config: Any) -> dict[str, Any]:
    """The inverse of `from_mapping`: plain nested dictionaries."""
    return dataclasses.asdict(config)


def unknown_name(what: str, got: str, known: Any) -> str:
    """Message for a name that does not exist: what was meant, perhaps, and what there is."""
    names = [str(name) for name in known]
    close = difflib.get_close_matches(got, names, n=1)
    hint = f" (did you mean {close[0]!r}?)" if close else ""
    return f"{what} {got!r}{hint}; known are {', '.join(names)}"


def _coerce(hint: Any, value: Any, where: str) -> Any:
    """Check one value against its type hint; mappings become dataclasses, integers may stand for floats."""
    origin = get_origin(hint)
    if origin is Literal:
        if value not in get_args(hint):
            raise ValueError(f"{where}: got {value!r}, expected one of {', '.join(map(repr, get_args(hint)))}")
        return value
    if origin in (Union, types.UnionType):
        if value is None and type(None) in get_args(hint):
            return None
        (hint,) = (each for each in get_args(hint) if each is not type(None))
        return _coerce(hint, value, where)
    if isinstance(hint, type) and dataclasses.is_dataclass(hint):
        if isinstance(value, hint):
            return value
        if not isinstance(value, Mapping):
            raise ValueError(f"{where}: got {value!r}, expected a mapping for {hint.__name__}")
        return from_mapping(hint, value, where)
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint in (int, float) and isinstance(value, bool)):
        raise ValueError(f"{where}: got {value!r} ({type(value).__name__}), expected {hint.__name__}")
    return value
