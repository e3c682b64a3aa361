import numpy as np

from perceiver_rl.verbs import count_verbs, shares, verb_names
from tests.schemas import SKIRMISH


def test_count_verbs__counts_a_verbs_targets_together_and_no_absent_actor() -> None:
    assert verb_names(SKIRMISH) == ("stop", "north", "attack", "heal", "stun")
    attack, heal, stun = SKIRMISH.target_slices
    options = np.array([[0, attack.start, attack.stop - 1], [0, heal.start, stun.stop - 1]])
    legal = np.ones((2, 3, SKIRMISH.num_options), bool)
    legal[1, 0] = False
    counts = count_verbs(SKIRMISH, options, legal)
    assert counts == {"stop": 1, "north": 0, "attack": 2, "heal": 1, "stun": 1}
    assert shares(counts)["attack"] == 2 / 5
    assert shares(dict.fromkeys(counts, 0)) == {}
