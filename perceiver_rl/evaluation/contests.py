"""Who plays where: what `perceiver-rl evaluate` puts into its table."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from perceiver_rl.bundle import is_bundle, load_policy
from perceiver_rl.evaluation.agent import Agent, PolicyAgent, make_agent
from perceiver_rl.evaluation.arena import Arena, ParallelArena, VectorArena
from perceiver_rl.evaluation.statistics import Mode, Summary, summarize
from perceiver_rl.evaluation.trained import Trained
from perceiver_rl.mixture import members_of
from perceiver_rl.policy.entity_policy import EntityPolicy

MAX_ENVS = 128
"""Environments of an evaluation's batch at most."""

MAX_PARALLEL_ENVS = 16
"""The same for multi-agent environments, which are single ones, each stepped by itself."""


MODES: tuple[Mode, ...] = ("greedy", "sampled")
"""How a policy is played."""


@dataclass(frozen=True)
class Contest:
    """One policy, or several that play together, in one environment: a row of the table."""

    arena: Arena
    policy: str
    """Its name in the table."""
    mode: Mode
    players: dict[str, Agent]
    """By module id."""
    env_config: dict[str, Any]
    checkpoint: str | None = None
    """What was trained: a checkpoint or a bundle, by names that mean something on other machines, too."""
    env_steps: int | None = None
    """Environment steps that it was trained for."""
    is_evaluated: bool = False
    """Whether this is what the evaluation is of, not what plays beside it."""

    def play(self, episodes: int, seed: int, on_episode: Callable[[int, int], None]) -> Summary:
        """Play and sum up.

        Args:
            episodes: Rounded up so that each environment of the batch plays equally many.
            seed: Of environments and sampled actions. The same seed gives the same summary.
            on_episode: Called after every episode with how many are done and how many will be.
        """
        records = self.arena.play(
            self.players,
            episodes_per_env=math.ceil(episodes / self.arena.num_envs),
            seed=seed,
            greedy=self.mode == "greedy",
            on_episode=on_episode,
        )
        summary = summarize(
            records, env=self.arena.env, policy=self.policy, mode=self.mode, seed=seed, control=self.arena.control
        )
        return replace(summary, env_config=self.env_config, checkpoint=self.checkpoint, env_steps=self.env_steps)


def policies_in(contests: Sequence[Contest]) -> dict[str, dict[str, EntityPolicy]]:
    """The policies that are evaluated, by environment and module id, each with that environment's schema."""
    return {
        contest.arena.env: {
            module: player.policy for module, player in contest.players.items() if isinstance(player, PolicyAgent)
        }
        for contest in contests
        if contest.is_evaluated
    }


def contests_of(trained: Trained, against: Sequence[str], episodes: int) -> list[Contest]:
    """Every contest of an evaluation: in each environment the trained policy greedily and sampled, then the others.

    Args:
        trained: What is evaluated, and where.
        against: Agents by name or import string, and bundles by path, which play in place of it.
        episodes: Of each contest.

    Raises:
        ValueError: If there is no such environment or agent, or a policy does not fit an environment.
        ImportError: If an environment needs a package that is not installed.
    """
    contests: list[Contest] = []
    with ExitStack() as opened:  # until all are there
        for env in trained.envs:
            arena = _arena(trained, env, episodes)
            opened.callback(arena.close)
            policies: dict[str, Agent] = {
                module: PolicyAgent(trained.policy(schema, module, arena.rows[module]))
                for module, schema in arena.schemas.items()
            }
            contests += [
                Contest(
                    arena,
                    trained.name,
                    mode,
                    policies,
                    trained.env_config,
                    trained.checkpoint,
                    trained.env_steps,
                    is_evaluated=True,
                )
                for mode in MODES
            ]
            for name in against:
                contests += _contests_of_other(arena, name, trained)
        opened.pop_all()
    return contests


@contextmanager
def closing_all(contests: Sequence[Contest]) -> Iterator[None]:
    """Close every environment at the end, whatever happens."""
    with ExitStack() as stack:
        for arena in {id(contest.arena): contest.arena for contest in contests}.values():
            stack.callback(arena.close)
        yield


def _contests_of_other(arena: Arena, name: str, trained: Trained) -> list[Contest]:
    players: dict[str, Agent]
    if is_bundle(Path(name)):
        bundle = load_policy(name)
        players = {
            module: PolicyAgent(bundle.for_schema(schema, arena.rows[module])) for module, schema in arena.schemas.items()
        }
        origin = (Path(name).resolve().name, bundle.provenance.env_steps)
        return [Contest(arena, name, mode, players, trained.env_config, *origin) for mode in MODES]
    if "/" in name:
        raise ValueError(
            f"{name}: got no bundle there, expected a folder that `perceiver-rl export` wrote, or an agent by name or "
            "import string"
        )
    players = {module: make_agent(name, schema) for module, schema in arena.schemas.items()}
    return [Contest(arena, name, "sampled", players, trained.env_config)]


def _arena(trained: Trained, env: str, episodes: int) -> Arena:
    if trained.module is None:
        return ParallelArena(env, num_envs_for(episodes, MAX_PARALLEL_ENVS), trained.env_config, trained.agents)
    num_envs = max(num_envs_for(episodes, MAX_ENVS), len(members_of(env)))
    return VectorArena(env, num_envs, trained.env_config, trained.module)


def num_envs_for(episodes: int, at_most: int) -> int:
    """Environments for at least that many episodes, so that each plays the same number."""
    episodes_per_env = math.ceil(episodes / at_most)
    return math.ceil(episodes / episodes_per_env)
