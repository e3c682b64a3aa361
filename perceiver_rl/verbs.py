"""What a squad does, by verb: options counted by what they do, whoever they are aimed at."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Integer

from perceiver_rl.entities import EntitySchema


def verb_names(schema: EntitySchema) -> tuple[str, ...]:
    """Every verb once, in the schema's order: those without a target first. A verb of several target types counts as one."""
    return tuple(dict.fromkeys((*schema.verbs, *(verb.name for verb in schema.targeted_verbs))))


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
    counts = dict.fromkeys(verb_names(schema), 0)
    for verb, count in zip(schema.verbs, by_option[: schema.num_verbs], strict=True):
        counts[verb] += int(count)
    for targeted, place in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        counts[targeted.name] += int(by_option[place].sum())
    return counts


def shares(counts: Mapping[str, float]) -> dict[str, float]:
    """Counts as shares that sum to one; nothing if nobody chose."""
    total = sum(counts.values())
    return {verb: count / total for verb, count in counts.items()} if total else {}
