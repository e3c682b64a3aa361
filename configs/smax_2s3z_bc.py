"""BC on SMAX 2s3z, centralized control: 99.8 % greedy wins, seed 0 (docs/results.md).

Two stalkers and three zealots against the same. It imitates recorded battles: a step is one that is
drawn from the dataset; no battle is played.
"""

from ray.rllib.algorithms.bc import BCConfig

from agents.presets import preset
from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner, module_spec, register_env


def make_config(total_env_steps: int = 300_000) -> BCConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        BCConfig()
        .environment(register_env("smax/2s3z"))
        .offline_data(
            input_=["datasets/2s3z"],  # perceiver-rl collect agents/bundles/smax_2s3z datasets/2s3z
            offline_data_class=RecordedEpisodes,
            dataset_num_iters_per_learner=1,
        )
        .rl_module(rl_module_spec=module_spec(preset("small")))
        .training(
            lr=[[0, 1e-3], [total_env_steps, 0.0]],
            train_batch_size_per_learner=1024,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadBCLearner)
        .reporting(min_train_timesteps_per_iteration=20_480)
    )
