"""APPO on SMAX 2s3z, centralized control: PPO whose sampling and learning go on at the same time.

Two stalkers and three zealots against the same.
"""

from ray.rllib.algorithms.appo import APPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadAPPOLearner, VectorEnvRunner, module_spec, register_env


def make_config(total_env_steps: int = 500_000) -> APPOConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        APPOConfig()
        .environment(register_env("smax/2s3z"))
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=1,
            num_envs_per_env_runner=64,
            rollout_fragment_length=32,
        )
        .rl_module(rl_module_spec=module_spec(preset("small")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 1e-3], [total_env_steps, 0.0]],
            gamma=0.99,
            train_batch_size_per_learner=2048,
            minibatch_size=512,
            num_epochs=4,
            circular_buffer_num_batches=1,
            circular_buffer_iterations_per_batch=1,
            target_network_update_freq=1,
            clip_param=0.2,
            vf_loss_coeff=0.5,
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(num_learners=0, learner_class=SquadAPPOLearner, learner_config_dict={"lambda_": 0.95})
        .reporting(metrics_num_episodes_for_smoothing=256, min_time_s_per_iteration=2)
    )
