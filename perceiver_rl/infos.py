"""What a vector environment's infos tell of one of its environments."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np

WON = "won"
"""Key of an episode's last info that says whether it was won."""

UNITS = "units"
"""Key of an episode's last info that tells of each acting unit: a mapping of arrays `[units]`. Under `KIND` are the names
of the units' kinds, empty for a slot that no unit had; every other array holds numbers, such as `kills`."""

KIND = "kind"
"""Key among what an info tells of units: the names of their kinds."""


@dataclass(frozen=True)
class Outcome:
    """What an episode's last info tells of how it ended."""

    won: bool | None = None
    """None if it tells nothing of winning."""
    numbers: dict[str, float] = field(default_factory=dict)
    """Every other number."""


def info_of(infos: Mapping[str, Any], index: int) -> dict[str, Any]:
    """One environment's info out of gymnasium's vector form, where `_key` tells for whom `key` is valid.

    Args:
        infos: What a vector environment returned: `[num_envs, …]` arrays by key. A value may be a mapping of the same form,
            such as `episode` of `RecordEpisodeStatistics`; a value without an axis of environments belongs to none of them
            and is left out.
        index: Which environment.
    """
    info: dict[str, Any] = {}
    for key, values in infos.items():
        if key.startswith("_") or (f"_{key}" in infos and not infos[f"_{key}"][index]):
            continue
        if isinstance(values, Mapping):
            info[key] = info_of(values, index)
        elif np.ndim(values):
            info[key] = values[index]
    return info


def only_info(infos: Mapping[str, Any]) -> dict[str, Any]:
    """The info of a batch's only environment: its numbers as Python's own, mappings such as `units` as mappings of arrays.

    Args:
        infos: `[1, …]` arrays by key, or mappings of them.
    """
    return {
        key: {name: array[0] for name, array in values.items()} if isinstance(values, Mapping) else values[0].item()
        for key, values in infos.items()
    }


def won_in(info: Mapping[str, Any]) -> bool | None:
    """What an episode's last info tells of winning; None if it does not.

    Raises:
        ValueError: If it is neither true nor false: -1 for a loss would count as a win.
    """
    won = info.get(WON)
    if won is None:
        return None
    if np.ndim(won) or won not in (0, 1):
        raise ValueError(f"info {WON!r}: got {won!r}, expected True or False")
    return bool(won)


def outcome_in(info: Mapping[str, Any]) -> Outcome:
    """What an episode's last info tells of its end: whether it was won, apart from every other number.

    Raises:
        ValueError: If `won` is neither true nor false.
    """
    return Outcome(won_in(info), {key: value for key, value in numbers_in(info).items() if key != WON})


def numbers_in(info: Mapping[str, Any]) -> dict[str, float]:
    """The numbers among an info's values, booleans included; everything else is left out."""
    return {key: float(value) for key, value in info.items() if isinstance(value, (bool, int, float, np.bool_, np.number))}
