"""Record what was trained: a squad in its vector environment, or agents in their parallel one."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from contextlib import closing
from typing import Any

from perceiver_rl.entities import schema_of
from perceiver_rl.environments import make_parallel_env, make_vector_env, require_possible_agents
from perceiver_rl.evaluation.trained import Trained
from perceiver_rl.replay.parallel_recorder import record_parallel
from perceiver_rl.replay.recorder import record
from perceiver_rl.replay.recording import Recording


def record_trained(
    trained: Trained,
    *,
    episodes: int,
    seed: int,
    greedy: bool,
    policy: str | None = None,
    on_step: Callable[[int, int, int], None] | None = None,
) -> Recording:
    """Record episodes of a checkpoint or a bundle.

    Args:
        trained: Who plays, and in which one environment.
        episodes: Of a squad, or of a multi-agent environment, of which each agent then makes one of the recording.
        seed: Of the environment and of draws.
        greedy: Each actor's most probable option rather than a draw.
        policy: Whose agents are shown, where several policies play together.
        on_step: Called after every step with episodes done, episodes in all, and steps so far.

    Raises:
        ValueError: If there are several environments, it is not said which policy to show, or the environment does not fit.
    """
    if len(trained.envs) > 1:
        raise ValueError(f"replay: got environments {', '.join(trained.envs)}, expected one; name it by --env")
    (env,) = trained.envs
    told: dict[str, Any] = {
        "env_name": env,
        "policy_name": f"{trained.name}, {trained.env_steps:,} steps",
        "seed": seed,
        "greedy": greedy,
        "on_step": on_step,
    }
    if trained.module is not None:
        if policy not in (None, trained.module):
            raise ValueError(f"replay: got policy {policy!r}, expected {trained.module!r}, the only one")
        with closing(make_vector_env(env, episodes, **trained.env_config)) as vector_env:
            squad = trained.policy(schema_of(vector_env.single_observation_space), trained.module, episodes)
            return record(squad, vector_env, **told)
    with closing(make_parallel_env(env, **trained.env_config)) as parallel_env:
        return _record_agents(trained, parallel_env, policy, episodes, told)


def _record_agents(
    trained: Trained, parallel_env: Any, policy: str | None, episodes: int, told: dict[str, Any]
) -> Recording:
    playing = [agent for agent in require_possible_agents(parallel_env) if agent in trained.agents]
    modules = {trained.agents[agent]: schema_of(parallel_env.observation_space(agent)) for agent in playing}
    rows = Counter(trained.agents[agent] for agent in playing)
    if policy is None and len(modules) > 1:
        raise ValueError(f"replay: got policies {', '.join(modules)} that play together, expected one to show: --policy")
    policies = {module: trained.policy(schema, module, rows[module]) for module, schema in modules.items()}
    shown = policy or next(iter(modules), "")
    return record_parallel(policies, trained.agents, parallel_env, shown=shown, episodes=episodes, **told)
