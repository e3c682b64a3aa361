"""Datasets of recorded episodes as the input of RLlib's offline algorithms.

RLlib's own way to a train batch leads through Ray Data: actors that turn rows into batches, and a local shuffle. It joins
nested keys with slashes and takes them apart again at each slash, so that an observation's `entities/ally` comes out as
another structure; and what it shuffles is a window. What fits into memory needs none of it (docs/decisions.md): here all
steps are arrays, and a train batch is a draw among all of them.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import torch
import tree
from numpy.typing import NDArray
from ray.rllib.algorithms.algorithm_config import AlgorithmConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.offline.offline_data import OfflineData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from perceiver_rl.dataset import Steps, read_description, read_steps
from perceiver_rl.entities import EntitySchema
from perceiver_rl.schema_differences import differences
from perceiver_rl.seeding import ORDER, stream_seed


@dataclass(frozen=True)
class ShuffledSteps:
    """Minibatches of all steps of some datasets: every step once an epoch, in an order that the seed alone decides.

    It reads the datasets when it is first asked, in the process where that is: a learner's own, where there are several.

    Args:
        paths: The datasets.
        discount: Of the returns that are a step's value target.
        seed: Of the order.
        shard, num_shards: Which learner's part of each batch this is, and of how many.
        start: Batches that were drawn before, by a run that is resumed.
    """

    paths: tuple[str, ...]
    discount: float
    seed: int
    shard: int = 0
    num_shards: int = 1
    start: int = 0

    def batches(self, size: int) -> Iterator[dict[str, Any]]:
        """Batches for ever, as columns of tensors: observations, actions, value targets.

        Args:
            size: Steps in each batch of this shard.
        """
        count = self.start
        while True:
            yield self._rows(self._indices((count * self.num_shards + self.shard) * size, size))
            count += 1

    def iter_torch_batches(self, *, batch_size: int, device: Any, **kwargs: Any) -> Iterator[dict[str, Any]]:
        """The same in the form in which RLlib's learners ask a Ray data set, by module id."""
        for batch in self.batches(batch_size):
            yield {DEFAULT_MODULE_ID: tree.map_structure(lambda tensor: tensor.to(device), batch)}

    def _rows(self, rows: NDArray[Any]) -> dict[str, Any]:
        steps, returns = self._steps
        return {
            # RLlib counts the rows of the first column.
            Columns.ACTIONS: torch.from_numpy(steps.actions[rows]),
            Columns.OBS: {key: torch.from_numpy(array[rows]) for key, array in steps.observations.items()},
            Columns.VALUE_TARGETS: torch.from_numpy(returns[rows]),
        }

    def _indices(self, begin: int, size: int) -> NDArray[Any]:
        """The steps at these places of the endless order."""
        total = len(self._steps[0])
        places = np.arange(begin, begin + size)
        return np.concatenate(
            [self._order(epoch)[places[places // total == epoch] % total] for epoch in np.unique(places // total).tolist()]
        )

    def _order(self, epoch: int) -> NDArray[Any]:
        """All steps in the order of an epoch; the last one asked for is kept."""
        if self._orders.get("epoch") != epoch:
            generator = np.random.default_rng(stream_seed(ORDER, self.seed, epoch))
            self._orders.update(epoch=epoch, order=generator.permutation(len(self._steps[0])))
        order: NDArray[Any] = self._orders["order"]
        return order

    @cached_property
    def _orders(self) -> dict[str, Any]:
        return {}

    @cached_property
    def _steps(self) -> tuple[Steps, NDArray[Any]]:
        steps = read_steps(self.paths)
        return steps, steps.returns(self.discount)


class RecordedEpisodes(OfflineData):
    """What `perceiver-rl collect` wrote, as the data of RLlib's BC and MARWIL.

        config.offline_data(
            input_="datasets/2s3z", offline_data_class=RecordedEpisodes, dataset_num_iters_per_learner=1
        )

    `input_` is a dataset's folder, or a list of several, whose steps then count alike. Ray Data takes no part in it, so its
    settings change nothing. All steps are kept in memory, in each learner's process.
    """

    def __init__(self, config: AlgorithmConfig) -> None:
        # Not the base class's: that begins to read by Ray Data.
        self.config = config
        self.iter_batches_kwargs: dict[str, Any] = {}
        seed = np.random.SeedSequence().generate_state(1)[0] if config.seed is None else config.seed
        self._steps = ShuffledSteps(tuple(_paths(config)), config.gamma, int(seed))
        self._batches: Iterator[dict[str, Any]] | None = None
        # Set by RLlib.
        self.learner_handles = self.locality_hints = self.module_spec = self.spaces = None

    def skip(self, num_steps: int) -> None:
        """Go on where a run was that had drawn that many steps, in all learners together."""
        size = self.config.train_batch_size_per_learner * max(1, self.config.num_learners)
        self._steps = replace(self._steps, start=num_steps // size)

    def sample(
        self, num_samples: int, return_iterator: bool = False, num_shards: int = 1, module_state: Any = None
    ) -> MultiAgentBatch | list[ShuffledSteps]:
        """The next batch, or what gives each learner its own batches.

        Args:
            num_samples: Steps in a batch.
            return_iterator: Whether learners draw for themselves.
            num_shards: How many learners; 0 for one in this process.
            module_state: Not used: nothing here asks the model.
        """
        if return_iterator:
            shards = max(1, num_shards)
            return [replace(self._steps, shard=shard, num_shards=shards) for shard in range(shards)]
        if self._batches is None:
            self._batches = self._steps.batches(num_samples)
        return MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(next(self._batches))}, env_steps=num_samples)


@dataclass(frozen=True)
class Recordings:
    """The datasets of a config and what they were recorded in."""

    schemas: dict[str, EntitySchema]
    """By path."""

    def require(self, schema: EntitySchema, env: str) -> None:
        """Raise if a dataset's episodes could not have been played with a schema.

        Raises:
            ValueError: The dataset, and what differs.
        """
        for path, recorded in self.schemas.items():
            found = list(differences(recorded, schema, "recorded with"))
            for mine, theirs in zip(recorded.entity_types, schema.entity_types, strict=False):
                if mine.name == theirs.name and mine.max_count != theirs.max_count:
                    found.append(f"entity type {mine.name!r}, slots: got {theirs.max_count}, recorded with {mine.max_count}")
            if found:
                raise ValueError(
                    f"dataset {path}: the environment {env!r} has another schema: {'; '.join(found)}. Train in the "
                    "environment in which it was recorded, or collect another one"
                )


def take_recordings(config: AlgorithmConfig) -> Recordings:
    """Find the datasets of an offline config, and give it their spaces, which RLlib wants to know.

    Raises:
        ValueError: If a dataset is not there or not whole, or the config reads its input in another way.
    """
    if config.is_multi_agent:
        raise ValueError(
            "offline_data: got a multi-agent config, expected a squad's: episodes of separate agents are not recorded"
        )
    if not config.is_offline or not (
        isinstance(config.offline_data_class, type) and issubclass(config.offline_data_class, RecordedEpisodes)
    ):
        raise ValueError(
            f"offline_data: got input_={config.input_!r}, offline_data_class={config.offline_data_class}, expected the "
            "folder of a dataset, which `perceiver-rl collect` makes, and RecordedEpisodes"
        )
    paths = [str(Path(path).resolve()) for path in _paths(config)]  # a learner's process may have another folder
    schemas = {path: read_description(given).schema for path, given in zip(paths, _paths(config), strict=True)}
    schema = schemas[paths[0]]
    config.offline_data(input_=paths)
    config.environment(observation_space=schema.observation_space, action_space=schema.action_space)
    return Recordings(schemas)


def _paths(config: AlgorithmConfig) -> Sequence[str]:
    return [config.input_] if isinstance(config.input_, str) else config.input_
