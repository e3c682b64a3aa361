from __future__ import annotations

import json
import os
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

import perceiver_rl
from perceiver_rl.bundle import LoadedPolicy, save_bundle
from perceiver_rl.bundle.format import MAX_SLOTS
from perceiver_rl.entities import EntitySchema, EntityType, Observation
from perceiver_rl.policy.entity_policy import EntityPolicy, EntityPolicyConfig
from tests.bundle.conftest import DECENTRALIZED, PROVENANCE, TINY, make_policy
from tests.schemas import SKIRMISH, observe, to_tensors

KINDS: dict[str, tuple[EntitySchema, EntityPolicyConfig]] = {
    "independent": (SKIRMISH, TINY),
    "transformer": (SKIRMISH, replace(TINY, encoder="transformer")),
    "sequential": (SKIRMISH, replace(TINY, joint="sequential")),
    "decentralized": (DECENTRALIZED, TINY),
    "privileged": (replace(SKIRMISH, privileged=("rock", "globals")), TINY),
}


def seen(schema: EntitySchema, batch: int, seed: int) -> Observation:
    """A random observation; under decentralized control everybody sees what is there."""
    if schema.control == "centralized":
        return observe(schema, batch, seed)
    observation = observe(replace(schema, control="centralized", relative=()), batch, seed)
    there = schema.entity_mask(observation)[:, None, :] & schema.actor_mask(observation)[..., None]
    return {**observation, "visibility": there}


@pytest.mark.parametrize("kind", KINDS)
def test_load_policy__chooses_as_the_policy_that_was_saved(kind: str, tmp_path: Path) -> None:
    schema, config = KINDS[kind]
    policy = make_policy(schema, config)
    save_bundle(tmp_path / "bundle", policy, PROVENANCE, onnx=False)
    loaded = perceiver_rl.load_policy(tmp_path / "bundle", seed=5)
    assert isinstance(loaded, LoadedPolicy)
    assert (loaded.schema, loaded.policy.config, loaded.provenance) == (schema, config, PROVENANCE)
    torch.testing.assert_close(dict(loaded.policy.state_dict()), dict(policy.state_dict()), rtol=0, atol=0)

    observation = seen(schema, 7, seed=1)
    with torch.no_grad():
        expected = policy.act(to_tensors(observation), greedy=True)[0].numpy()
        generator = torch.Generator().manual_seed(5)
        drawn = policy.act(to_tensors(observation), greedy=False, generator=generator)[0].numpy()
    actions = loaded.act(observation)
    assert actions.dtype == np.int64
    np.testing.assert_array_equal(actions, expected)
    assert len(np.unique(actions, axis=0)) > 2, "a policy that always does the same shows nothing"
    np.testing.assert_array_equal(loaded.act(observation, greedy=False), drawn)
    for number in range(7):
        one = {key: array[number] for key, array in observation.items()}
        chosen = loaded.act(one)
        assert chosen.shape == (schema.max_actors,)
        np.testing.assert_array_equal(chosen, expected[number])
        schema.check_action(one, chosen)


def test_act__says_what_is_wrong_with_an_observation(original: Path) -> None:
    loaded = perceiver_rl.load_policy(original)
    observation = observe(SKIRMISH, 3, seed=0)
    observation["entities/marine"][1, 0, 2] = np.nan
    with pytest.raises(ValueError, match=r"'marine', feature 'y', entity 0 of batch entry 1: got nan"):
        loaded.act(observation)
    one = {key: array[0] for key, array in observation.items()}
    with pytest.raises(ValueError, match=r"observation keys: missing \['action_mask'\]"):
        loaded.act({key: array for key, array in one.items() if key != "action_mask"})
    with pytest.raises(ValueError, match=r"observation\['globals'\]: got float64 array of shape \[1\]"):
        loaded.act({**one, "globals": one["globals"].astype(np.float64)})


def test_load_policy__has_provenance_and_evaluation(original: Path) -> None:
    loaded = perceiver_rl.load_policy(original)
    assert loaded.provenance == PROVENANCE
    assert loaded.evaluation == ({"win_rate": 0.5},)
    record = json.loads((original / "policy.json").read_text())
    assert record["format"] == 1
    assert record["versions"]["torch"] == torch.__version__
    assert {each.name for each in original.iterdir()} == {"policy.json", "policy.safetensors"}


def test_load_policy__leaves_the_global_generator_alone(original: Path) -> None:
    before = torch.get_rng_state()
    perceiver_rl.load_policy(original)
    assert torch.equal(before, torch.get_rng_state())


def test_for_schema__has_other_numbers_of_slots_and_says_what_else_differs(original: Path) -> None:
    loaded = perceiver_rl.load_policy(original)
    marine, *others = SKIRMISH.entity_types
    larger = replace(SKIRMISH, entity_types=(EntityType("marine", marine.features, 9), *others))
    policy = loaded.for_schema(larger)
    assert isinstance(policy, EntityPolicy)
    assert policy.schema == larger
    assert not policy.training
    torch.testing.assert_close(dict(policy.state_dict()), dict(loaded.policy.state_dict()), rtol=0, atol=0)
    with pytest.raises(ValueError, match=r"bundle .*, trained in 'smax/2s3z': .* verbs: got stop, trained with stop, north"):
        loaded.for_schema(replace(SKIRMISH, verbs=("stop",)))


def test_for_schema__refuses_more_at_once_than_a_machine_can_be_expected_to_do(original: Path) -> None:
    loaded = perceiver_rl.load_policy(original)
    assert loaded.for_schema(SKIRMISH, rows=100_000) is loaded.policy
    with pytest.raises(ValueError, match=r"bundle .*, on 10,000,000 observations at once: .* one pass.*: got .* at most"):
        loaded.for_schema(SKIRMISH, rows=10_000_000)
    crowd = replace(SKIRMISH, entity_types=tuple(replace(each, max_count=1_000) for each in SKIRMISH.entity_types))
    assert loaded.for_schema(crowd).schema == crowd
    with pytest.raises(
        ValueError, match=r"numbers that one pass is given: got .*, expected at most 268,435,456 in a bundle"
    ):
        loaded.for_schema(crowd, rows=100)


def test_save_bundle__counts_the_views_of_decentralized_control(tmp_path: Path) -> None:
    many = replace(SKIRMISH, entity_types=tuple(replace(each, max_count=1_500) for each in SKIRMISH.entity_types))
    save_bundle(tmp_path / "centralized", make_policy(many), PROVENANCE, onnx=False)
    each_for_itself = replace(many, control="decentralized", relative=DECENTRALIZED.relative)
    with pytest.raises(ValueError, match=r"in one pass: got .*, expected at most 268,435,456 in a bundle"):
        save_bundle(tmp_path / "decentralized", make_policy(each_for_itself), PROVENANCE, onnx=False)


PROGRAM = """
import pickle, sys
import numpy as np
import torch
import perceiver_rl
def refuse(*args, **kwargs):
    print("unpickled")
    raise AssertionError
pickle.load = pickle.loads = torch.load = refuse
loaded = perceiver_rl.load_policy(sys.argv[1])
schema = loaded.schema
actions = loaded.act({key: np.zeros(shape, dtype) for key, (shape, dtype) in schema.arrays.items()})
assert not actions.any()
assert "ray" not in sys.modules
assert not {"envs", "agents", "configs", "rllib"} & {name.split(".")[0] for name in sys.modules}
"""


def test_load_policy__needs_neither_ray_nor_pickle(original: Path) -> None:
    done = subprocess.run([sys.executable, "-c", PROGRAM, str(original)], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, ""), done.stdout + done.stderr


def test_contract__needs_no_torch() -> None:
    program = "import sys, perceiver_rl.entities; assert 'torch' not in sys.modules"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


# -- writing -----------------------------------------------------------------------------------------------------


def test_save_bundle__lets_others_read_what_they_may_read_in_the_folder(tmp_path: Path) -> None:
    before = os.umask(0o022)
    try:
        save_bundle(tmp_path / "bundle", make_policy(), PROVENANCE, onnx=False)
    finally:
        os.umask(before)
    modes = {each.name: oct(each.stat().st_mode & 0o777) for each in (tmp_path / "bundle").iterdir()}
    assert modes == dict.fromkeys(("policy.safetensors", "policy.json"), oct(0o644))
    assert (tmp_path / "bundle").stat().st_mode & 0o777 == 0o755


def test_save_bundle__does_not_write_over_a_bundle_unless_forced(bundle: Path) -> None:
    before = (bundle / "policy.safetensors").read_bytes()
    other = make_policy(seed=1)
    with pytest.raises(ValueError, match="there is one already; choose another folder, or replace it by --force"):
        save_bundle(bundle, other, PROVENANCE, onnx=False)
    assert (bundle / "policy.safetensors").read_bytes() == before
    save_bundle(bundle, other, PROVENANCE, onnx=False, force=True)
    torch.testing.assert_close(
        dict(perceiver_rl.load_policy(bundle).policy.state_dict()), dict(other.state_dict()), rtol=0, atol=0
    )
    assert [each.name for each in bundle.parent.iterdir()] == ["bundle"], "nothing is left beside it"


@pytest.mark.parametrize("force", [False, True])
def test_save_bundle__never_replaces_what_is_no_bundle(bundle: Path, force: bool) -> None:
    (bundle / "thesis.tex").write_text("years of work")
    for path in (bundle, bundle / "thesis.tex"):
        with pytest.raises(
            ValueError, match="something that is not a bundle, or more than a bundle, which is never replaced"
        ):
            save_bundle(path, make_policy(), PROVENANCE, onnx=False, force=force)
    assert (bundle / "thesis.tex").read_text() == "years of work"


def test_save_bundle__leaves_nothing_where_it_fails(bundle: Path, tmp_path: Path) -> None:
    policy = make_policy()
    next(policy.parameters()).data[0] = float("nan")
    before = {each: each.read_bytes() for each in bundle.iterdir()}
    for path, force in ((tmp_path / "new", False), (bundle, True)):
        with pytest.raises(ValueError, match=r"tensor '.*': got \d+ numbers that are not finite .* training diverged"):
            save_bundle(path, policy, PROVENANCE, onnx=False, force=force)
    assert {each: each.read_bytes() for each in bundle.iterdir()} == before
    assert [each.name for each in tmp_path.iterdir()] == ["bundle"]


def test_save_bundle__refuses_what_it_would_not_load(tmp_path: Path) -> None:
    huge = replace(SKIRMISH, entity_types=(*SKIRMISH.entity_types, EntityType("sand", ("x",), MAX_SLOTS)))
    with pytest.raises(ValueError, match=r"slots of all entity types \(max_count\): got 65,552, expected at most 65,536"):
        save_bundle(tmp_path / "bundle", make_policy(huge), PROVENANCE, onnx=False)
    with pytest.raises(ValueError, match=r"got float64, expected float32; call policy.float\(\) first"):
        save_bundle(tmp_path / "bundle", make_policy().double(), PROVENANCE, onnx=False)
    assert not any(tmp_path.iterdir())


def test_save_bundle__refuses_what_it_has_no_code_for(tmp_path: Path) -> None:
    policy = EntityPolicy(SKIRMISH, TINY, {"forecast": (SKIRMISH.actors[0],)})
    with pytest.raises(ValueError, match="extra queries forecast, expected a plain EntityPolicy"):
        save_bundle(tmp_path / "bundle", policy, PROVENANCE, onnx=False)
    assert not (tmp_path / "bundle").exists()
