"""PPO on Knights-Archers-Zombies, two archers and two knights with one policy, each seeing and acting for itself."""

from ray.rllib.algorithms.ppo import PPOConfig

from agents.presets import preset
from perceiver_rl.rllib import EpisodeOutcomes, SquadPPOLearner, module_spec, register_multi_agent_env

POLICY = "fighter"


def make_config(total_env_steps: int = 240_000) -> PPOConfig:
    """The run's configuration; the learning rate falls linearly to zero at `total_env_steps`."""
    return (
        PPOConfig()
        .environment(register_multi_agent_env("kaz/default"))
        .multi_agent(policies={POLICY}, policy_mapping_fn=policy_of)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=64)
        .rl_module(rl_module_spec=module_spec(preset("tiny")))
        .callbacks(EpisodeOutcomes)
        .training(
            lr=[[0, 2e-3], [total_env_steps, 0.0]],
            gamma=0.98,
            lambda_=0.95,
            train_batch_size_per_learner=1024,  # environment steps: up to four times as many samples
            minibatch_size=1024,
            num_epochs=4,
            clip_param=0.2,
            vf_clip_param=float("inf"),
            vf_loss_coeff=0.5,
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=SquadPPOLearner)
        .reporting(metrics_num_episodes_for_smoothing=50)
    )


def policy_of(agent: str, episode: object, **kwargs: object) -> str:
    """Archers and knights share a policy, which sees what it is."""
    return POLICY
