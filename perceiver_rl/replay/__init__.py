"""Episodes that can be looked at: recorded with what the policy thought, and written into one HTML file."""

from perceiver_rl.replay.page import read_page, write_page
from perceiver_rl.replay.parallel_recorder import record_parallel
from perceiver_rl.replay.recorder import record
from perceiver_rl.replay.recording import Episode, Recording

__all__ = ["Episode", "Recording", "read_page", "record", "record_parallel", "write_page"]
