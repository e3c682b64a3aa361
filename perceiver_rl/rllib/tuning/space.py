"""What a search varies: settings, and the values that each may take."""

from __future__ import annotations

import ast
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from perceiver_rl.configuration import unknown_name
from perceiver_rl.rllib.config_file import literal, setting_of

DIGITS = 4
"""Significant digits of a drawn number: a command line that repeats a trial stays readable."""
EXAMPLE = "training.lr=loguniform:1e-4:3e-3"


@dataclass(frozen=True)
class Choice:
    """One of several values, all as likely.

    Args:
        values: The values, in the order in which a small change goes through them.
    """

    values: tuple[Any, ...]

    def at(self, share: float) -> Any:
        """The value at a share of the way from the first to the last, in [0, 1)."""
        return self.values[int(share * len(self.values))]


@dataclass(frozen=True)
class Interval:
    """A number between two bounds, both included.

    Args:
        low: Smallest value.
        high: Largest value.
        log: Whether the number's logarithm is uniform, else the number itself.
        whole: Whether the number is an integer.
    """

    low: int | float
    high: int | float
    log: bool
    whole: bool

    def at(self, share: float) -> int | float:
        """The value below which that share of all draws falls, in [0, 1)."""
        reach = 0.5 if self.whole else 0.0  # so that the bounds are as likely as what is between them
        low, high = self.low - reach, self.high + reach
        value = math.exp(_between(math.log(low), math.log(high), share)) if self.log else _between(low, high, share)
        return self.fit(value)

    def fit(self, value: int | float) -> int | float:
        """The nearest value that is allowed, at no more digits than are drawn."""
        value = min(max(value, self.low), self.high)
        if self.whole:
            return round(value)
        return min(max(float(f"{value:.{DIGITS}g}"), self.low), self.high)


KINDS = ("choice", "uniform", "loguniform", "int", "logint")


@dataclass(frozen=True)
class Parameter:
    """A setting that differs between trials.

    Args:
        name: `SECTION.KEY`, as in `--set`.
        values: What it may be.
    """

    name: str
    values: Choice | Interval


def parse_parameters(texts: Sequence[str], fixed: Sequence[str] = ()) -> list[Parameter]:
    """Read parameters such as `training.lr=loguniform:1e-4:3e-3` or `model.encoder=choice:perceiver,transformer`.

    Args:
        texts: One for each parameter.
        fixed: Assignments that all trials share, which name other settings.

    Raises:
        ValueError: If one cannot be read, or two are about one setting.
    """
    parameters = [_parse(text) for text in texts]
    if not parameters:
        raise ValueError(f"--param: got none, expected at least one SECTION.KEY=DISTRIBUTION, e.g. {EXAMPLE}")
    taken = [("--set", setting_of(text)) for text in fixed]
    for parameter in parameters:
        for option, name in taken:
            if f"{parameter.name}.".startswith(f"{name}.") or f"{name}.".startswith(f"{parameter.name}."):
                raise ValueError(
                    f"--param {parameter.name}: got the same setting as {option} {name}, expected each one once"
                )
        taken.append(("--param", parameter.name))
    return parameters


def draw(parameters: Sequence[Parameter], samples: int, seed: int) -> list[dict[str, Any]]:
    """Points that cover the space evenly: a Latin hypercube sample.

    Each parameter's range is cut into as many equally likely parts as there are points, and each part is used once.

    Args:
        parameters: The space.
        samples: Number of points.
        seed: The same seed gives the same points.

    Returns:
        For each point the value of each parameter by name.
    """
    random = np.random.default_rng(seed)
    columns = [(random.permutation(samples) + random.random(samples)) / samples for _ in parameters]
    return [
        {
            parameter.name: parameter.values.at(float(shares[i]))
            for parameter, shares in zip(parameters, columns, strict=True)
        }
        for i in range(samples)
    ]


def assignments(point: dict[str, Any]) -> tuple[str, ...]:
    """A point as `--set` takes it."""
    return tuple(f"{name}={value_text(value)}" for name, value in point.items())


def value_text(value: Any) -> str:
    """A value as it is written on the command line."""
    return value if isinstance(value, str) and literal(value) == value else repr(value)


def _parse(text: str) -> Parameter:
    name, equals, distribution = text.partition("=")
    name, (kind, colon, rest) = name.strip(), distribution.strip().partition(":")
    where = f"--param {text}"
    if not equals or "." not in name:
        raise ValueError(f"{where}: expected SECTION.KEY=DISTRIBUTION, e.g. {EXAMPLE}")
    if kind not in KINDS:
        raise ValueError(unknown_name(f"{where}: unknown distribution", kind, KINDS))
    if not colon:
        raise ValueError(f"{where}: got {kind} without values, expected e.g. {_EXAMPLES[kind]}")
    return Parameter(name, _choice(rest, where) if kind == "choice" else _interval(kind, rest, where))


_EXAMPLES = {
    "choice": "choice:0,0.003,0.01",
    "uniform": "uniform:0.9:0.99",
    "loguniform": "loguniform:1e-4:3e-3",
    "int": "int:1:8",
    "logint": "logint:128:2048",
}


def _choice(text: str, where: str) -> Choice:
    try:
        values = list(ast.literal_eval(f"[{text}]"))
    except (ValueError, SyntaxError):  # words without quotes
        values = [literal(each.strip()) for each in text.split(",")]
    if len(values) < 2 or "" in values:
        raise ValueError(f"{where}: got {values!r}, expected at least two values, e.g. {_EXAMPLES['choice']}")
    if len({repr(value) for value in values}) < len(values):
        raise ValueError(f"{where}: got a value twice, expected each one once")
    return Choice(tuple(values))


def _interval(kind: str, text: str, where: str) -> Interval:
    bounds = [literal(each.strip()) for each in text.split(":")]
    if len(bounds) != 2 or not all(_is_number(each) for each in bounds):
        raise ValueError(f"{where}: got {text!r}, expected two numbers, e.g. {_EXAMPLES[kind]}")
    low, high = bounds
    log, whole = kind.startswith("log"), kind.endswith("int")
    if whole and not (isinstance(low, int) and isinstance(high, int)):
        raise ValueError(f"{where}: got {text!r}, expected two integers, e.g. {_EXAMPLES[kind]}")
    if low >= high:
        raise ValueError(f"{where}: got {low!r} and {high!r}, expected the lower one first, and two that differ")
    if log and low <= 0:
        raise ValueError(f"{where}: got a lower bound of {low!r}, expected one above 0, which has a logarithm")
    return Interval(low, high, log=log, whole=whole)


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)


def _between(low: int | float, high: int | float, share: float) -> int | float:
    return low + share * (high - low)
