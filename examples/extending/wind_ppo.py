"""An RLlib config of two policies: ours for the squad, RLlib's own network for the wind."""

import ray
from fires_ppo import MODEL
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.core.rl_module import MultiRLModuleSpec, RLModuleSpec
from wind import FireAndWind

from perceiver_rl.rllib import module_spec

ITERATIONS = 15

config = (
    PPOConfig()
    .environment(FireAndWind)
    .multi_agent(
        policies={"squad", "wind"},
        policy_mapping_fn=lambda agent, episode, **kwargs: agent,
    )
    .rl_module(
        rl_module_spec=MultiRLModuleSpec(
            rl_module_specs={
                "squad": module_spec(MODEL),  # the one line that is about perceiver-rl
                "wind": RLModuleSpec(),
            }
        )
    )
    .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=32)
    .training(
        lr=3e-3,
        gamma=0.95,
        train_batch_size_per_learner=512,
        minibatch_size=256,
        num_epochs=4,
        vf_clip_param=float("inf"),
        grad_clip=0.5,
    )
    .debugging(seed=0)
)


def run() -> None:
    """Train, and print what each policy earns in an episode."""
    ray.init(include_dashboard=False, logging_level="ERROR")
    algorithm = config.build_algo()
    for iteration in range(1, ITERATIONS + 1):
        result = algorithm.train()
        returns = result["env_runners"].get("module_episode_returns_mean", {})
        print(iteration, {name: round(float(value), 2) for name, value in sorted(returns.items())}, flush=True)
    algorithm.stop()


if __name__ == "__main__":
    run()
