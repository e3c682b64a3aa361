"""Hold the environment to the contract, before any training time is spent on it."""

from fires import make_env

from perceiver_rl.testing import check_entity_env

print(check_entity_env(lambda: make_env(num_envs=3)))
