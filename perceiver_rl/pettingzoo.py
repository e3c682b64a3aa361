"""Any PettingZoo parallel environment as an entity environment: one actor for each agent.

An agent's raw observation (a vector, an image, a dictionary) becomes lists of typed entities by a small function, the
environment's own actions become options with names. All else stays PettingZoo's, so its tests, wrappers and users work on:

>>> from perceiver_rl.entities import EntitySchema, EntityType
>>> from perceiver_rl.pettingzoo import AgentView, EntityParallelEnv
>>> schema = EntitySchema((EntityType("self", ("x",), 1), EntityType("coin", ("dx",), 8)), ("self",), ("left", "right"))
>>> def observe(raw, agent, info):  # raw: own position, then one distance for each coin, NaN where there is none
...     return AgentView({"self": [[raw[0]]], "coin": [[dx] for dx in raw[1:] if dx == dx]})
>>> # env = EntityParallelEnv(coins_v0.parallel_env(), schema, observe)

An AEC environment comes through PettingZoo's own conversion, `aec_to_parallel`, if it is one whose agents act in cycles
(`metadata["is_parallelizable"]`). Turn-based games are not: there an agent waits while others move.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

import gymnasium
import numpy as np
from numpy.typing import ArrayLike, NDArray

from perceiver_rl.entities import EntityObservationSpace, EntitySchema, Observation
from perceiver_rl.scene import SCENE, Scene

try:
    from pettingzoo import ParallelEnv
except ModuleNotFoundError as error:
    if error.name != "pettingzoo":
        raise
    raise ImportError(
        "perceiver_rl.pettingzoo: got no package 'pettingzoo', expected it; pip install 'perceiver-rl[pettingzoo]'"
    ) from error


@dataclass(frozen=True)
class AgentView:
    """What one agent sees, as lists.

    Args:
        entities: For each type the present entities as rows `[count, features]`, as `EntitySchema.pack` takes them. The
            agent itself is the one row of the schema's actor types.
        legal: Legal options, bool `[num_options]`; None if every verb is, and every targeted verb at each present target.
        globals: Scalar features, `[len(schema.globals)]`.
    """

    entities: Mapping[str, ArrayLike]
    legal: ArrayLike | None = None
    globals: ArrayLike = field(default=())


Observe = Callable[[Any, str, Mapping[str, Any]], AgentView]
"""`observe(raw observation, agent's name, agent's info)`; also of the last observation of an agent that dies."""

Act = Callable[[int, str], Any]
"""`act(option, agent's name)`: the environment's own action."""


class EntityActionSpace(gymnasium.spaces.MultiDiscrete):
    """The action space of a schema; it also samples by the observation's own `action_mask`, as PettingZoo's tests do."""

    def __init__(self, schema: EntitySchema) -> None:
        super().__init__([schema.num_options] * schema.max_actors)

    def sample(self, mask: Any = None, probability: Any = None) -> NDArray[np.integer[Any]]:
        """A random action.

        Args:
            mask: The observation's `action_mask`, bool `[max_actors, num_options]`, or what gymnasium takes.
            probability: As gymnasium has it.
        """
        if isinstance(mask, np.ndarray):
            mask = tuple(mask.astype(np.int8))
        return super().sample(mask, probability)


class EntityParallelEnv(ParallelEnv):
    """A PettingZoo parallel environment whose agents see typed entities and choose among named options.

    Observation: for each agent what its schema says; `observation_space(agent)` carries the schema.
    Action: `MultiDiscrete([num_options])`, one option; a plain integer is taken as well. An option that is not legal is
    handed on, too: what to make of it is the environment's affair, and RLlib's check of environments tries any.
    Reward, termination, truncation, infos: the wrapped environment's.
    Agents: those of the wrapped environment. Who dies leaves `agents` after one last observation, in which it need not be
    present itself; who is born appears. There is no black death: nobody acts after its end.

    Args:
        env: The environment to wrap.
        schema: What agents see and do: one schema for all, or one for each possible agent by name. An agent is one actor,
            so a schema has one slot of actors.
        observe: Makes entities of a raw observation.
        act: Makes the environment's own action of an option; None if the verbs are the actions of a
            `gymnasium.spaces.Discrete`, in their order.
        scene: How an agent's view is drawn in replays, where feature names do not tell.

    Raises:
        ValueError: If a schema has more than one actor, an agent has no schema, or `act` is needed.
    """

    def __init__(
        self,
        env: ParallelEnv,
        schema: EntitySchema | Mapping[str, EntitySchema],
        observe: Observe,
        act: Act | None = None,
        scene: Scene | None = None,
    ) -> None:
        self.env = env
        self.metadata = env.metadata if scene is None else {**env.metadata, SCENE: scene}
        self.render_mode = getattr(env, "render_mode", None)  # PettingZoo does not ask for one
        self._schemas = {"": schema} if isinstance(schema, EntitySchema) else dict(schema)
        self._shared = isinstance(schema, EntitySchema)
        self._observe = observe
        self._act = act
        # PettingZoo asks for the same space object for an agent, each time.
        self._observation_spaces: dict[str, EntityObservationSpace] = {}
        self._action_spaces: dict[str, EntityActionSpace] = {}
        for name, each in self._schemas.items():
            if each.max_actors != 1:
                where = f"schema of agent {name!r}" if name else "schema"
                raise ValueError(
                    f"{where}: got {each.max_actors} actors ({', '.join(each.actors)}), expected 1: "
                    "each agent acts for itself"
                )
        if possible := getattr(env, "possible_agents", None):  # optional in PettingZoo
            self.possible_agents = list(possible)
            for agent in self.possible_agents:
                self._check_agent(agent)

    @property
    def agents(self) -> list[str]:
        """Who is alive."""
        return list(self.env.agents)

    @property
    def unwrapped(self) -> Any:
        """The wrapped environment's core."""
        return self.env.unwrapped

    def schema_of_agent(self, agent: str) -> EntitySchema:
        """The schema of an agent.

        Raises:
            ValueError: If it has none; the message lists the agents that have one.
        """
        name = "" if self._shared else agent
        if name not in self._schemas:
            known = ", ".join(self._schemas)
            raise ValueError(f"agent {agent!r}: got no schema, expected one for each agent; known are {known}")
        return self._schemas[name]

    def observation_space(self, agent: str) -> gymnasium.Space[Any]:
        """The observation space of an agent; it carries the agent's schema."""
        if agent not in self._observation_spaces:
            self._observation_spaces[agent] = EntityObservationSpace(self.schema_of_agent(agent))
        return self._observation_spaces[agent]

    def action_space(self, agent: str) -> EntityActionSpace:
        """The action space of an agent: one option."""
        if agent not in self._action_spaces:
            self._action_spaces[agent] = EntityActionSpace(self.schema_of_agent(agent))
        return self._action_spaces[agent]

    def reset(
        self, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Observation], dict[str, dict[str, Any]]]:
        """Begin an episode; see `pettingzoo.ParallelEnv.reset`.

        Raises:
            ValueError: If `observe` makes something that does not keep the schema.
        """
        raw, infos = self.env.reset(seed=seed, options=options)
        return self._observe_all(raw, infos), infos

    def step(
        self, actions: Mapping[str, Any]
    ) -> tuple[
        dict[str, Observation], dict[str, float], dict[str, bool], dict[str, bool], dict[str, dict[str, Any]]
    ]:  # PettingZoo's own tuple
        """Let the living agents act; see `pettingzoo.ParallelEnv.step`.

        Actions of agents that do not live are left out, since who died in the step before may still be given one. What
        becomes of a living agent without an action is the wrapped environment's affair; most raise.

        Raises:
            ValueError: If an action is no option, or `observe` makes something that does not keep the schema.
        """
        own = {agent: self._own_action(agent, actions[agent]) for agent in self.env.agents if agent in actions}
        raw, rewards, terminations, truncations, infos = self.env.step(own)
        return (
            self._observe_all(raw, infos),
            {agent: float(reward) for agent, reward in rewards.items()},
            {agent: bool(flag) for agent, flag in terminations.items()},
            {agent: bool(flag) for agent, flag in truncations.items()},
            infos,
        )

    def render(self) -> Any:
        """The wrapped environment's picture."""
        return self.env.render()

    def state(self) -> NDArray[Any]:
        """The wrapped environment's state."""
        return self.env.state()

    def close(self) -> None:
        """Close the wrapped environment."""
        self.env.close()

    def _observe_all(self, raw: Mapping[str, Any], infos: Mapping[str, Mapping[str, Any]]) -> dict[str, Observation]:
        alive = set(self.env.agents)
        return {
            agent: self._pack(agent, self._observe(each, agent, infos.get(agent, {})), agent in alive)
            for agent, each in raw.items()
        }

    def _pack(self, agent: str, view: AgentView, alive: bool) -> Observation:
        schema = self.schema_of_agent(agent)
        try:
            present = sum(len(np.asarray(view.entities.get(actor, ()))) for actor in schema.actors)
            if present != 1 and (alive or present):
                raise ValueError(
                    f"entities of the actor types {', '.join(schema.actors)}: got {present} rows, "
                    "expected 1, the agent itself" + ("" if alive else ", or none for an agent that has just died")
                )
            legal = _all_legal(schema, view.entities) if view.legal is None else np.asarray(view.legal, bool)
            return schema.pack(view.entities, legal.reshape(1, -1)[:present], np.asarray(view.globals, np.float32))
        except ValueError as error:
            raise ValueError(f"observation of agent {agent!r}: {error}") from error

    def _own_action(self, agent: str, action: Any) -> Any:
        options, num_options = np.asarray(action).reshape(-1), self.schema_of_agent(agent).num_options
        if options.shape != (1,) or options.dtype.kind not in "iu" or not 0 <= (option := int(options[0])) < num_options:
            raise ValueError(f"action of agent {agent!r}: got {action}, expected one option, 0 to {num_options - 1}")
        return int(self.env.action_space(agent).start) + option if self._act is None else self._act(option, agent)

    def _check_agent(self, agent: str) -> None:
        """Raise if an agent has no schema, or its verbs are not the environment's actions and nothing maps them."""
        schema, space = self.schema_of_agent(agent), self.env.action_space(agent)
        if self._act is None and not (isinstance(space, gymnasium.spaces.Discrete) and space.n == schema.num_options):
            raise ValueError(
                f"agent {agent!r}: got action space {space} and {schema.num_options} options, expected Discrete with as "
                "many actions, in the order of the options; pass act(option, agent), which returns the environment's action"
            )


def _all_legal(schema: EntitySchema, entities: Mapping[str, ArrayLike]) -> NDArray[np.bool_]:
    """Every verb, and every targeted verb at each present target."""
    legal = np.zeros(schema.num_options, bool)
    legal[: schema.num_verbs] = True
    for verb, targets in zip(schema.targeted_verbs, schema.target_slices, strict=True):
        legal[targets.start : targets.start + len(np.asarray(entities.get(verb.target, ())))] = True
    return legal
