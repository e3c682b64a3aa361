"""Rollouts, intervals and TensorBoard: how good is a policy?"""

from perceiver_rl.evaluation.agent import Agent, PolicyAgent
from perceiver_rl.evaluation.report import make_table, write_json
from perceiver_rl.evaluation.rollout import EpisodeRecord, evaluate
from perceiver_rl.evaluation.statistics import Interval, Mode, Summary, summarize, wilson_interval
from perceiver_rl.evaluation.tensorboard import log_summaries

__all__ = [
    "Agent",
    "EpisodeRecord",
    "Interval",
    "Mode",
    "PolicyAgent",
    "Summary",
    "evaluate",
    "log_summaries",
    "make_table",
    "summarize",
    "wilson_interval",
    "write_json",
]
