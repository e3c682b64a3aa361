"""A scripted agent for any squad environment with positions: attack what is near, else walk to the enemy."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from perceiver_rl.entities import ACTION_MASK, VISIBILITY, EntitySchema, EntityType, Observation, features_key, mask_key

# Direction of each verb on a map whose x grows to the east and y to the north.
DIRECTIONS = {"north": (0.0, 1.0), "east": (1.0, 0.0), "south": (0.0, -1.0), "west": (-1.0, 0.0)}


class AttackNearestAgent:
    """Each actor keeps attacking its target, else attacks the nearest that it can, else walks to the enemy.

    With enemies in view, an actor that can attack none walks to the nearest. With none in view it walks to
    where it began itself, mirrored at the map's centre: past the middle, into the enemy's half. What is in view
    is what the observation shows: under centralized control, what any living ally sees, under decentralized control, what
    this actor sees.

    SMAX's own scripted enemy (jaxmarl's `HeuristicEnemySMAX`, with its default `attack_mode="closest"`) attacks,
    keeps its target and walks to its mirrored start by the same rules. It differs where a unit can attack nobody:
    each of its units goes by its own sight alone, and walks to an enemy that it draws at random among those it
    sees, anew in every step.

    It keeps the `Agent` protocol of `perceiver_rl.evaluation`.

    Args:
        schema: A schema with one actor type and one targeted verb, features `x` and `y` of both types, whose
            declared ranges are the map's, and the verbs north, east, south and west.

    Raises:
        ValueError: If the schema lacks any of these; the message says which.
    """

    def __init__(self, schema: EntitySchema) -> None:
        if len(schema.actors) != 1 or len(schema.targeted_verbs) != 1:
            raise ValueError(
                f"AttackNearestAgent: got a schema with {len(schema.actors)} actor types and "
                f"{len(schema.targeted_verbs)} targeted verbs, expected one of each"
            )
        missing = [verb for verb in DIRECTIONS if verb not in schema.verbs]
        if missing:
            raise ValueError(
                f"AttackNearestAgent: got a schema without the verbs {', '.join(missing)}, expected "
                f"{', '.join(DIRECTIONS)} among its verbs, which are {', '.join(schema.verbs)}"
            )
        self._actor = schema.entity_type(schema.actors[0])
        self._target = schema.entity_type(schema.targeted_verbs[0].target)
        self._actor_xy, self._target_xy = _position_columns(self._actor), _position_columns(self._target)
        self._targets = schema.target_slices[0]
        self._target_slots = schema.entity_slices[self._target.name]
        self._move_options = np.array([schema.verbs.index(verb) for verb in DIRECTIONS])
        self._directions = np.array(list(DIRECTIONS.values()))
        ranges = [self._actor.features[column] for column in self._actor_xy]
        self._centre = np.array([(each.low + each.high) / 2 for each in ranges])
        self.reset(0, 0)

    def reset(self, num_envs: int, seed: int) -> None:
        """Forget everything. Nothing about this agent is random, so the seed changes nothing."""
        # The target that each actor attacked in the last step, -1 for none.
        self._attacked = np.full((num_envs, self._actor.max_count), -1)
        # Where each actor walks while no enemy is in view, NaN until it is there to ask.
        self._destination = np.full((num_envs, self._actor.max_count, 2), np.nan)

    def act(self, observation: Observation, started: NDArray[np.bool_], greedy: bool) -> NDArray[np.int64]:
        """Choose for every actor of every environment.

        Args:
            observation: Batched arrays `[num_envs, …]`.
            started: True where an episode has just begun, `[num_envs]`; what was remembered is forgotten.
            greedy: Not used.

        Returns:
            Options, `[num_envs, max_actors]`; 0 for absent actors.
        """
        # letters in shape comments: e environments, a actors, t targets
        own, present = _positions(observation, self._actor, self._actor_xy)  # e a 2, e a
        others, there = _positions(observation, self._target, self._target_xy)  # e t 2, e t
        in_view = np.broadcast_to(there[:, None], (*present.shape, there.shape[-1]))  # e a t
        if VISIBILITY in observation:
            in_view = in_view & observation[VISIBILITY][..., self._target_slots]
        legal = observation[ACTION_MASK]  # e a options

        self._attacked = np.where(started[:, None], -1, self._attacked)
        self._destination = np.where(started[:, None, None], np.nan, self._destination)
        appeared = present[..., None] & np.isnan(self._destination)
        self._destination = np.where(appeared, 2 * self._centre - own, self._destination)

        distance = np.linalg.norm(others[:, None] - own[:, :, None], axis=-1)  # e a t
        self._attacked = self._choose_targets(legal[..., self._targets], distance)

        nearest = np.where(in_view, distance, np.inf).argmin(axis=-1)  # e a
        nearest_xy = np.take_along_axis(others, nearest[..., None], axis=1)  # e a 2
        any_in_view = in_view.any(axis=-1, keepdims=True)  # e a 1
        toward = np.where(any_in_view, nearest_xy, self._destination) - own
        move_legal = legal[..., self._move_options]
        similarity = np.where(move_legal, toward @ self._directions.T, -np.inf)  # e a directions
        move = self._move_options[similarity.argmax(axis=-1)]
        # An actor that may do neither (say, rooted) does the first thing that it may; an absent one option 0.
        move = np.where(move_legal.any(axis=-1), move, legal.argmax(axis=-1))
        return np.where(self._attacked >= 0, self._targets.start + self._attacked, move)

    def _choose_targets(self, attackable: NDArray[np.bool_], distance: NDArray[np.float64]) -> NDArray[np.int64]:
        """The target that each actor attacks now, `[envs, actors]`: the last while it can, -1 for none."""
        keeps = np.take_along_axis(attackable, self._attacked.clip(0)[..., None], axis=-1)[..., 0]
        keeps &= self._attacked >= 0
        nearest = np.where(attackable, distance, np.inf).argmin(axis=-1)
        return np.where(attackable.any(axis=-1), np.where(keeps, self._attacked, nearest), -1)


def _positions(
    observation: Observation, entity_type: EntityType, columns: list[int]
) -> tuple[NDArray[np.float64], NDArray[np.bool_]]:
    """Positions `[envs, entities, 2]`, zeros for the absent (their slots may hold anything), and the mask."""
    mask: NDArray[np.bool_] = observation[mask_key(entity_type.name)]
    positions = observation[features_key(entity_type.name)][..., columns]
    return np.where(mask[..., None], positions, 0.0).astype(np.float64), mask


def _position_columns(entity_type: EntityType) -> list[int]:
    """Columns of `x` and `y`."""
    missing = [name for name in ("x", "y") if name not in entity_type.feature_names]
    if missing:
        raise ValueError(
            f"AttackNearestAgent: got entity type {entity_type.name!r} without the features "
            f"{', '.join(missing)}, expected x and y; it has {', '.join(entity_type.feature_names)}"
        )
    return [entity_type.feature_names.index(name) for name in ("x", "y")]
