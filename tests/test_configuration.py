"""Nested mappings become typed configurations; whatever does not fit is named, with what would."""

import re
from dataclasses import dataclass, field
from typing import Any, Literal

import pytest

from perceiver_rl.configuration import from_mapping, to_mapping, unknown_name
from perceiver_rl.policy.entity_policy import EntityPolicyConfig


@dataclass(frozen=True)
class _Engine:
    power: float = 1.5
    cylinders: int = 4

    def __post_init__(self) -> None:
        if self.cylinders < 1:
            raise ValueError(f"cylinders: got {self.cylinders}, expected at least 1")


@dataclass(frozen=True)
class _Car:
    name: str = "car"
    engine: _Engine = field(default_factory=_Engine)
    fuel: Literal["petrol", "diesel"] = "petrol"
    towing: int | None = None
    electric: bool = False


def test_from_mapping__fills_in_nested_fields_and_keeps_defaults() -> None:
    car = from_mapping(_Car, {"engine": {"cylinders": 6}, "fuel": "diesel", "towing": 3}, "car")
    assert car == _Car(engine=_Engine(power=1.5, cylinders=6), fuel="diesel", towing=3)


def test_from_mapping__takes_a_ready_configuration_none_and_an_integer_for_a_float() -> None:
    engine = _Engine(power=2.0)
    assert from_mapping(_Car, {"engine": engine, "towing": None}, "car").engine is engine
    power = from_mapping(_Engine, {"power": 3}, "engine").power
    assert (power, type(power)) == (3.0, float)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"nmae": "x"}, "car: unknown key 'nmae' (did you mean 'name'?); known are name, engine, fuel, "),
        ({"zzz": 1}, "car: unknown key 'zzz'; known are name, engine, fuel, towing, electric"),
        (
            {"engine": {"powr": 1.0}},
            "car.engine: unknown key 'powr' (did you mean 'power'?); known are power, ",
        ),
        ({"engine": 6}, "car.engine: got 6, expected a mapping for _Engine"),
        ({"engine": {"cylinders": 4.0}}, "car.engine.cylinders: got 4.0 (float), expected int"),
        ({"engine": {"cylinders": True}}, "car.engine.cylinders: got True (bool), expected int"),
        ({"engine": {"power": False}}, "car.engine.power: got False (bool), expected float"),
        ({"engine": {"power": "3"}}, "car.engine.power: got '3' (str), expected float"),
        ({"engine": {"cylinders": 0}}, "car.engine: cylinders: got 0, expected at least 1"),
        ({"engine": None}, "car.engine: got None, expected a mapping for _Engine"),
        ({"fuel": "water"}, "car.fuel: got 'water', expected one of 'petrol', 'diesel'"),
        ({"towing": "a lot"}, "car.towing: got 'a lot' (str), expected int"),
        ({"electric": 1}, "car.electric: got 1 (int), expected bool"),
        ({"name": None}, "car.name: got None (NoneType), expected str"),
    ],
)
def test_from_mapping__says_where_what_and_what_would_fit(values: dict[Any, Any], message: str) -> None:
    with pytest.raises(ValueError, match=f"^{re.escape(message)}"):
        from_mapping(_Car, values, "car")


def test_to_mapping__is_the_inverse_of_from_mapping() -> None:
    config = from_mapping(EntityPolicyConfig, {"encoder": "transformer", "perceiver": {"num_latents": 3}}, "m")
    mapping = to_mapping(config)
    assert (mapping["encoder"], mapping["perceiver"]["num_latents"]) == ("transformer", 3)
    assert from_mapping(EntityPolicyConfig, mapping, "m") == config


def test_unknown_name__suggests_only_what_is_close() -> None:
    assert unknown_name("map", "2s3", ["2s3z", "3m"]) == "map '2s3' (did you mean '2s3z'?); known are 2s3z, 3m"
    assert unknown_name("map", "qqqq", ["2s3z", "3m"]) == "map 'qqqq'; known are 2s3z, 3m"
