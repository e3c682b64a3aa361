"""A training config of a few seconds on duels, which have positions, for the test of the dashboard."""

from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, VectorEnvRunner, module_spec, register_env
from tests.replay.duels import DuelVectorEnv


def make_config(total_env_steps: int = 2_000) -> PPOConfig:
    """PPO on duels, sampled in the learner's process."""
    return (
        PPOConfig()
        .environment(register_env("tests.tensorboard.duel_config:make_duels"))
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=0,
            num_envs_per_env_runner=16,
            rollout_fragment_length=16,
        )
        .rl_module(rl_module_spec=module_spec(preset("tiny")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 1e-3], [total_env_steps, 0.0]],
            train_batch_size_per_learner=256,
            minibatch_size=128,
            num_epochs=1,
            use_kl_loss=False,
        )
        .learners(learner_class=SquadPPOLearner)
    )


def make_duels(num_envs: int) -> DuelVectorEnv:
    """For `register_env`."""
    return DuelVectorEnv(num_envs)
