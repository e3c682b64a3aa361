"""Read a dataset: episode by episode, or all steps as arrays."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from jaxtyping import Bool, Float32, Int64
from numpy.typing import NDArray

from perceiver_rl.dataset.description import DatasetDescription, DatasetFile, read_description
from perceiver_rl.dataset.episode import ACTIONS, ENDINGS, OBSERVATION, REWARDS, Episode, columns_of, require_choices
from perceiver_rl.entities import ACTION_MASK, EntitySchema, Observation


@dataclass(frozen=True)
class Steps:
    """Every step of some episodes, one episode after the other; where episodes ended is left out."""

    observations: Observation
    """`[steps, …]` each: what was seen before each choice."""
    actions: Int64[np.ndarray, "steps actors"]
    rewards: Float32[np.ndarray, " steps"]
    last: Bool[np.ndarray, " steps"]
    """Whether the episode ended in this step."""

    def __len__(self) -> int:
        return len(self.rewards)

    def returns(self, discount: float) -> Float32[np.ndarray, " steps"]:
        """The discounted sum of rewards from each step to its episode's end.

        An episode that was cut off counts as ended there: what would have followed was not played.

        Args:
            discount: Of each step, from 0 to 1.
        """
        found = np.empty(len(self), np.float64)
        following = 0.0
        for step in range(len(self) - 1, -1, -1):
            following = float(self.rewards[step]) + (0.0 if self.last[step] else discount * following)
            found[step] = following
        return found.astype(np.float32)


def read_steps(paths: Sequence[str | Path]) -> Steps:
    """All steps of some datasets.

    Args:
        paths: Folders of datasets of one schema.

    Raises:
        ValueError: If one is no whole dataset, or what it holds does not keep the contract of its schema.
    """
    parts = []
    for path in paths:
        description = read_description(path)
        for file in description.files:
            table = _Table(Path(path), file, description)
            last = np.zeros(file.steps, bool)
            last[table.starts + table.lengths - 1] = True
            parts.append(Steps(table.chosen_from, table.actions, table.rewards, last))
    return Steps(
        {key: np.concatenate([part.observations[key] for part in parts]) for key in parts[0].observations},
        np.concatenate([part.actions for part in parts]),
        np.concatenate([part.rewards for part in parts]),
        np.concatenate([part.last for part in parts]),
    )


def read_episodes(path: str | Path) -> Iterator[Episode]:
    """The episodes of a dataset, in the order in which they ended; one file at a time is in memory.

    Raises:
        ValueError: As of `read_steps`.
    """
    description = read_description(path)
    for file in description.files:
        table = _Table(Path(path), file, description)
        for index, (start, length) in enumerate(zip(table.starts.tolist(), table.lengths.tolist(), strict=True)):
            first = start + index  # each episode before has one observation more than steps
            yield Episode(
                observations={key: array[first : first + length + 1] for key, array in table.observations.items()},
                actions=table.actions[start : start + length],
                rewards=table.rewards[start : start + length],
                **table.endings[index],
            )


class _Table:
    """One file: its episodes' arrays, one episode after the other.

    Raises:
        ValueError: If it cannot be read, has other columns, or breaks the contract.
    """

    def __init__(self, folder: Path, file: DatasetFile, description: DatasetDescription) -> None:
        schema = description.schema
        try:
            self._read(folder / file.name, schema)
            if len(self.lengths) != file.episodes or len(self.rewards) != file.steps:
                raise ValueError(
                    f"got {len(self.lengths)} episodes of {len(self.rewards)} steps, expected {file.episodes} of "
                    f"{file.steps}"
                )
            schema.check(self.observations, (len(self.observations[ACTION_MASK]),))
            require_choices(schema, self.chosen_from, self.actions)
        except (ValueError, pa.ArrowException) as error:
            raise ValueError(f"dataset {folder / file.name}: {error}; collect it again") from error

    @cached_property
    def chosen_from(self) -> Observation:
        """The observations in which something was chosen: all but each episode's last one, `[steps, …]` each."""
        inner = np.ones(len(self.observations[ACTION_MASK]), bool)
        inner[self.starts + self.lengths + np.arange(len(self.lengths))] = False
        return {key: array[inner] for key, array in self.observations.items()}

    def _read(self, file: Path, schema: EntitySchema) -> None:
        table = pq.read_table(file, use_threads=False)
        expected = columns_of(schema)
        if table.schema.remove_metadata() != expected:
            raise ValueError(
                f"got columns {', '.join(f'{each.name} ({each.type})' for each in table.schema)}, expected "
                f"{', '.join(f'{each.name} ({each.type})' for each in expected)}"
            )
        columns = {name: table.column(name).combine_chunks() for name in expected.names}
        self.lengths: NDArray[np.int64] = _lengths(columns[REWARDS])
        self.starts: NDArray[np.int64] = np.cumsum(self.lengths) - self.lengths
        if not self.lengths.all():
            raise ValueError("got an episode of no steps, expected at least one")
        self.rewards = _values(REWARDS, columns[REWARDS], self.lengths, ())
        self.actions = _values(ACTIONS, columns[ACTIONS], self.lengths, (schema.max_actors,)).astype(np.int64)
        self.observations: Observation = {
            key: _values(OBSERVATION + key, columns[OBSERVATION + key], self.lengths + 1, shape)
            for key, (shape, _) in schema.arrays.items()
        }
        self.endings: list[dict[str, Any]] = [
            dict(zip(ENDINGS, values, strict=True))
            for values in zip(*(columns[name].to_pylist() for name in ENDINGS), strict=True)
        ]


def _lengths(column: pa.ListArray) -> NDArray[np.int64]:
    if column.null_count:
        raise ValueError("got an episode without rewards, expected lists")
    return np.diff(column.offsets.to_numpy()).astype(np.int64)


def _values(name: str, column: pa.ListArray, lengths: NDArray[np.int64], shape: tuple[int, ...]) -> NDArray[Any]:
    """A column's lists one after the other, `[total, *shape]`."""
    expected = lengths * int(np.prod(shape))
    if column.null_count or not np.array_equal(_lengths(column), expected):
        raise ValueError(f"column {name!r}: got lists of other lengths than the episodes', expected {shape} for each step")
    values = column.flatten()
    if values.null_count:
        raise ValueError(f"column {name!r}: got nulls, expected numbers")
    return values.to_numpy(zero_copy_only=False).reshape(int(lengths.sum()), *shape)
