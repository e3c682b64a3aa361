"""PPO on foraging: three agents, one policy, each seeing and deciding for itself."""

from ray.rllib.algorithms.ppo import PPOConfig

from perceiver_rl.rllib import SquadPPOLearner, module_spec, register_multi_agent_env

MODEL = {
    "token_dim": 32,
    "pointer_dim": 16,
    "perceiver": {"num_latents": 4, "latent_dim": 32, "num_self_attend_heads": 2},
}


def policy_of(agent: str, episode: object, **kwargs: object) -> str:
    """Which policy plays an agent."""
    return "forager"


def make_config(total_env_steps: int = 8_000) -> PPOConfig:
    """The run's configuration; a step is one of the environment, in which three agents act."""
    return (
        PPOConfig()
        .environment(register_multi_agent_env("foraging:make_env"))
        .multi_agent(policies={"forager"}, policy_mapping_fn=policy_of)
        .env_runners(num_env_runners=0, num_envs_per_env_runner=16, rollout_fragment_length=16)
        .rl_module(rl_module_spec=module_spec(MODEL))
        .training(
            lr=[[0, 5e-3], [total_env_steps, 0.0]],
            gamma=0.9,
            train_batch_size_per_learner=256,
            minibatch_size=256,
            num_epochs=4,
            vf_clip_param=float("inf"),
            entropy_coeff=0.003,
            use_kl_loss=False,
            grad_clip=0.5,
        )
        .learners(learner_class=SquadPPOLearner)
    )
