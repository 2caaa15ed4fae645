"""The protocol: what it refuses, and that it survives YAML."""

import math

import pytest
import yaml
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.md import PRESETS, Criteria, preset, read_protocol
from nequip_decorr.md.protocol import ENSEMBLES, UNTIL, Protocol

times = st.floats(0.1, 50.0)


@st.composite
def protocols(draw):
    ensemble = draw(st.sampled_from(ENSEMBLES))
    return Protocol(
        ensemble=ensemble,
        temperatures_K=tuple(
            draw(st.lists(st.floats(1, 3000), min_size=1, max_size=3, unique=True))
        ),
        ramp_end_temperature_K=draw(times) if ensemble == "ramp" else None,
        timestep_fs=draw(st.floats(0.1, 5.0)),
        horizon_ps=draw(times),
        seed=draw(st.integers(0, 2**31)),
        replicas=draw(st.integers(1, 99)),
        half_step_repeat=draw(st.booleans()),
        until=draw(st.sampled_from(UNTIL)),
        criteria=Criteria(
            max_force_eV_per_A=draw(st.none() | times), runaway_time_fs=draw(times)
        ),
    )


@given(protocols())
@settings(deadline=None, max_examples=30)
def test_yaml_round_trip(tmp_path_factory, protocol):
    path = tmp_path_factory.mktemp("protocol") / "p.yaml"
    path.write_text(yaml.safe_dump(protocol.to_dict()))
    assert read_protocol(path) == protocol


def test_yaml_builds_on_a_preset(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text(
        "preset: molecule\nhorizon_ps: 1\ncriteria: {fragment_ratio: 2.0}\n"
    )
    protocol = read_protocol(path)
    assert protocol.timestep_fs == 0.5
    assert protocol.horizon_ps == 1
    assert protocol.criteria.fragment_ratio == 2.0
    assert protocol.criteria.max_bond_deviation_A == 0.5


def test_one_temperature_needs_no_list(tmp_path):
    path = tmp_path / "p.yaml"
    path.write_text("temperatures_K: 450\n")
    assert read_protocol(path).temperatures_K == (450,)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon_ps": 0}, "`horizon_ps` to be a finite number > 0"),
        ({"horizon_ps": 0.0005}, "at least one step"),
        ({"horizon_ps": math.nan}, "`horizon_ps` to be a finite number > 0"),
        ({"horizon_ps": math.inf}, "`horizon_ps` to be a finite number > 0"),
        ({"timestep_fs": -1}, "`timestep_fs` to be a finite number > 0, got -1"),
        (
            {"timestep_fs": "fast"},
            "`timestep_fs` to be a finite number > 0, got 'fast'",
        ),
        ({"temperatures_K": []}, "at least one temperature in temperatures_K"),
        (
            {"temperatures_K": [300, -5]},
            "`temperatures_K` to be a finite number > 0, got -5",
        ),
        ({"temperatures_K": [300, 300]}, "different temperatures in temperatures_K"),
        ({"replicas": 0}, "`replicas` to be a whole number >= 1"),
        ({"replicas": 2.5}, "`replicas` to be a whole number >= 1"),
        ({"seed": -1}, "`seed` to be a whole number >= 0"),
        ({"half_step_repeat": "on"}, "`half_step_repeat` to be true or false"),
        ({"ensemble": "langvin"}, "did you mean 'langevin'?"),
        (
            {"until": "explosions"},
            "expected `until` to be one of first, explosion, got",
        ),
        ({"until": None}, "to be one of first, explosion, got None"),
        (
            {"criteria": {"stored_energy_eV_per_atom": -1}},
            "stored_energy_eV_per_atom` to be a finite number >= 0",
        ),
        ({"ensemble": "ramp"}, "ramp_end_temperature_K with ensemble 'ramp'"),
        ({"ramp_end_temperature_K": 900}, "ramp_end_temperature_K with ensemble"),
        ({"horizon_fs": 9}, "'horizon_fs'; did you mean 'horizon_ps'?"),
        ({"criteria": {"max_force": 9}}, "did you mean 'max_force_eV_per_A'?"),
        (
            {"criteria": {"max_force_eV_per_A": 0}},
            "max_force_eV_per_A` to be a finite number > 0",
        ),
        ({"criteria": {"runaway_time_fs": None}}, "a number for criteria"),
        ({"criteria": 5}, "a mapping (NAME: VALUE) for criteria, got 5"),
    ],
)
def test_refuses(change, message):
    with pytest.raises(UserError, match=r"^expected") as caught:
        Protocol.from_dict(change)
    assert message in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "text", ["a: [", "- 1\n- 2", "\tx: 1", "preset: solidd", "preset: [solid]"]
)
def test_refuses_files(tmp_path, text):
    path = tmp_path / "p.yaml"
    path.write_text(text)
    with pytest.raises(UserError, match=r"^expected") as caught:
        read_protocol(path)
    assert "\n" not in str(caught.value)


def test_a_file_that_is_not_there(tmp_path):
    with pytest.raises(UserError, match=r"protocol in YAML, got .*nowhere\.yaml"):
        read_protocol(tmp_path / "nowhere.yaml")


def test_preset_names():
    with pytest.raises(UserError, match="did you mean 'solid'"):
        preset("solids")
    assert {p.ensemble for p in PRESETS.values()} == {"langevin", "nve", "ramp"}
    for protocol in PRESETS.values():
        assert protocol.replicas >= 16


@given(
    steps=st.integers(1, 10**6), timestep_fs=st.sampled_from([0.1, 0.25, 0.3, 0.7, 2.0])
)
@settings(deadline=None, max_examples=100)
def test_steps_to_the_horizon(steps, timestep_fs):
    protocol = Protocol(timestep_fs=timestep_fs, horizon_ps=steps * timestep_fs / 1000)
    assert protocol.n_steps == steps


def test_the_ramp_is_a_straight_line():
    protocol = Protocol(
        ensemble="ramp", ramp_end_temperature_K=3000.0, horizon_ps=1.0, timestep_fs=1.0
    )
    at = [
        protocol.target_temperature_K(300.0, step) for step in (0, 250, 500, 1000, 2000)
    ]
    assert at == [300.0, 975.0, 1650.0, 3000.0, 3000.0]
