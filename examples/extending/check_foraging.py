"""The same check for a parallel environment; and an AEC environment, which PettingZoo converts."""

from foraging import SCHEMA, Foraging, make_env, observe
from pettingzoo.utils.conversions import aec_to_parallel, parallel_to_aec

from perceiver_rl.pettingzoo import EntityParallelEnv
from perceiver_rl.testing import check_entity_env

print(check_entity_env(make_env))

aec_env = parallel_to_aec(Foraging())  # stands for an AEC environment of yours
print(check_entity_env(EntityParallelEnv(aec_to_parallel(aec_env), SCHEMA, observe)))
