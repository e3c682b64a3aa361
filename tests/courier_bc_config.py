"""A training config of a few seconds on recorded couriers, for the tests of whole runs."""

from ray.rllib.algorithms.bc import BCConfig

from agents.presets import preset
from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner, module_spec, register_env


def make_config(total_env_steps: int = 20_000) -> BCConfig:
    """BC on couriers; the dataset is told by `--set offline_data.input_=…`."""
    return (
        BCConfig()
        .environment(register_env("tests.environments:make_couriers"))
        .offline_data(input_=["datasets/couriers"], offline_data_class=RecordedEpisodes, dataset_num_iters_per_learner=1)
        .rl_module(rl_module_spec=module_spec(preset("tiny")))
        .training(
            lr=[[0, 3e-3], [total_env_steps, 0.0]],
            train_batch_size_per_learner=256,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadBCLearner)
        .reporting(min_train_timesteps_per_iteration=1_024)
    )
