"""Searches for good settings, over Ray Tune."""

from perceiver_rl.rllib.tuning.report import TrialRecord, best_of, make_table
from perceiver_rl.rllib.tuning.search import PreparedSearch, SearchProgress, SearchResult, prepare_search, run_search
from perceiver_rl.rllib.tuning.settings import SearchFolder, SearchSettings

__all__ = [
    "PreparedSearch",
    "SearchFolder",
    "SearchProgress",
    "SearchResult",
    "SearchSettings",
    "TrialRecord",
    "best_of",
    "make_table",
    "prepare_search",
    "run_search",
]
