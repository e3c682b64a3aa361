"""What two schemas differ in, in words: whether a policy that was trained with one can play with the other."""

from __future__ import annotations

from collections.abc import Iterator

from perceiver_rl.entities import EntitySchema, EntityType, Feature


def require_same_but_slots(trained: EntitySchema, given: EntitySchema, what: str, env: str) -> None:
    """Raise if schemas differ in more than numbers of slots (`max_count`), on which no weight depends.

    Args:
        trained: Of the policy.
        given: Of the environment that it shall play in.
        what: Names the policy in the message.
        env: Where it was trained.

    Raises:
        ValueError: The message lists what differs.
    """
    found = list(differences(trained, given))
    if found:
        raise ValueError(
            f"{what}: the environment's schema is another one: {'; '.join(found)}. Evaluate it in {env!r}, or train a "
            "policy for this environment"
        )


def differences(trained: EntitySchema, given: EntitySchema, how: str = "trained with") -> Iterator[str]:
    """What differs but numbers of slots, in words.

    Args:
        trained: What there is.
        given: What it shall go with.
        how: What the words say of the first.
    """
    of_trained = {each.name: each for each in trained.entity_types}
    of_given = {each.name: each for each in given.entity_types}
    if list(of_trained) != list(of_given):
        yield _differ("entity types", ", ".join(of_trained), ", ".join(of_given), how)
    for name in of_trained.keys() & of_given.keys():
        yield from _differences_of_type(of_trained[name], of_given[name], how)
    for what, mine, theirs in (
        ("actors", trained.actors, given.actors),
        ("verbs", trained.verbs, given.verbs),
        (
            "targeted verbs",
            [f"{verb.name} {verb.target}" for verb in trained.targeted_verbs],
            [f"{verb.name} {verb.target}" for verb in given.targeted_verbs],
        ),
        ("globals", _ranges(trained.globals), _ranges(given.globals)),
        ("control", [trained.control], [given.control]),
        ("relative features", _ranges(trained.relative), _ranges(given.relative)),
        ("privileged", trained.privileged, given.privileged),
    ):
        if mine != theirs:
            yield _differ(what, ", ".join(mine), ", ".join(theirs), how)


def _differences_of_type(trained: EntityType, given: EntityType, how: str) -> Iterator[str]:
    where = f"entity type {trained.name!r}"
    if trained.feature_names != given.feature_names:
        yield _differ(f"{where}, features", ", ".join(trained.feature_names), ", ".join(given.feature_names), how)
        return
    ranges = zip(_ranges(trained.features), _ranges(given.features), strict=True)
    for mine, theirs in ranges:
        if mine != theirs:
            yield _differ(f"{where}, range of a feature", mine, theirs, how)


def _ranges(features: tuple[Feature, ...]) -> list[str]:
    return [f"{each.name} [{each.low:g}, {each.high:g}]" for each in features]


def _differ(what: str, trained: str, given: str, how: str) -> str:
    return f"{what}: got {given or 'none'}, {how} {trained or 'none'}"
