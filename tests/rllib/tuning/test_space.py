"""The space of a search: what is written is read, what is drawn covers it, what is wrong is told."""

from __future__ import annotations

import math

import pytest

from perceiver_rl.rllib.config_file import literal
from perceiver_rl.rllib.tuning.space import Choice, Interval, assignments, draw, parse_parameters


def test_parse__reads_every_distribution() -> None:
    texts = [
        "training.lr=loguniform:1e-4:3e-3",
        "training.gamma=uniform:0.9:1",
        "training.num_epochs=int:1:8",
        "training.minibatch_size=logint:128:2048",
        "model.encoder=choice:perceiver,transformer",
        "training.entropy_coeff=choice:0,0.003,[[0, 0.01], [100, 0.0]]",
    ]
    parameters = parse_parameters(texts)
    assert [each.name for each in parameters] == [text.partition("=")[0] for text in texts]
    assert [each.values for each in parameters] == [
        Interval(1e-4, 3e-3, log=True, whole=False),
        Interval(0.9, 1, log=False, whole=False),
        Interval(1, 8, log=False, whole=True),
        Interval(128, 2048, log=True, whole=True),
        Choice(("perceiver", "transformer")),
        Choice((0, 0.003, [[0, 0.01], [100, 0.0]])),
    ]


def test_draw__covers_each_parameter_evenly() -> None:
    parameters = parse_parameters(["a.x=loguniform:1e-4:1", "a.k=int:1:4", "a.c=choice:p,q"])
    points = draw(parameters, samples=8, seed=3)
    # Four decades, eight points: two in each, and each integer and each choice as often as the others.
    assert sorted(math.floor(math.log10(point["a.x"])) for point in points) == [-4, -4, -3, -3, -2, -2, -1, -1]
    assert sorted(point["a.k"] for point in points) == [1, 1, 2, 2, 3, 3, 4, 4]
    assert sorted(point["a.c"] for point in points) == ["p"] * 4 + ["q"] * 4
    assert points == draw(parameters, samples=8, seed=3)
    assert points != draw(parameters, samples=8, seed=4)


def test_draw__stays_between_the_bounds() -> None:
    for kind in ("uniform:0.12345678:0.12345679", "loguniform:1e-9:3", "int:-2:5", "logint:1:1000"):
        (parameter,) = parse_parameters([f"a.x={kind}"])
        assert isinstance(parameter.values, Interval)
        values = [parameter.values.at(i / 1000) for i in range(1000)]
        assert parameter.values.low <= min(values) <= max(values) <= parameter.values.high
        assert all(isinstance(value, int) == ("int" in kind) for value in values)


def test_assignments__are_read_back_as_they_were() -> None:
    point = {"training.lr": 3e-4, "model.encoder": "perceiver", "a.word": "1", "a.flag": True, "a.list": [[0, 1e-3]]}
    texts = assignments(point)
    assert texts[1] == "model.encoder=perceiver"
    assert [literal(text.partition("=")[2]) for text in texts] == list(point.values())


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("training.lr", r"expected SECTION\.KEY=DISTRIBUTION, e\.g\. training\.lr=loguniform:1e-4:3e-3"),
        ("lr=uniform:0:1", r"expected SECTION\.KEY=DISTRIBUTION"),
        (
            "training.lr=loguniforn:1:2",
            r"unknown distribution 'loguniforn' \(did you mean 'loguniform'\?\); known are choice",
        ),
        ("training.lr=1e-3", r"unknown distribution '1e-3'"),
        ("training.lr=uniform", r"got uniform without values, expected e\.g\. uniform:0\.9:0\.99"),
        ("training.lr=uniform:0", r"got '0', expected two numbers"),
        ("training.lr=uniform:0:high", r"got '0:high', expected two numbers"),
        ("training.lr=uniform:0:True", r"expected two numbers"),
        ("training.lr=uniform:1:0", r"got 1 and 0, expected the lower one first"),
        ("training.lr=uniform:1:1", r"got 1 and 1, expected the lower one first, and two that differ"),
        ("training.lr=loguniform:0:1", r"got a lower bound of 0, expected one above 0, which has a logarithm"),
        ("training.num_epochs=int:1:2.5", r"got '1:2\.5', expected two integers"),
        ("training.lr=choice:1e-3", r"got \[0\.001\], expected at least two values"),
        ("training.lr=choice:1,", r"expected at least two values"),
        ("training.lr=choice:1,1", r"got a value twice"),
    ],
)
def test_parse__says_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=f"--param .*{message}"):
        parse_parameters([text])


def test_parse__refuses_two_about_one_setting() -> None:
    with pytest.raises(ValueError, match=r"--param training\.lr: got the same setting as --param training\.lr\.0\.1"):
        parse_parameters(["training.lr.0.1=uniform:0:1", "training.lr=uniform:0:1"])
    with pytest.raises(ValueError, match=r"--param training\.lr: got the same setting as --set training\.lr"):
        parse_parameters(["training.lr=uniform:0:1"], fixed=["training.lr=1"])
    assert len(parse_parameters(["training.lr=uniform:0:1", "training.lr_x=uniform:0:1"])) == 2
    with pytest.raises(ValueError, match="--param: got none"):
        parse_parameters([])
