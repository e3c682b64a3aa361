"""One pass for a whole squad beside a pass for each agent: unit-steps a second of both on the same battle.

    python -m benchmarks.squad_path
    python -m benchmarks.squad_path --battle battle-24 --num-envs 8

One process, one torch thread, the same preset with initial weights; red is commanded, the scripted hunter is blue. The
squad form samples through `VectorEnvRunner`, the multi-agent form through RLlib's `MultiAgentEnvRunner`. A unit-step is
one decision of one living unit. The two take turns; medians over the repeats.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated, Any

import torch
import typer
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.env.multi_agent_env_runner import MultiAgentEnvRunner

from agents.presets import preset
from perceiver_rl.entities import mask_key
from perceiver_rl.rllib import VectorEnvRunner, module_spec, register_env, register_multi_agent_env


def main(
    battle: Annotated[str, typer.Option(help="Name in the family magent.")] = "battle-45",
    model: Annotated[str, typer.Option("--preset", help="Size of the policy.")] = "small",
    num_envs: Annotated[int, typer.Option(help="Battles side by side, in both forms.", min=1)] = 16,
    steps: Annotated[int, typer.Option(help="Steps of each battle in one measurement.", min=1)] = 16,
    repeats: Annotated[int, typer.Option(help="Measurements of each, taken in turn.", min=1)] = 5,
) -> None:
    """Print unit-steps a second of both, and the ratio."""
    torch.set_num_threads(1)
    env = f"magent/{battle}"
    squad = VectorEnvRunner(
        config=_config(model, num_envs)
        .environment(register_env(env))
        .env_runners(gym_env_vectorize_mode="vector_entry_point"),
        worker_index=0,
    )
    agents = MultiAgentEnvRunner(
        config=_config(model, num_envs)
        .environment(register_multi_agent_env(env), env_config={"armies": "red"})
        .multi_agent(policies={"unit"}, policy_mapping_fn=_unit),
        worker_index=0,
    )
    contenders: dict[str, Callable[[], int]] = {
        "squad: one pass for all units of a battle": lambda: _squad_units(squad, num_envs * steps),
        "multi-agent: one pass for all agents of a battle, each on its own": lambda: _agent_units(agents, steps),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for sample in contenders.values():
        sample()  # warm up
    for _ in range(repeats):
        for name, sample in contenders.items():
            began = time.perf_counter()
            units = sample()
            rates[name].append(units / (time.perf_counter() - began))
    slowest = min(median(values) for values in rates.values())
    print("| path | unit-steps / s | ratio |\n|---|---|---|")
    for name, values in rates.items():
        print(f"| {name} | {median(values):,.0f} | {median(values) / slowest:.1f} |")


def _config(model: str, num_envs: int) -> PPOConfig:
    return (
        PPOConfig()
        .env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs)
        .rl_module(rl_module_spec=module_spec(preset(model)))
        .debugging(seed=0)
    )


def _unit(agent: str, episode: object, **kwargs: Any) -> str:
    return "unit"


def _squad_units(runner: VectorEnvRunner, steps: int) -> int:
    """Sample, and count the decisions of living units."""
    schema = runner.module.policy.schema
    units = 0
    for episode in runner.sample(num_timesteps=steps, explore=True):
        observation = episode.get_observations(slice(0, len(episode)))
        units += sum(int(observation[mask_key(actor)].sum()) for actor in schema.actors)
    return units


def _agent_units(runner: MultiAgentEnvRunner, steps: int) -> int:
    """The same: an agent has a step for each decision that it made."""
    envs = runner.config.num_envs_per_env_runner
    return sum(episode.agent_steps() for episode in runner.sample(num_timesteps=steps * envs, explore=True))


if __name__ == "__main__":
    typer.run(main)
