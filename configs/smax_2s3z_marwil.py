"""MARWIL on SMAX 2s3z, centralized control: imitate what went well in recorded battles.

Two stalkers and three zealots against the same. A step is one that is drawn from the dataset; no battle is played.
"""

from ray.rllib.algorithms.marwil import MARWILConfig

from agents.presets import preset
from perceiver_rl.rllib import RecordedEpisodes, SquadMARWILLearner, module_spec, register_env


def make_config(total_env_steps: int = 1_200_000) -> MARWILConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        MARWILConfig()
        .environment(register_env("smax/2s3z"))
        .offline_data(
            # perceiver-rl collect agents/bundles/smax_2s3z datasets/2s3z
            # perceiver-rl collect heuristic datasets/2s3z-heuristic --env smax/2s3z
            input_=["datasets/2s3z", "datasets/2s3z-heuristic"],
            offline_data_class=RecordedEpisodes,
            dataset_num_iters_per_learner=1,
        )
        .rl_module(rl_module_spec=module_spec(preset("small")))
        .training(
            beta=1.0,
            gamma=0.99,
            vf_coeff=0.5,
            moving_average_sqd_adv_norm_start=0.1,
            moving_average_sqd_adv_norm_update_rate=0.05,
            lr=[[0, 1e-3], [total_env_steps, 0.0]],
            train_batch_size_per_learner=1024,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadMARWILLearner)
        .reporting(min_train_timesteps_per_iteration=20_480)
    )
