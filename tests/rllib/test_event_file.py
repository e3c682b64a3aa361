"""What a run writes for TensorBoard, without training."""

from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from perceiver_rl.entities import EntitySchema
from perceiver_rl.rllib.recorder import PreparedRun, Progress, Recorder
from perceiver_rl.rllib.run_folder import RunFolder, RunSettings
from perceiver_rl.rllib.training import build_config
from tests.environments import COURIERS
from tests.parallel_environments import COURIER, PORTER

NUMBERS = {
    "outcome/return": 1.5,
    "outcome/episode_length": 2.5,
    "policy/entropy_per_actor": 0.7,
    "value/explained_variance": 0.1,
    "actions/wait": 0.25,
    "actions/deliver": 0.75,
}


def record(
    folder: Path, config: str, schemas: dict[str, EntitySchema], numbers: dict[str, float], *, complete: bool = True
) -> EventAccumulator:
    """One iteration of a run, and what TensorBoard reads of it."""
    settings = RunSettings(config, env=None, seed=3, total_env_steps=64, overrides=("training.minibatch_size=96",))
    agents = {} if len(schemas) == 1 else {f"{module}_0": module for module in schemas}
    run = PreparedRun(settings, RunFolder(folder), build_config(settings), schemas, agents, None)
    folder.mkdir(exist_ok=True)
    recorder = Recorder(run, print)
    with recorder.open_log(0) as writer:
        recorder.log(writer, Progress(64, 64, seconds=2.0, env_steps_per_second=32.0, numbers=numbers))
        if complete:
            recorder.finish(writer)
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def text(events: EventAccumulator, tag: str) -> str:
    return events.Tensors(f"{tag}/text_summary")[0].tensor_proto.string_val[0].decode()


@pytest.fixture(scope="module")
def events(tmp_path_factory: pytest.TempPathFactory) -> EventAccumulator:
    folder = tmp_path_factory.mktemp("runs") / "couriers"
    return record(folder, "tests/courier_config.py", {"default_policy": COURIERS}, NUMBERS)


def test_text__tells_schema_model_and_what_differs_from_defaults(events: EventAccumulator) -> None:
    schema = text(events, "run/schema")
    assert "| courier | 4 | yes | team [-1, 1] |" in schema
    assert "| post | 5 | no | team [-1, 1], brightness [-1, 1] |" in schema
    assert "| deliver | post |" in schema
    model = text(events, "run/model")
    assert "| encoder | perceiver |" in model
    assert "| perceiver.num_latents | " in model
    assert "transformer." not in model
    settings = text(events, "run/settings")
    assert "| overrides | training.minibatch_size=96 |" in settings
    assert "| minibatch_size | 96 |" in settings
    assert "| num_epochs | 1 |" in settings
    assert "| gamma |" not in settings, "it is RLlib's default"


def test_hyper_parameters__stand_in_the_run_of_the_scalars_that_are_their_metrics(events: EventAccumulator) -> None:
    contents = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["encoder"].string_value == "perceiver"
    assert start.hparams["env"].string_value == "tests.environments:make_couriers"
    assert start.hparams["learning_rate"].number_value == pytest.approx(1e-3)
    assert start.hparams["latents"].number_value > 0
    assert start.hparams["seed"].number_value == 3
    assert start.hparams["training/minibatch_size"].number_value == 96
    experiment = metadata.parse_experiment_plugin_data(contents[metadata.EXPERIMENT_TAG])
    assert {each.name for each in experiment.hparam_infos} == set(start.hparams)
    metrics = [each.name.tag for each in experiment.metric_infos]
    assert metrics[0] == "outcome/win_rate"
    # Couriers know nothing of winning.
    values = {tag: events.Scalars(tag)[-1].value for tag in metrics[1:]}
    assert values == pytest.approx({tag: NUMBERS.get(tag, 32.0) for tag in metrics[1:]})
    end = plugin_data_pb2.HParamsPluginData.FromString(contents[metadata.SESSION_END_INFO_TAG]).session_end_info
    assert end.status == api_pb2.STATUS_SUCCESS


def test_hyper_parameters__session_of_an_interrupted_run_is_open(tmp_path: Path) -> None:
    schemas = {"default_policy": COURIERS}
    events = record(tmp_path / "run", "tests/courier_config.py", schemas, NUMBERS, complete=False)
    assert metadata.SESSION_END_INFO_TAG not in events.PluginTagToContent("hparams")


def test_verbs__are_a_histogram_whose_description_names_the_bins(events: EventAccumulator) -> None:
    (histogram,) = events.Histograms("actions/verbs")
    assert histogram.step == 64
    assert histogram.histogram_value.bucket_limit == [0.5, 1.5]
    assert histogram.histogram_value.bucket == [25.0, 75.0]
    assert events.SummaryMetadata("actions/verbs").summary_description == "Percent of choices: 0 = wait, 1 = deliver"


def test_several_policies__have_a_text_a_model_and_a_histogram_each(tmp_path: Path) -> None:
    numbers = {"actions/wait/courier": 1.0, "actions/deliver/courier": 0.0, "actions/wait/porter": 0.5}
    numbers["actions/deliver/porter"] = 0.5
    schemas = {"courier": COURIER, "porter": PORTER}
    events = record(tmp_path / "run", "tests/deliveries_config.py", schemas, numbers)
    assert "strength" in text(events, "run/schema/porter")
    assert "strength" not in text(events, "run/schema/courier")
    assert events.Histograms("actions/verbs/courier")[0].histogram_value.bucket == [100.0, 0.0]
    assert events.Histograms("actions/verbs/porter")[0].histogram_value.bucket == [50.0, 50.0]
