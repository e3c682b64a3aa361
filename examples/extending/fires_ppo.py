"""PPO on the fires, in one process."""

from ray.rllib.algorithms.ppo import PPOConfig

from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, VectorEnvRunner, module_spec, register_env

MODEL = {
    "token_dim": 32,
    "pointer_dim": 16,
    "perceiver": {"num_latents": 4, "latent_dim": 32, "num_self_attend_heads": 2},
}


def make_config(total_env_steps: int = 30_000) -> PPOConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        PPOConfig()
        .environment(register_env("fires:make_env"))
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=0,
            num_envs_per_env_runner=32,
            rollout_fragment_length=32,
        )
        .rl_module(rl_module_spec=module_spec(MODEL))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 3e-3], [total_env_steps, 0.0]],
            gamma=0.95,
            lambda_=0.95,
            train_batch_size_per_learner=1024,
            minibatch_size=256,
            num_epochs=4,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .learners(learner_class=SquadPPOLearner)
        .reporting(metrics_num_episodes_for_smoothing=256)
    )
