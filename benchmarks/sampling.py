"""How fast env runners sample: ours in bulk beside RLlib's own, and both beside a bare loop, on SMAX 2s3z.

    python -m benchmarks.sampling

One process, one torch thread, the `small` preset; the three take turns, medians over the repeats. A step in which an
environment resets itself is no environment step, of the bare loop neither.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from statistics import median
from typing import Annotated

import numpy as np
import torch
import typer
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner

from configs.smax_2s3z_ppo import make_config
from perceiver_rl.environments import make_vector_env
from perceiver_rl.rllib import VectorEnvRunner


def main(
    repeats: Annotated[int, typer.Option(help="Measurements of each, taken in turn.", min=1)] = 7,
    num_envs: Annotated[int, typer.Option(help="Environments; by default as many as the config trains with.", min=1)] = 128,
    steps: Annotated[int, typer.Option(help="Environment steps a measurement.", min=1)] = 4096,
) -> None:
    """Print environment steps a second of each, and ratios to the bare loop."""
    torch.set_num_threads(1)
    config = make_config().env_runners(num_env_runners=0, num_envs_per_env_runner=num_envs).debugging(seed=0)
    ours = VectorEnvRunner(config=config, worker_index=0)
    stock = SingleAgentEnvRunner(config=config, worker_index=0)
    contenders: dict[str, Callable[[], object]] = {
        "bare loop: forward pass and environment step": _bare_loop(ours, num_envs, steps),
        "VectorEnvRunner": lambda: ours.sample(num_timesteps=steps, explore=True),
        "RLlib's SingleAgentEnvRunner": lambda: stock.sample(num_timesteps=steps, explore=True),
    }
    rates: dict[str, list[float]] = {name: [] for name in contenders}
    for sample in contenders.values():
        sample()  # compile
    for _ in range(repeats):
        for name, sample in contenders.items():
            began = time.perf_counter()
            sample()
            rates[name].append(steps / (time.perf_counter() - began))
    bare = median(next(iter(rates.values())))
    print("| loop | env steps / s | of the bare loop | added to it, µs / step |\n|---|---|---|---|")
    for name, values in rates.items():
        added = 1e6 / median(values) - 1e6 / bare
        print(f"| {name} | {median(values):,.0f} | {median(values) / bare:.3f} | {added:.1f} |")


def _bare_loop(runner: VectorEnvRunner, num_envs: int, steps: int) -> Callable[[], None]:
    """Nothing but what cannot be left out, with the runner's own policy."""
    env = make_vector_env("smax/2s3z", num_envs)
    policy = runner.module.policy.eval()
    observation, _ = env.reset(seed=0)
    resetting = np.zeros(num_envs, bool)

    def loop() -> None:
        nonlocal observation, resetting
        done = 0
        with torch.inference_mode():
            while done < steps:
                tensors = {key: torch.from_numpy(array) for key, array in observation.items()}
                actions = policy(tensors).distribution.sample().numpy()
                observation, _, terminated, truncated, _ = env.step(actions)
                done += int((~resetting).sum())
                resetting = terminated | truncated

    return loop


if __name__ == "__main__":
    typer.run(main)
