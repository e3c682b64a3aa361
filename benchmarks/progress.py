"""Read what a training run logged, one record an iteration, and write what is kept of it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping
from pathlib import Path

from perceiver_rl.whole_file import write_whole

PROGRESS = "progress.jsonl"
PLAYED = "played.jsonl"
"""Win rates of checkpoints, where training plays nothing: `benchmarks.played`."""

STEPS = "env_steps"
WIN_RATE = "outcome/win_rate"


def read_progress(run: Path, file: str = PROGRESS) -> list[dict[str, float]]:
    """The records of a run's progress file, in the order of time.

    Args:
        run: Run folder.
        file: Name of the file in it.

    Raises:
        ValueError: If there is no such file, nothing in it, or a line that is no record; the message says which.
    """
    log = run / file
    if not log.is_file():
        raise ValueError(f"run {run}: got no {file}, expected the folder of a run of `perceiver-rl train`")
    records = []
    for number, line in enumerate(log.read_text().splitlines(), start=1):
        try:
            records.append(json.loads(line))
        except json.JSONDecodeError as error:
            raise ValueError(f"{log}, line {number}: got what is no JSON ({error}), expected one record a line") from error
    if not records:
        raise ValueError(f"{log}: got no records, expected one for each iteration; the run ended before its first")
    return records


def write_records(file: Path, records: Iterable[Mapping[str, float]]) -> None:
    """One record a line, as `read_progress` reads them."""
    write_whole(file, "".join(json.dumps(record) + "\n" for record in records))
