"""PPO on the learning tasks of envs/tasks, one function for each; docs/tasks.md has what was measured.

    perceiver-rl train configs.tasks_ppo:xor --seed 0

and the same with the decisive feature hidden, where nothing can be learned:

    perceiver-rl train configs.tasks_ppo:xor --seed 0 --set 'environment.env_config={"ablate": True}'

`make_config`, which `perceiver-rl train configs/tasks_ppo.py` takes, is `floor_is_lava`; with `--env task/…` it trains
another task by the same settings.
"""

from dataclasses import dataclass, replace

from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, VectorEnvRunner, module_spec, register_env


@dataclass(frozen=True, kw_only=True)
class TaskSettings:
    """What differs between tasks.

    Args:
        num_envs: Sub-environments.
        batch: Environment steps of an iteration.
        minibatch: Of them, in one optimiser's step.
        epochs: Passes over each batch.
        lr: Learning rate at the beginning.
        gamma: Discount.
        entropy: Coefficient of the entropy bonus.
        value: Coefficient of the value's loss.
        policy_init_scale: Factor on the initial weights of the action heads.
        preset: Size of the policy.
    """

    num_envs: int = 256
    batch: int = 1024
    minibatch: int = 256
    epochs: int = 4
    lr: float = 3e-3
    gamma: float = 0.9
    entropy: float = 0.003
    value: float = 0.5
    policy_init_scale: float = 0.1
    preset: str = "tiny"


def _config(env: str, total_env_steps: int, task: TaskSettings) -> PPOConfig:
    """PPO in one process; the learning rate falls linearly to zero at `total_env_steps`."""
    model = replace(preset(task.preset), policy_init_scale=task.policy_init_scale)
    return (
        PPOConfig()
        .environment(register_env(env))
        .env_runners(
            env_runner_cls=VectorEnvRunner,
            gym_env_vectorize_mode="vector_entry_point",
            num_env_runners=0,
            num_envs_per_env_runner=task.num_envs,
            rollout_fragment_length=max(1, task.batch // task.num_envs),
        )
        .rl_module(rl_module_spec=module_spec(model))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, task.lr], [total_env_steps, 0.0]],
            gamma=task.gamma,
            lambda_=0.95,
            train_batch_size_per_learner=task.batch,
            minibatch_size=task.minibatch,
            num_epochs=task.epochs,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=task.value,
            entropy_coeff=task.entropy,
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadPPOLearner)
        .reporting(metrics_num_episodes_for_smoothing=256)
    )


def count(total_env_steps: int = 2_000) -> PPOConfig:
    """How many beans: two thousand answers are all there is to learn from, so batches are small and used often."""
    settings = TaskSettings(
        num_envs=50,
        batch=50,
        minibatch=50,
        epochs=12,
        lr=1.5e-3,
        entropy=0.03,
        value=0.1,
        policy_init_scale=1.0,
        preset="small",
    )
    return _config("task/count", total_env_steps, settings)


def floor_is_lava(total_env_steps: int = 16_000) -> PPOConfig:
    """The one safe tile of eight."""
    return _config("task/floor_is_lava", total_env_steps, TaskSettings())


def cherry_pick(total_env_steps: int = 30_000) -> PPOConfig:
    """The better half of 32 cherries. Little discount is needed: what a cherry is worth is paid at once."""
    return _config("task/cherry_pick", total_env_steps, TaskSettings(num_envs=128, gamma=0.5, entropy=0.0))


def pick_matching_balls(total_env_steps: int = 24_000) -> PPOConfig:
    """Balls of one colour out of 32."""
    return _config("task/pick_matching_balls", total_env_steps, TaskSettings(num_envs=128))


def xor(total_env_steps: int = 20_000) -> PPOConfig:
    """Are two bits different."""
    return _config("task/xor", total_env_steps, TaskSettings(lr=2e-3))


def move_to_origin(total_env_steps: int = 24_000) -> PPOConfig:
    """Walk to the origin."""
    return _config("task/move_to_origin", total_env_steps, TaskSettings(num_envs=128))


def minefield(total_env_steps: int = 600_000) -> PPOConfig:
    """Reach the target, step on no mine. A run of 150 thousand steps with the preset `tiny` stayed at two thirds."""
    settings = TaskSettings(num_envs=128, batch=2048, minibatch=512, lr=1e-3, gamma=0.95, entropy=0.01, preset="small")
    return _config("task/minefield", total_env_steps, settings)


make_config = floor_is_lava
