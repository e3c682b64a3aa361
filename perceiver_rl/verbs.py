"""What a squad does, by verb: options counted by what they do, whoever they are aimed at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Integer

from perceiver_rl.entities import EntitySchema


def verb_names(schema: EntitySchema) -> tuple[str, ...]:
    """All verbs in the order of options: those without a target first."""
    return (*schema.verbs, *(verb.name for verb in schema.targeted_verbs))


def count_verbs(
    schema: EntitySchema,
    options: Integer[np.ndarray, "*batch actors"],
    legal: Bool[np.ndarray, "*batch actors options"],
) -> dict[str, int]:
    """How often present actors chose each verb.

    Args:
        schema: What the options are.
        options: What was chosen; that of an absent actor is not counted.
        legal: Legal options; an actor without any is absent.

    Returns:
        A count for each of `verb_names`, in that order.
    """
    by_option = np.bincount(options[legal.any(axis=-1)], minlength=schema.num_options)
    counts = [*by_option[: schema.num_verbs], *(by_option[targets].sum() for targets in schema.target_slices)]
    return {verb: int(count) for verb, count in zip(verb_names(schema), counts, strict=True)}


def shares(counts: Mapping[str, int | float]) -> dict[str, float]:
    """Counts as shares that sum to one; nothing if nobody chose: RLlib then tells NaN of what was counted before."""
    total = sum(counts.values())
    return {verb: count / total for verb, count in counts.items()} if total > 0 else {}
