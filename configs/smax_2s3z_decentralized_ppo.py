"""PPO on SMAX 2s3z, decentralized control with a central critic.

Each unit decides by what it sees itself; the value, which is needed in training only, reads the whole battle.
"""

from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, VectorEnvRunner, module_spec, register_env


def make_config(total_env_steps: int = 500_000) -> PPOConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        PPOConfig()
        .environment(register_env("smax/2s3z"), env_config={"control": "decentralized"})
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=1,
            num_envs_per_env_runner=128,
            rollout_fragment_length=32,
        )
        .rl_module(rl_module_spec=module_spec(preset("small")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 1e-3], [total_env_steps, 0.0]],
            gamma=0.99,
            lambda_=0.95,
            train_batch_size_per_learner=4096,
            minibatch_size=512,
            num_epochs=4,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadPPOLearner, learner_config_dict={"ratio": "per_actor"})
        .reporting(metrics_num_episodes_for_smoothing=256)
    )
