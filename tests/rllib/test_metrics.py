"""RLlib's result as a table: figures of a learner of one's own."""

from perceiver_rl.rllib.metrics import flatten


def test_flatten__lists_auxiliary_figures_by_name_and_of_several_policies_by_policy() -> None:
    one = {"learners": {"default_policy": {"auxiliary": {"forecast_error": 0.25}}, "__all_modules__": {}}}
    assert flatten(one) == {"auxiliary/forecast_error": 0.25}
    two = {"learners": {name: {"auxiliary": {"forecast_error": error}} for name, error in (("home", 0.25), ("away", 0.5))}}
    assert flatten(two) == {"auxiliary/forecast_error/home": 0.25, "auxiliary/forecast_error/away": 0.5}
