"""JSON of strangers: parsed without surprises, and checked against the form that it must have."""

from __future__ import annotations

import hashlib
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from perceiver_rl.configuration import unknown_name

MAX_BYTES = 4 * 2**20
"""Of a file; a schema of a thousand features takes about 100 thousand."""

MAX_ITEMS = 4_096
"""Of a list. Whoever looks for names that are given twice compares each with each."""

MAX_CHARACTERS = 1_000
"""Of a string."""

MAX_INTEGER = 2**53
"""Up to here a float holds every integer."""


@dataclass(frozen=True)
class MapOf:
    """A form: an object with any keys, whose values have one form."""

    values: Any


ANYTHING = object()
"""A form: whatever JSON knows."""


def parse_file(path: Path) -> Any:
    """What a JSON file says.

    Beside what JSON forbids it refuses what a reader could trip over: NaN and infinity, integers beyond 2⁵³, keys that are
    given twice, strings and lists beyond measure, and characters that a terminal would obey rather than show.

    Raises:
        ValueError: The message says what is wrong, not where: the caller knows the file.
    """
    size = path.stat().st_size
    if size > MAX_BYTES:
        raise ValueError(f"got {size:,} bytes, expected at most {MAX_BYTES:,}")
    try:
        parsed = json.loads(
            path.read_bytes(),
            parse_constant=_no_constant,
            parse_float=_finite,
            parse_int=_integer,
            object_pairs_hook=_unique,
        )
        _require_modest(parsed)
    except RecursionError as error:
        raise ValueError("cannot be read: it is nested too deeply") from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise ValueError(f"cannot be read ({error}); it is truncated or damaged") from error
    return parsed


def require_form(value: Any, form: Any, where: str) -> None:
    """Raise if a parsed value has another form than expected.

    Args:
        value: What was parsed.
        form: A type (`float` takes integers, too; `int` takes no bool; strings must not be empty); a dictionary with a form
            for each key, no more and no less; a list with the form of its elements; a tuple of types of which one fits; a
            frozenset of the strings that it may be; a `MapOf`; or `ANYTHING`.
        where: Name of the value, for the message.

    Raises:
        ValueError: Where, what was found, and what was expected.
    """
    if form is ANYTHING:
        return
    if isinstance(form, dict):
        _require_type(value, dict, where)
        for key in value:
            if key not in form:
                raise ValueError(unknown_name(f"{where}: unknown key", key, form))
        for key, of_key in form.items():
            if key not in value:
                raise ValueError(f"{where}: got no {key!r}, expected {', '.join(form)}")
            require_form(value[key], of_key, f"{where}.{key}")
    elif isinstance(form, MapOf):
        _require_type(value, dict, where)
        for key, each in value.items():
            require_form(each, form.values, f"{where}.{key}")
    elif isinstance(form, list):
        _require_type(value, list, where)
        for number, each in enumerate(value):
            require_form(each, form[0], f"{where}[{number}]")
    elif isinstance(form, frozenset):
        if not isinstance(value, str) or value not in form:
            raise ValueError(f"{where}: got {_shown(value)}, expected one of {', '.join(sorted(form))}")
    else:
        _require_type(value, form, where)


def digest(value: Any) -> str:
    """SHA-256 of a value in its canonical JSON, which does not depend on layout or the order of keys."""
    canonical = json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=False)
    return hashlib.sha256(canonical.encode()).hexdigest()


def _require_type(value: Any, kinds: type | tuple[type, ...], where: str) -> None:
    kinds = kinds if isinstance(kinds, tuple) else (kinds,)
    accepted = (*kinds, int) if float in kinds else kinds
    if not isinstance(value, accepted) or (isinstance(value, bool) and bool not in kinds):
        expected = " or ".join(_WORDS[kind] for kind in kinds)
        raise ValueError(f"{where}: got {_shown(value)}, expected {expected}")
    if value == "":
        raise ValueError(f"{where}: got an empty string, expected a name")


_WORDS = {
    dict: "an object",
    list: "a list",
    str: "a string",
    int: "an integer",
    float: "a number",
    bool: "true or false",
    type(None): "null",
}


def _shown(value: Any) -> str:
    """A value in a message, which stays short whatever the value is."""
    text = repr(value) if not isinstance(value, Mapping | list) else _WORDS[type(value)]
    return text if len(text) <= 80 else text[:77] + "..."


def _no_constant(name: str) -> float:
    raise ValueError(f"got {name}, expected finite numbers")


def _finite(text: str) -> float:
    number = float(text)
    if not math.isfinite(number):
        raise ValueError(f"got {text[:40]}, expected finite numbers")
    return number


def _integer(text: str) -> int:
    if len(text) > 17 or abs(int(text)) > MAX_INTEGER:
        raise ValueError(f"got {text[:40]}, expected integers up to 2^53")
    return int(text)


def _unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for key, value in pairs:
        if key in found:
            raise ValueError(f"got key {_shown(key)} twice in one object, expected it once")
        found[key] = value
    return found


def _require_modest(value: Any) -> None:
    if isinstance(value, str):
        if not value.isprintable() or len(value) > MAX_CHARACTERS:
            raise ValueError(f"got the string {_shown(value)}, expected up to {MAX_CHARACTERS:,} printable characters")
    elif isinstance(value, list):
        if len(value) > MAX_ITEMS:
            raise ValueError(f"got a list of {len(value):,}, expected at most {MAX_ITEMS:,} items")
        for each in value:
            _require_modest(each)
    elif isinstance(value, dict):
        for key, each in value.items():
            _require_modest(key)
            _require_modest(each)
