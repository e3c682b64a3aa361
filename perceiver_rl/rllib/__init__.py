"""The model inside RLlib. The only folder that imports Ray."""

from perceiver_rl.rllib.bundle_module import bundle_spec
from perceiver_rl.rllib.callbacks import EpisodeOutcomes
from perceiver_rl.rllib.env_runner import VectorEnvRunner
from perceiver_rl.rllib.learners import (
    SquadAPPOLearner,
    SquadBCLearner,
    SquadIMPALALearner,
    SquadMARWILLearner,
    SquadPPOLearner,
)
from perceiver_rl.rllib.module import PerceiverRLModule, module_spec
from perceiver_rl.rllib.multi_agent_env import ParallelMultiAgentEnv
from perceiver_rl.rllib.recorded_episodes import RecordedEpisodes
from perceiver_rl.rllib.registration import register, register_env, register_multi_agent_env

__all__ = [
    "EpisodeOutcomes",
    "ParallelMultiAgentEnv",
    "PerceiverRLModule",
    "RecordedEpisodes",
    "SquadAPPOLearner",
    "SquadBCLearner",
    "SquadIMPALALearner",
    "SquadMARWILLearner",
    "SquadPPOLearner",
    "VectorEnvRunner",
    "bundle_spec",
    "module_spec",
    "register",
    "register_env",
    "register_multi_agent_env",
]
