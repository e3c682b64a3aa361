"""The order in which steps are drawn from datasets, and what is refused before anything is drawn."""

from collections import Counter
from dataclasses import replace
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
from ray.rllib.algorithms.bc import BCConfig
from ray.rllib.core.columns import Columns
from ray.rllib.utils import flatten_dict, unflatten_dict
from ray.rllib.utils.minibatch_utils import MiniBatchRayDataIterator

from perceiver_rl.dataset import read_steps
from perceiver_rl.entities import EntityType, Feature
from perceiver_rl.rllib import RecordedEpisodes, SquadBCLearner
from perceiver_rl.rllib.recorded_episodes import ShuffledSteps, take_recordings
from tests.environments import COURIERS
from tests.rllib.imitation import make_config

SIZE = 97


def _marks(batch: dict[str, object]) -> list[bytes]:
    """What tells the steps of a batch apart."""
    return [row.numpy().tobytes() for row in batch[Columns.OBS]["entities/post"]]


def _draw(steps: ShuffledSteps, count: int, size: int = SIZE) -> list[bytes]:
    return [mark for batch in islice(steps.batches(size), count) for mark in _marks(batch)]


def test_steps__come_once_an_epoch_each_time_in_another_order(expert_couriers: Path) -> None:
    total = len(read_steps([expert_couriers]))
    drawn = _draw(ShuffledSteps((str(expert_couriers),), 0.5, seed=1), 2 * total // SIZE + 1)
    first, second = drawn[:total], drawn[total : 2 * total]
    assert max(Counter(first).values()) == 1
    assert Counter(first) == Counter(second)
    assert first != second


def test_steps__are_drawn_by_the_seed_alone(expert_couriers: Path) -> None:
    paths = (str(expert_couriers),)
    assert _draw(ShuffledSteps(paths, 0.5, seed=1), 3) == _draw(ShuffledSteps(paths, 0.5, seed=1), 3)
    assert _draw(ShuffledSteps(paths, 0.5, seed=1), 3) != _draw(ShuffledSteps(paths, 0.5, seed=2), 3)


def test_steps__keep_their_actions_and_returns(expert_couriers: Path) -> None:
    recorded = read_steps([expert_couriers])
    returns = recorded.returns(0.5)
    by_mark = {posts.tobytes(): index for index, posts in enumerate(recorded.observations["entities/post"])}
    batch = next(ShuffledSteps((str(expert_couriers),), 0.5, seed=1).batches(SIZE))
    rows = [by_mark[mark] for mark in _marks(batch)]
    np.testing.assert_array_equal(batch[Columns.ACTIONS], recorded.actions[rows])
    np.testing.assert_array_equal(batch[Columns.VALUE_TARGETS], returns[rows])
    np.testing.assert_array_equal(batch[Columns.OBS]["action_mask"], recorded.observations["action_mask"][rows])


def test_steps__of_several_learners_are_the_parts_of_one_batch(expert_couriers: Path) -> None:
    paths = (str(expert_couriers),)
    whole = [_marks(batch) for batch in islice(ShuffledSteps(paths, 0.5, seed=1).batches(3 * 10), 4)]
    shards = [
        [_marks(batch) for batch in islice(ShuffledSteps(paths, 0.5, 1, shard, num_shards=3).batches(10), 4)]
        for shard in range(3)
    ]
    assert whole == [[*one, *two, *three] for one, two, three in zip(*shards, strict=True)]


def test_sample__goes_on_where_a_run_was(expert_couriers: Path) -> None:
    config = make_config(SquadBCLearner, expert_couriers)
    size = config.train_batch_size_per_learner
    whole, resumed = RecordedEpisodes(config), RecordedEpisodes(config)
    batches = [whole.sample(size) for _ in range(4)]
    resumed.skip(3 * size)
    assert _marks(resumed.sample(size)["default_policy"]) == _marks(batches[3]["default_policy"])
    shards = resumed.sample(size, return_iterator=True, num_shards=2)
    assert [(each.shard, each.num_shards, each.start) for each in shards] == [(0, 2, 3), (1, 2, 3)]


def test_iterator__gives_learners_whole_observations(expert_couriers: Path) -> None:
    # What RLlib's learners do with it where there are several.
    shards = RecordedEpisodes(make_config(SquadBCLearner, expert_couriers)).sample(5, return_iterator=True, num_shards=2)
    minibatches = list(MiniBatchRayDataIterator(iterator=shards[1], device="cpu", minibatch_size=5, num_iters=3))
    assert [each.env_steps() for each in minibatches] == [5, 5, 5]
    for batch, expected in zip(minibatches, shards[1].batches(5), strict=False):
        assert batch["default_policy"][Columns.OBS].keys() == COURIERS.arrays.keys()
        assert _marks(batch["default_policy"]) == _marks(expected)


def test_rllibs_own_pipeline__takes_observations_apart() -> None:
    # Why datasets do not go through it: what `OfflinePreLearner` flattens, learners split at each slash.
    batch = {"default_policy": {Columns.OBS: {"entities/post": 1, "entity_mask/post": 2}}}
    assert unflatten_dict(flatten_dict(batch)) != batch


def test_recordings__name_what_differs_from_the_environment(expert_couriers: Path) -> None:
    recordings = take_recordings(make_config(SquadBCLearner, expert_couriers))
    recordings.require(COURIERS, "couriers")
    courier, post = COURIERS.entity_types
    renamed = replace(COURIERS, entity_types=(courier, EntityType("post", ("team", "colour"), max_count=5)))
    with pytest.raises(
        ValueError,
        match=r"dataset .*: the environment 'other' has another schema: entity type 'post', features: got team, colour, "
        r"recorded with team, brightness",
    ):
        recordings.require(renamed, "other")
    larger = replace(COURIERS, entity_types=(courier, replace(post, max_count=6)))
    with pytest.raises(ValueError, match=r"entity type 'post', slots: got 6, recorded with 5"):
        recordings.require(larger, "other")
    ranged = replace(COURIERS, entity_types=(EntityType("courier", (Feature("team", 0, 7),), max_count=4), post))
    with pytest.raises(ValueError, match=r"range of a feature"):
        recordings.require(ranged, "other")


def test_take_recordings__tells_rllib_the_spaces_and_whole_paths(
    expert_couriers: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(expert_couriers.parent)
    config = make_config(SquadBCLearner, Path(expert_couriers.name))
    assert config.input_ == [str(expert_couriers)]
    assert config.observation_space == COURIERS.observation_space
    assert config.action_space == COURIERS.action_space


def test_take_recordings__refuses_other_inputs() -> None:
    with pytest.raises(ValueError, match=r"got input_='sampler', .* expected the folder of a dataset"):
        take_recordings(BCConfig())
    with pytest.raises(ValueError, match=r"expected the folder of a dataset, .* and RecordedEpisodes"):
        take_recordings(BCConfig().offline_data(input_="somewhere"))
    with pytest.raises(ValueError, match=r"dataset nowhere: does not exist; .*`perceiver-rl collect"):
        take_recordings(BCConfig().offline_data(input_="nowhere", offline_data_class=RecordedEpisodes))
    config = BCConfig().offline_data(input_="nowhere", offline_data_class=RecordedEpisodes)
    with pytest.raises(ValueError, match=r"got a multi-agent config, expected a squad's"):
        take_recordings(config.multi_agent(policies={"one"}, policy_mapping_fn=lambda *args, **kwargs: "one"))
