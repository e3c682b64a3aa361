"""Learners for squads: RLlib's algorithms with probabilities of each actor instead of the joint action's."""

from perceiver_rl.rllib.learners.imitation import SquadBCLearner, SquadMARWILLearner
from perceiver_rl.rllib.learners.ppo import SquadPPOLearner
from perceiver_rl.rllib.learners.squad_learner import SquadLearner
from perceiver_rl.rllib.learners.vtrace_learners import SquadAPPOLearner, SquadIMPALALearner

__all__ = [
    "SquadAPPOLearner",
    "SquadBCLearner",
    "SquadIMPALALearner",
    "SquadLearner",
    "SquadMARWILLearner",
    "SquadPPOLearner",
]
