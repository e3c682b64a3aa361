"""IMPALA on SMAX 2s3z, centralized control: 94.7 to 98.2 % greedy wins, seeds 0 to 2 (docs/results.md).

Two stalkers and three zealots against the same; sampling and learning go on at the same time. Nothing but its learning rate
bounds IMPALA's steps, so they are many and small, and few batches are under way (docs/decisions.md). It takes several times
the steps of APPO: `smax_2s3z_appo.py` is the better way to train asynchronously.
"""

from ray.rllib.algorithms.impala import IMPALAConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadIMPALALearner, VectorEnvRunner, module_spec, register_env


def make_config(total_env_steps: int = 2_000_000) -> IMPALAConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`, the entropy bonus before."""
    return (
        IMPALAConfig()
        .environment(register_env("smax/2s3z"))
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=1,
            num_envs_per_env_runner=32,
            rollout_fragment_length=16,
        )
        .rl_module(rl_module_spec=module_spec(preset("small")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 8e-5], [total_env_steps, 0.0]],
            gamma=0.99,
            train_batch_size_per_learner=512,
            minibatch_size=128,
            num_epochs=1,
            learner_queue_size=1,
            vf_loss_coeff=1.0,
            entropy_coeff=[[0, 0.001], [5 * total_env_steps // 6, 0.0]],
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(
            num_learners=0,
            learner_class=SquadIMPALALearner,
            learner_config_dict={"lambda_": 0.95, "standardize_advantages": False},
        )
        .reporting(metrics_num_episodes_for_smoothing=256, min_time_s_per_iteration=2)
    )
