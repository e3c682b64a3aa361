"""What an evaluation writes for TensorBoard, read back from the event file."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import api_pb2, metadata, plugin_data_pb2

from perceiver_rl.evaluation import log_summaries
from tests.evaluation.test_report import GREEDY, NO_WINS, SAMPLED
from tests.replay.duels import DUEL, NUM_LATENTS, make_policy

SQUAD = replace(
    GREEDY,
    outcomes={"damage_dealt": 4.5, "allies_left": 3.1, "return_per_agent": 0.25},
    units={"stalker": {"units": 2048.0, "kills": 1.25}, "zealot": {"units": 3072.0, "kills": 0.5, "survived": 0.75}},
    return_low=1.8,
    return_high=2.0,
    checkpoint="2s3z/checkpoint_0000001000",
    env_config={"walls": True},
    versions={"torch": "2.13"},
)


def events_in(folder: Path) -> EventAccumulator:
    events = EventAccumulator(str(folder))
    events.Reload()
    return events


def text(events: EventAccumulator, tag: str) -> str:
    return events.Tensors(f"{tag}/text_summary")[-1].tensor_proto.string_val[0].decode()


def scalars_in(folder: Path) -> dict[str, list[tuple[int, float]]]:
    events = events_in(folder)
    return {
        tag: [(event.step, pytest.approx(event.value, abs=1e-6)) for event in events.Scalars(tag)]
        for tag in events.Tags()["scalars"]
    }


def test_log_summaries__makes_a_curve_over_checkpoints(tmp_path: Path) -> None:
    log_summaries(tmp_path, [GREEDY, SAMPLED], env_steps=1000)
    log_summaries(tmp_path, [replace(GREEDY, win_rate=0.0)], env_steps=2000)
    scalars = scalars_in(tmp_path / "evaluation" / "smax_2s3z")
    assert scalars["evaluation/greedy/win_rate"] == [(1000, 0.953), (2000, 0.0)]
    assert scalars["evaluation/sampled/win_rate"] == [(1000, 0.5)]
    assert scalars["evaluation/greedy/episode_length"] == [(1000, 33.34), (2000, 33.34)]
    assert set(scalars) == {
        f"evaluation/{mode}/{name}"
        for mode in ("greedy", "sampled")
        for name in ("win_rate", "win_rate_low", "win_rate_high", "return", "episode_length", "units_left")
    }


def test_log_summaries__leaves_out_what_is_unknown_and_keeps_environments_apart(tmp_path: Path) -> None:
    log_summaries(tmp_path, [GREEDY, NO_WINS], env_steps=1000)
    assert set(scalars_in(tmp_path / "evaluation" / "mpe_spread")) == {
        "evaluation/greedy/return",
        "evaluation/greedy/episode_length",
    }
    assert "evaluation/greedy/win_rate" in scalars_in(tmp_path / "evaluation" / "smax_2s3z")


def test_log_summaries__refuses_two_of_one_environment_and_mode(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"got greedy in smax/2s3z, greedy in smax/2s3z, expected at most one"):
        log_summaries(tmp_path, [GREEDY, replace(GREEDY, policy="random")], env_steps=1000)


def test_log_summaries__has_outcomes_and_units_by_kind_in_groups_of_their_own(tmp_path: Path) -> None:
    log_summaries(tmp_path, [SQUAD, replace(SQUAD, mode="sampled", units={}, outcomes={})], env_steps=1000)
    scalars = scalars_in(tmp_path / "evaluation" / "smax_2s3z")
    apart = {tag: points for tag, points in scalars.items() if not tag.startswith("evaluation/")}
    assert apart == {
        "evaluation_outcomes/greedy/damage_dealt": [(1000, 4.5)],
        "evaluation_units/greedy/stalker/kills": [(1000, 1.25)],
        "evaluation_units/greedy/zealot/kills": [(1000, 0.5)],
        "evaluation_units/greedy/zealot/survived": [(1000, 0.75)],
    }
    assert scalars["evaluation/sampled/return_low"] == [(1000, 1.8)]
    assert scalars["evaluation/sampled/return_high"] == [(1000, 2.0)]


def test_log_summaries__tells_what_was_evaluated_model_and_schema_as_text(tmp_path: Path) -> None:
    policies = {"smax/2s3z": {"default_policy": make_policy(DUEL)}}
    log_summaries(tmp_path, [SQUAD, replace(SQUAD, mode="sampled", episodes=64)], 1000, policies)
    events = events_in(tmp_path / "evaluation" / "smax_2s3z")
    settings = text(events, "evaluation/settings")
    for line in ("| checkpoint | 2s3z/checkpoint_0000001000 |", "| episodes | 1,024 greedy, 64 sampled |"):
        assert line in settings
    assert "| its options | {'walls': True} |" in settings
    assert "| version of torch | 2.13 |" in settings
    assert f"| perceiver.num_latents | {NUM_LATENTS} |" in text(events, "evaluation/model")
    assert "health [0, 1]" in text(events, "evaluation/schema")


def test_log_summaries__tells_each_of_several_policies(tmp_path: Path) -> None:
    policies = {"smax/2s3z": {"cook": make_policy(DUEL), "waiter": make_policy(DUEL, "transformer")}}
    log_summaries(tmp_path, [SQUAD], 1000, policies)
    events = events_in(tmp_path / "evaluation" / "smax_2s3z")
    assert "| encoder | perceiver |" in text(events, "evaluation/model/cook")
    assert "| encoder | transformer |" in text(events, "evaluation/model/waiter")
    assert "evaluation/schema/waiter/text_summary" in events.Tags()["tensors"]


def test_log_summaries__alone_is_a_row_of_hyper_parameters_with_its_scalars_as_metrics(tmp_path: Path) -> None:
    policies = {"smax/2s3z": {"default_policy": make_policy(DUEL)}}
    log_summaries(tmp_path, [SQUAD, SAMPLED], 1000, policies, alone=True)
    events = events_in(tmp_path / "evaluation" / "smax_2s3z")
    contents = events.PluginTagToContent("hparams")
    start = metadata.parse_session_start_info_plugin_data(contents[metadata.SESSION_START_INFO_TAG])
    assert start.hparams["evaluation/policy"].string_value == "perceiver"
    assert start.hparams["latents"].number_value == NUM_LATENTS
    assert start.hparams["total_env_steps"].number_value == 1000
    experiment = metadata.parse_experiment_plugin_data(contents[metadata.EXPERIMENT_TAG])
    assert {each.name for each in experiment.hparam_infos} == set(start.hparams)
    metrics = {each.name.tag: events.Scalars(each.name.tag)[-1].value for each in experiment.metric_infos}
    assert metrics == pytest.approx(
        {
            f"evaluation/{mode}/{name}": value
            for mode, win_rate in (("greedy", 0.953), ("sampled", 0.5))
            for name, value in (("win_rate", win_rate), ("return", 1.912), ("episode_length", 33.34))
        }
    )
    end = plugin_data_pb2.HParamsPluginData.FromString(contents[metadata.SESSION_END_INFO_TAG])
    assert end.session_end_info.status == api_pb2.STATUS_SUCCESS


def test_log_summaries__beside_a_training_run_is_no_row_of_hyper_parameters(tmp_path: Path) -> None:
    log_summaries(tmp_path, [SQUAD], 1000, {"smax/2s3z": {"default_policy": make_policy(DUEL)}})
    events = events_in(tmp_path / "evaluation" / "smax_2s3z")
    assert not any(events.SummaryMetadata(tag).plugin_data.plugin_name == "hparams" for tag in events.Tags()["tensors"])
