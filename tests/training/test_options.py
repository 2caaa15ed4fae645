"""Options: defaults, nesting, and what is said about a wrong one before training."""

import json

import pytest
from omegaconf import OmegaConf

from nequip_decorr import EdgeDecorrelation
from nequip_decorr.errors import UserError
from nequip_decorr.training.options import SCHEDULES, all_names, read_options
from nequip_decorr.training.schedules import Cosine


def test_the_default_is_the_rest_of_the_loss_every_fourth_step():
    options = read_options({})
    assert (options.schedule.kind, options.schedule.relative) == ("constant", True)
    assert options.schedule.at(0, end=10) == options.schedule.at(10, end=10) == 1.0
    assert options.sample.every == 4
    assert read_options({"schedule": None, "sample": None, "penalty": None}) == options


def test_a_schedule_without_a_kind_is_a_cosine():
    options = read_options({"schedule": {"coeff": 2.0}})
    assert isinstance(options.schedule, Cosine)
    assert options.schedule.at(0, end=10) == 2.0
    assert options.schedule.at(10, end=10) == 0.0
    assert options.sample.every == 1


def test_a_group_keeps_the_defaults_of_what_is_left_out():
    options = read_options({"sample": {"edges": None}, "schedule": {"kind": "linear"}})
    assert (options.sample.edges, options.sample.channels) == (None, 64)
    assert (options.schedule.kind, options.schedule.coeff) == ("linear", 3.0)


@pytest.mark.parametrize("kind", SCHEDULES)
def test_settings_are_what_was_read_and_plain(kind):
    needed = {"level": 0.05} if kind == "target" else {}
    given = OmegaConf.create(
        {
            "schedule": {"kind": kind, "coeff": 0.5, "unit": "epoch", **needed},
            "sample": {"every": 3},
            "layer_weights": [0, 1.0],
        }
    )
    options = EdgeDecorrelation(**given).options
    settings = json.loads(json.dumps(options.settings(), allow_nan=False))
    assert settings == options.settings()
    assert settings["schedule"].items() >= given["schedule"].items()
    assert settings["layer_weights"] == [0, 1.0]
    assert read_options(settings) == options


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"covff": 1}, "unknown option `covff`; did you mean `schedule.coeff`?"),
        ({"feature": 1}, "unknown option `feature`; did you mean `features`?"),
        (
            {"schedule": {"coef": 1}},
            "unknown option `schedule.coef`; did you mean `schedule.coeff`?",
        ),
        (
            {"sample": {"egdes": 9}},
            "unknown option `sample.egdes`; did you mean `sample.edges`?",
        ),
        (
            {"penalty": {"flor": 0}},
            "unknown option `penalty.flor`; did you mean `penalty.floor`?",
        ),
        ({"schedule": "cosine"}, "`schedule` to be a mapping such as {kind: cosine,"),
        ({"penalty": "abs"}, "`penalty` to be a mapping such as {kind: square}, got"),
        ({"sample": 4}, "`sample` to be a mapping such as"),
        ({"schedule": {"kind": "target"}}, "`schedule.level` is not set; set it to"),
        ({"schedule": {"relative": 1}}, "`schedule.relative` to be true or false, got"),
        (
            {"schedule": {"warmup": -1}},
            "`schedule.warmup` to be a finite number >= 0, got -1",
        ),
        (
            {"schedule": {"unit": "fraction", "stop": 40}},
            "`schedule.stop` to be a finite number >= 0 and <= 1, got 40",
        ),
        (
            {"schedule": {"kind": None}},
            "`schedule.kind` to be one of constant, .*got None",
        ),
        ({"sample": {"edges": 1}}, "`sample.edges` to be a whole number >= 2"),
        ({"sample": {"edges": 9.5}}, "`sample.edges`.*got 9.5"),
        ({"sample": {"channels": True}}, "`sample.channels`.*got True"),
        ({"sample": {"every": 0}}, "`sample.every` to be a whole number >= 1, got 0"),
        ({"sample": {"seed": "x"}}, "`sample.seed`.*got 'x'"),
        ({"penalty": {"kind": "cube"}}, "`penalty.kind` to be one of square, abs, got"),
        (
            {"penalty": {"floor": 2}},
            "`penalty.floor` to be a finite number >= 0 and <= 1, got 2",
        ),
        ({"penalty": {"floor": float("nan")}}, "`penalty.floor`.*got nan"),
        ({"layer_dim": 0}, "`layer_dim` to be a whole number >= 1 or null, got 0"),
        ({"layer_weights": 1}, "`layer_weights` to be a list or null, got 1"),
        ({"layer_weights": [0, 0]}, "`layer_weights` >= 0, not all 0, got"),
        ({"layer_weights": [1, -1]}, "`layer_weights` >= 0, not all 0, got"),
        ({"layer_weights": ["a"]}, "`layer_weights` >= 0, not all 0, got"),
        ({"monitor": "yes"}, "`monitor` to be true or false, got 'yes'"),
        ({"features": 3}, "`features` to be a name, got 3"),
        ({"name": None}, "`name` to be a name, got None"),
        ({"features": "radial", "layer_dim": 4}, "no `layer_dim` with `features: rad"),
    ],
)
def test_a_wrong_option_gets_one_line(given, message):
    with pytest.raises(UserError, match=message.replace("?", r"\?")) as error:
        EdgeDecorrelation(**given)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("kind", "name", "value", "users"),
    [
        ("constant", "stop", 1000, "linear and cosine and cyclical"),
        ("constant", "floor", 0.1, "linear and cosine and cyclical"),
        ("constant", "level", 0.05, "target"),
        ("cosine", "cycles", 3, "cyclical"),
        ("cyclical", "rate", 0.1, "target"),
        ("target", "direction", "down", "linear and cosine and cyclical"),
        ("target", "relative", True, "constant and linear and cosine and cyclical"),
    ],
)
def test_an_option_of_another_kind_is_refused(kind, name, value, users):
    schedule = {"kind": kind, name: value}
    if kind == "target":
        schedule["level"] = 0.1
    with pytest.raises(UserError, match=f"`schedule.{name}` is an option of {users}, "):
        read_options({"schedule": schedule})


#: options as they were before they were grouped, and where they are
FLAT = {
    "coeff": "schedule.coeff",
    "direction": "schedule.direction",
    "unit": "schedule.unit",
    "horizon": "schedule.stop",
    "delay": "schedule.delay",
    "start": "schedule.start",
    "stop": "schedule.stop",
    "floor": "schedule.floor",
    "cycles": "schedule.cycles",
    "target": "schedule.level",
    "rate": "schedule.rate",
    "max_coeff": "schedule.max_coeff",
    "guard_monitor": "schedule.guard_monitor",
    "guard_band": "schedule.guard_band",
    "field": "features",
    "layers": "layer_weights",
    "variance_floor": "penalty.floor",
    "max_edges": "sample.edges",
    "max_channels": "sample.channels",
    "every_n_steps": "sample.every",
    "seed": "sample.seed",
}


@pytest.mark.parametrize("name", FLAT)
def test_an_option_that_was_flat_is_found_in_its_group(name):
    assert FLAT[name] in all_names()
    with pytest.raises(UserError, match=f"option `{name}`; did you mean `{FLAT[name]}"):
        EdgeDecorrelation(**{name: 1})
