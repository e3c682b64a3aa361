"""Several environments in one batch: one policy learns them all at once.

The environments' schemas may differ in numbers of slots, on which no weight depends. Each keeps its own dynamics; what it
shows is laid out in slots that suffice for all of them, and slots that it does not have are absent.

>>> from envs.smax import SmaxVectorEnv
>>> env = MixedVectorEnv({"smax/3m": SmaxVectorEnv("3m", 2), "smax/2s3z": SmaxVectorEnv("2s3z", 2)})
>>> observation, info = env.reset(seed=0)
>>> observation["entities/ally"].shape, observation["entity_mask/ally"][0].tolist()
((4, 5, 15), [True, True, True, False, False])
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from gymnasium.vector import AutoresetMode, VectorEnv
from gymnasium.vector.utils import batch_space
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.autoreset import require_next_step_autoreset
from perceiver_rl.entities import (
    ACTION_MASK,
    GLOBALS,
    VISIBILITY,
    EntitySchema,
    EntityType,
    Observation,
    features_key,
    mask_key,
    schema_of,
)
from perceiver_rl.infos import WON
from perceiver_rl.scene import SCENE
from perceiver_rl.schema_differences import differences
from perceiver_rl.vector_arguments import checked_actions, seed_of_each

SEPARATOR = "+"
"""Between the names of a mixture's members: `"smax/3m+smax/2s3z"`."""


def members_of(env: str) -> list[str]:
    """The names in a name: several of a mixture, else the name itself.

    Raises:
        ValueError: If a member is named twice, or not at all.
    """
    names = env.split(SEPARATOR)
    if not all(names) or len(set(names)) < len(names):
        raise ValueError(f"environment {env!r}: got members {names}, expected different names joined by {SEPARATOR!r}")
    return names


def envs_of_each(num_envs: int, members: int) -> list[int]:
    """How many of a batch each member gets: equally many, and the first ones what is left over.

    Raises:
        ValueError: If there are fewer than one for each.
    """
    if num_envs < members:
        raise ValueError(f"num_envs: got {num_envs}, expected at least one for each of the mixture's {members} environments")
    return [num_envs // members + (index < num_envs % members) for index in range(members)]


def widest_schema(schemas: Mapping[str, EntitySchema]) -> EntitySchema:
    """One schema that has slots enough for all of them.

    Args:
        schemas: By the environment's name, at least one.

    Raises:
        ValueError: If they differ in more than slots; the message says who differs, and in what.
    """
    (first_name, first), *others = schemas.items()
    for name, schema in others:
        if found := list(differences(first, schema)):
            raise ValueError(
                f"mixture of {first_name} and {name}: got schemas that differ in more than numbers of slots, expected one "
                f"policy to fit both ({first_name} is what counts as trained): {'; '.join(found)}"
            )
    return replace(
        first,
        entity_types=tuple(
            EntityType(each.name, each.features, max(schema.entity_type(each.name).max_count for schema in schemas.values()))
            for each in first.entity_types
        ),
    )


class MixedVectorEnv(VectorEnv[Observation, NDArray[np.integer[Any]], NDArray[Any]]):
    """Vector environments side by side as one, the sub-environments of the first one first.

    Rewards, ends and infos are theirs, but that infos which are mappings, such as `units`, are left out: members have
    different numbers of units. At an episode's end the info has `won` once more as `<name>/won`, so that training
    shows each environment's own win rate. Sub-environment `i` of `reset(seed=s)` is seeded as it would be by itself with
    the seed `s + i`. Autoreset is in the next step, as theirs must be. An option at a slot that an environment does not
    have is never legal, and does what option 0 does.

    Args:
        envs: By name, at least one; they are closed with this one.

    Raises:
        ValueError: If their schemas differ in more than numbers of slots, or one resets itself in another mode.
    """

    def __init__(self, envs: Mapping[str, VectorEnv[Any, Any, Any]]) -> None:
        self.envs = dict(envs)
        for name, env in self.envs.items():
            require_next_step_autoreset(env, name)
        schemas = {name: schema_of(env.single_observation_space) for name, env in self.envs.items()}
        self.schema = widest_schema(schemas)
        self._slots = {name: _Slots.of(schema, self.schema) for name, schema in schemas.items()}
        stops = np.cumsum([env.num_envs for env in self.envs.values()]).tolist()
        self._rows = {
            name: slice(stop - env.num_envs, stop) for (name, env), stop in zip(self.envs.items(), stops, strict=True)
        }
        self.num_envs = stops[-1]
        first = next(iter(self.envs.values()))
        self.metadata = {"autoreset_mode": AutoresetMode.NEXT_STEP, "control": self.schema.control}
        if SCENE in first.metadata:  # they differ in no feature
            self.metadata[SCENE] = first.metadata[SCENE]
        self.single_observation_space = self.schema.observation_space
        self.single_action_space = self.schema.action_space
        self.observation_space = batch_space(self.single_observation_space, self.num_envs)
        self.action_space = batch_space(self.single_action_space, self.num_envs)

    def reset(
        self, *, seed: int | Sequence[int | None] | None = None, options: dict[str, Any] | None = None
    ) -> tuple[Observation, dict[str, Any]]:
        """Start a new episode in every sub-environment.

        Args:
            seed: Sub-environment `i` gets `seed + i`, or its own of a sequence of `num_envs` seeds.
            options: Given to each environment.
        """
        super().reset(seed=int(seed) if isinstance(seed, (int, np.integer)) else None)
        seeds = seed_of_each(seed, self.num_envs, "a mixture")
        results = {}
        for name, env in self.envs.items():
            own = seeds[self._rows[name]]
            # an integer where it will do: not every environment takes a sequence
            results[name] = env.reset(seed=own[0] if _counts_up(own) else own, options=options)  # type: ignore[arg-type]
        observations = {name: observation for name, (observation, _) in results.items()}
        return self._together(observations), self._infos({name: infos for name, (_, infos) in results.items()})

    def step(
        self, actions: ArrayLike
    ) -> tuple[Observation, NDArray[Any], NDArray[np.bool_], NDArray[np.bool_], dict[str, Any]]:
        """Advance every sub-environment by one step.

        Args:
            actions: One option for each actor slot of `schema`, int `[num_envs, max_actors]`.

        Raises:
            ValueError: If actions have another shape, or an option does not exist.
        """
        options = checked_actions(self.schema, actions, self.num_envs, "a mixture")
        results = {name: env.step(self._slots[name].actions(options[self._rows[name]])) for name, env in self.envs.items()}
        observations, infos = ({name: each[part] for name, each in results.items()} for part in (0, 4))
        reward, terminated, truncated = (np.concatenate([each[part] for each in results.values()]) for part in (1, 2, 3))
        return self._together(observations), reward, terminated, truncated, self._infos(infos)

    def close_extras(self, **kwargs: Any) -> None:
        """Close the environments."""
        for env in self.envs.values():
            env.close(**kwargs)

    def _together(self, observations: Mapping[str, Mapping[str, NDArray[Any]]]) -> Observation:
        """Everybody's observation in the slots of all."""
        together: Observation = {
            key: np.zeros((self.num_envs, *shape), dtype) for key, (shape, dtype) in self.schema.arrays.items()
        }
        for name, observation in observations.items():
            self._slots[name].lay_out(observation, {key: array[self._rows[name]] for key, array in together.items()})
        return together

    def _infos(self, infos: Mapping[str, Mapping[str, Any]]) -> dict[str, Any]:
        """Everybody's infos in gymnasium's vector form: `[num_envs]` arrays, and for whom they are valid under `_key`."""
        together: dict[str, Any] = {}
        for name, own in infos.items():
            rows, num_envs = self._rows[name], self.envs[name].num_envs
            for key, values in own.items():
                if key.startswith("_") or isinstance(values, Mapping) or not np.ndim(values):
                    continue
                valid = own.get(f"_{key}", np.ones(num_envs, bool))
                for each in (key, f"{name}/{WON}") if key == WON else (key,):
                    if each not in together:
                        together[each] = np.zeros((self.num_envs, *np.shape(values)[1:]), np.asarray(values).dtype)
                        together[f"_{each}"] = np.zeros(self.num_envs, bool)
                    together[each] = together[each].astype(np.result_type(together[each], np.asarray(values)), copy=False)
                    together[each][rows] = values
                    together[f"_{each}"][rows] = valid
        return together


@dataclass(frozen=True)
class _Slots:
    """Where an environment's actors, entities and options stand among those of all."""

    schema: EntitySchema
    actors: NDArray[np.intp]
    entities: NDArray[np.intp]
    options: NDArray[np.intp]
    own_option: NDArray[np.int64]
    """For each option of all the environment's own; 0 where it has none."""

    @classmethod
    def of(cls, own: EntitySchema, all_: EntitySchema) -> _Slots:
        counts = {each.name: each.max_count for each in own.entity_types}
        places = {name: np.arange(counts[name]) + where.start for name, where in all_.entity_slices.items()}
        slots = list(all_.actor_slots)
        entities = np.concatenate(list(places.values()))
        actors = np.array([slots.index(slot) for name in own.actors for slot in places[name]])
        options = [np.arange(own.num_verbs)]
        for verb, where in zip(own.targeted_verbs, all_.target_slices, strict=True):
            options.append(np.arange(counts[verb.target]) + where.start)
        of_all = np.concatenate(options)
        own_option = np.zeros(all_.num_options, np.int64)
        own_option[of_all] = np.arange(own.num_options)
        return cls(own, actors, entities, of_all, own_option)

    def actions(self, options: NDArray[np.integer[Any]]) -> NDArray[np.int64]:
        """The environment's own actions of those for all slots."""
        return self.own_option[options[:, self.actors]]

    def lay_out(self, observation: Mapping[str, NDArray[Any]], into: Mapping[str, NDArray[Any]]) -> None:
        """Write an observation into arrays of zeros that have slots for all."""
        for each in self.schema.entity_types:
            for key in (features_key(each.name), mask_key(each.name)):
                into[key][:, : each.max_count] = observation[key]
        into[GLOBALS][:] = observation[GLOBALS]
        into[ACTION_MASK][:, self.actors[:, None], self.options] = observation[ACTION_MASK]
        if VISIBILITY in into:
            into[VISIBILITY][:, self.actors[:, None], self.entities] = observation[VISIBILITY]


def _counts_up(seeds: Sequence[int | None]) -> bool:
    """Whether an integer seed would give the same, or there is none."""
    if seeds[0] is None:
        return all(each is None for each in seeds)
    return list(seeds) == list(range(seeds[0], seeds[0] + len(seeds)))
