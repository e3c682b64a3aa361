import dataclasses
from typing import Any

import numpy as np
import pytest
import torch

from perceiver_rl.entities import EntitySchema, EntityType
from perceiver_rl.evaluation.agent import PolicyAgent
from perceiver_rl.evaluation.rollout import evaluate
from perceiver_rl.replay import Episode, read_page, record
from perceiver_rl.replay.page import make_page
from perceiver_rl.replay.recorder import think
from perceiver_rl.scene import Look, Scene
from tests.replay.duels import DUEL, NASTIER, NASTY, NUM_LATENTS, DuelVectorEnv, make_policy, record_duels

CONTROLS = pytest.mark.parametrize("control", ["centralized", "decentralized"])
KINDS = pytest.mark.parametrize(
    ("control", "encoder"), [("centralized", "perceiver"), ("decentralized", "perceiver"), ("decentralized", "transformer")]
)


def arrays_of(episode: Episode) -> dict[str, Any]:
    return {key: value for key, value in vars(episode).items() if isinstance(value, np.ndarray)} | episode.features


@KINDS
def test_record__keeps_every_step_and_the_last_frame(control: Any, encoder: str) -> None:
    recording = record_duels(control, encoder)
    assert [episode.length for episode in recording.episodes] == [4, 5]
    for episode in recording.episodes:
        steps, memory = episode.length, NUM_LATENTS if encoder == "perceiver" else 8
        assert episode.features["knight"].shape == (steps + 1, 3, 6)
        assert episode.entity_mask.shape == (steps + 1, 7)
        assert episode.globals[:, 0].tolist() == list(range(steps + 1))
        assert episode.legal.shape == episode.probabilities.shape == (steps, 3, 6)
        assert episode.value.shape == (steps,)
        assert episode.actors_to_memory.shape == (steps, 3, memory)
        if encoder == "perceiver":
            readers = 3 if control == "decentralized" else 1
            assert episode.latents_to_tokens is not None
            assert episode.latents_to_tokens.shape == (steps, readers, NUM_LATENTS, 8)
        else:
            assert episode.latents_to_tokens is None
        assert (episode.visibility is None) == (control == "centralized")
        assert episode.won is True
        assert episode.info == {"score": steps * 1.5}


@KINDS
def test_record__probabilities_sum_to_one_over_legal_options(control: Any, encoder: str) -> None:
    for episode in record_duels(control, encoder).episodes:
        assert (episode.probabilities[~episode.legal] == 0).all()
        present = episode.legal.any(axis=2)
        assert not present[2, 0]
        assert present.sum() == present.size - 1
        np.testing.assert_allclose(episode.probabilities.astype(float).sum(axis=2), present, atol=2e-3)
        chosen = np.take_along_axis(episode.legal, episode.options[..., None].astype(int), axis=2)[..., 0]
        assert chosen[present].all()


@KINDS
def test_record__attention_sums_to_one_over_what_may_be_read(control: Any, encoder: str) -> None:
    for episode in record_duels(control, encoder).episodes:
        present = episode.legal.any(axis=2)
        composed = episode.actors_to_tokens()
        np.testing.assert_allclose(episode.actors_to_memory.astype(float).sum(axis=2), present, atol=4e-3)
        np.testing.assert_allclose(composed.sum(axis=2), present, atol=8e-3)
        readable = np.broadcast_to(episode.entity_mask[:-1, None], (episode.length, 3, 7))
        if episode.visibility is not None:
            readable = readable & episode.visibility[:-1]
        assert (composed[..., :7][~readable] == 0).all()
        assert (composed[..., :7].std(axis=2) > 0.02).any(), "attention that is uniform would show nothing"


def test_think__attention_is_that_of_the_actors_own_queries() -> None:
    env = DuelVectorEnv(2)
    policy = make_policy(env.schema)
    observation, _ = env.reset(seed=1)
    before = think(policy, observation, greedy=True).arrays["actors_to_memory"]
    with torch.no_grad():  # the value's query comes before the actors' and is another one
        policy.queries.parts["value"].queries.add_(1.0)
    np.testing.assert_array_equal(think(policy, observation, greedy=True).arrays["actors_to_memory"], before)
    observation["entities/knight"][:, 1, 0] = 9.0
    after = think(policy, observation, greedy=True).arrays["actors_to_memory"]
    changed = np.abs(after.astype(float) - before).max(axis=(0, 2))
    assert changed.argmax() == 1


@CONTROLS
@pytest.mark.parametrize("greedy", [True, False])
def test_record__plays_the_episodes_that_evaluate_plays(control: Any, greedy: bool) -> None:
    recording = record_duels(control, greedy=greedy)
    env = DuelVectorEnv(2, control)
    records = evaluate(PolicyAgent(make_policy(env.schema)), env, episodes_per_env=1, seed=7, greedy=greedy)
    assert [episode.total_reward for episode in recording.episodes] == pytest.approx([each.total_reward for each in records])
    assert [episode.length for episode in recording.episodes] == [each.length for each in records]


def test_record__tells_the_step_of_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    step = DuelVectorEnv.step

    def broken(env: DuelVectorEnv, actions: Any) -> Any:
        observation, reward, *others = step(env, actions)
        return observation, np.where(env._time == 2, np.nan, reward), *others

    monkeypatch.setattr(DuelVectorEnv, "step", broken)
    with pytest.raises(ValueError, match="reward: got nan, expected finite numbers") as caught:
        record_duels()
    assert caught.value.__notes__ == [f"in step 2 of a replay in 2 environments of duel {NASTIER}"]


def test_record__same_seed_same_page_and_another_seed_another() -> None:
    assert make_page(record_duels(seed=7)) == make_page(record_duels(seed=7))
    assert make_page(record_duels(seed=7)) != make_page(record_duels(seed=8))


@KINDS
def test_page__gives_back_the_recording(control: Any, encoder: str) -> None:
    recording = record_duels(control, encoder)
    again = read_page(make_page(recording))
    assert dataclasses.replace(again, episodes=()) == dataclasses.replace(recording, episodes=())
    for mine, theirs in zip(recording.episodes, again.episodes, strict=True):
        assert arrays_of(mine).keys() == arrays_of(theirs).keys()
        for key, array in arrays_of(mine).items():
            np.testing.assert_array_equal(arrays_of(theirs)[key], array)
        assert (theirs.name, theirs.won, theirs.info) == (mine.name, mine.won, mine.info)


def test_page__no_name_can_end_its_script() -> None:
    text = make_page(record_duels())
    assert text.count("</script>") == 3, "those of the page itself"
    assert NASTY not in text
    assert read_page(text).schema.verbs[1] == NASTIER


def test_read_page__names_what_it_cannot_read() -> None:
    with pytest.raises(ValueError, match="without a recording"):
        read_page("<p>hello</p>")
    other = make_page(record_duels()).replace('{"format":2', '{"format":99')
    with pytest.raises(ValueError, match="got format 99, expected 2"):
        read_page(other)


def test_scene__is_told_by_the_usual_names() -> None:
    scene = Scene.of(DUEL)
    assert scene.looks["knight"] == Look("own", ("x", "y"), "health", "cooldown", ("is_lancer", "is_archer"))
    assert scene.looks[NASTY] == Look("other", ("x", "y"), "health", "cooldown")


def test_scene__puts_actors_at_the_origin_where_others_are_told_relative_to_them() -> None:
    own, prey = EntityType("own", ("x", "y", "vx"), 1), EntityType("prey", ("dx", "dy"), 2)
    scene = Scene.of(EntitySchema((own, prey), ("own",), ("stay",)))
    assert (scene.looks["own"].position, scene.looks["prey"].position) == ("origin", ("dx", "dy"))


def test_record__uses_the_scene_that_the_environment_declares() -> None:
    env = DuelVectorEnv(1)
    scene = Scene.of(env.schema).with_look("knight", health="cooldown")
    env.metadata["scene"] = scene
    recording = record(make_policy(env.schema), env, env_name="duel", policy_name="fresh", seed=0, greedy=True)
    assert recording.scene is scene
    env.metadata["scene"] = scene.with_look("knight", health="armour")
    with pytest.raises(ValueError, match="got unknown feature 'armour', known are health, cooldown"):
        record(make_policy(env.schema), env, env_name="duel", policy_name="fresh", seed=0, greedy=True)
