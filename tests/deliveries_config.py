"""A multi-agent training config of a few seconds, for the tests of whole runs: couriers and porters, a policy each."""

from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, module_spec, register_multi_agent_env


def make_config(total_env_steps: int = 10_000) -> PPOConfig:
    """PPO on deliveries, sampled in the learner's process."""
    return (
        PPOConfig()
        .environment(
            register_multi_agent_env("tests.parallel_environments:make_deliveries"),
            env_config={"kinds": ["courier", "porter"], "number": 4},
        )
        .multi_agent(policies={"courier", "porter"}, policy_mapping_fn=kind_of)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=32, rollout_fragment_length=8)
        .rl_module(rl_module_spec=module_spec(preset("tiny")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 5e-3], [total_env_steps, 0.0]],
            gamma=0.5,
            train_batch_size_per_learner=256,
            minibatch_size=256,
            num_epochs=4,
            vf_clip_param=float("inf"),
            entropy_coeff=0.01,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .learners(learner_class=SquadPPOLearner)
        .debugging(seed=0)
        .reporting(metrics_num_episodes_for_smoothing=100)
    )


def kind_of(agent: str, episode: object, **kwargs: object) -> str:
    """`courier` of `courier_3`."""
    return agent.split("_")[0]
