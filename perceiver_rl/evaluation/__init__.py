"""Rollouts, intervals and TensorBoard: how good is a policy?"""

from perceiver_rl.evaluation.agent import Agent, PolicyAgent
from perceiver_rl.evaluation.aggregation import (
    Aggregate,
    Estimate,
    aggregate,
    bootstrap,
    interquartile_mean,
    read_evaluation,
)
from perceiver_rl.evaluation.parallel import evaluate_parallel
from perceiver_rl.evaluation.report import make_aggregate_table, make_table, make_units_table, write_csv, write_json
from perceiver_rl.evaluation.rollout import EpisodeRecord, evaluate
from perceiver_rl.evaluation.statistics import Interval, Mode, Summary, mean_interval, summarize, wilson_interval
from perceiver_rl.evaluation.tensorboard import log_summaries

__all__ = [
    "Agent",
    "Aggregate",
    "EpisodeRecord",
    "Estimate",
    "Interval",
    "Mode",
    "PolicyAgent",
    "Summary",
    "aggregate",
    "bootstrap",
    "evaluate",
    "evaluate_parallel",
    "interquartile_mean",
    "log_summaries",
    "make_aggregate_table",
    "make_table",
    "make_units_table",
    "mean_interval",
    "read_evaluation",
    "summarize",
    "wilson_interval",
    "write_csv",
    "write_json",
]
