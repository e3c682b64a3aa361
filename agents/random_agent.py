"""The random agent, beside the other agents. The library has it: evaluation has a floor without a checkout."""

from perceiver_rl.evaluation.random_agent import RandomAgent

__all__ = ["RandomAgent"]
