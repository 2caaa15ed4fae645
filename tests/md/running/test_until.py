"""Replicas that go on after an unphysical geometry, until they explode."""

import json
import os
import signal
from dataclasses import replace
from importlib.resources import files

import ase.io
import jsonschema
import pytest
import torch
from ase import Atoms, units

from nequip_decorr.md import Criteria, Protocol, RunStoppedError, run_stability
from nequip_decorr.md.models import ModelHandle
from tests.support.batched import Native
from tests.support.potentials import Beyond

SPEED_A_PER_FS = 0.01
#: the atoms meet from 3 A at 0.04 A a step; covalent radii of argon are 1.06 A
OVERLAP_STEP = 44  # the first with 3 - 0.04 s < 0.6 x 2.12
HOLE_X_A, HOLE_STEP = 3.51, 176  # the first with 0.02 s > 3.51


def meeting():
    """Two argon atoms that fly at each other, through each other, and on."""
    pair = Atoms("Ar2", positions=[[0, 0, 0], [3, 0, 0]])
    speed = SPEED_A_PER_FS / units.fs
    pair.set_velocities([[speed, 0, 0], [-speed, 0, 0]])
    return pair


FLIGHT = Protocol(
    ensemble="nve",
    timestep_fs=2.0,
    horizon_ps=0.5,
    replicas=1,
    keep_velocities=True,
    record_interval_steps=3,
    frame_interval_steps=7,
    criteria=Criteria(stored_energy_eV_per_atom=5.0),
)


class Hole(Beyond):
    """The hole of a bad model at x > 3.51 A; a signal comes at one call."""

    def __init__(self, interrupt_at=None):
        super().__init__(HOLE_X_A, "nan-forces")
        self.interrupt_at = interrupt_at

    def field(self, positions):
        if self.calls == self.interrupt_at:
            os.kill(os.getpid(), signal.SIGINT)
        return super().field(positions)


class NoHole(Beyond):
    def __init__(self):
        super().__init__(1e9, "nan-forces")


def fly(model, folder, **changes):
    how = replace(FLIGHT, **changes)
    return run_stability(model, meeting(), how, output=folder).replicas[0]


def test_first_ends_at_the_overlap_and_nothing_is_known_of_explosions(tmp_path):
    found = fly(Hole(), tmp_path)
    assert (found.unphysical.cause, found.unphysical.step) == ("overlap", OVERLAP_STEP)
    assert found.explosion is None
    assert found.censored_by is None
    assert found.time_ps == found.unphysical.time_ps
    assert found.followed("explosion") == (found.time_ps, False)


def test_both_events_are_found_with_their_last_good_frames(tmp_path):
    first = fly(Hole(), tmp_path / "first")
    found = fly(Hole(), tmp_path / "both", until="explosion")
    assert found.unphysical == first.unphysical
    assert (found.explosion.cause, found.explosion.step) == ("nonfinite", HOLE_STEP)
    assert found.time_ps == found.explosion.time_ps
    assert found.censored_by is None
    assert len(found.trace.time_ps) == -(-HOLE_STEP // 3)
    for event in (found.unphysical, found.explosion):
        frame = ase.io.read(tmp_path / "both" / event.last_good_frame)
        assert frame.info["step"] == event.step - 1
        x_A = SPEED_A_PER_FS * 2 * (event.step - 1)
        assert frame.positions[0, 0] == pytest.approx(x_A)


def test_one_that_does_not_explode_goes_on_to_the_horizon(tmp_path):
    found = fly(NoHole(), tmp_path, until="explosion")
    assert found.unphysical.step == OVERLAP_STEP
    assert found.explosion is None
    assert (found.censored_by, found.time_ps) == ("horizon", 0.5)
    assert found.followed("explosion") == (0.5, False)
    frames = ase.io.read(tmp_path / found.trajectory, ":")
    assert frames[-1].info["step"] > 5 * OVERLAP_STEP


def test_both_events_are_repeated_at_half_the_step(tmp_path):
    found = fly(Hole(), tmp_path, until="explosion", half_step_repeat=True)
    for event in (found.unphysical, found.explosion):
        assert event.half_step_cause == event.cause
        assert event.time_ps - 2e-3 < event.half_step_time_ps <= event.time_ps


@pytest.mark.parametrize("call", [OVERLAP_STEP - 10, OVERLAP_STEP + 30])
def test_an_event_survives_an_interrupt_to_the_bit(tmp_path, call):
    how = {"until": "explosion", "half_step_repeat": True}
    whole = fly(Hole(), tmp_path / "whole", **how)
    with pytest.raises(RunStoppedError) as stopped:
        fly(Hole(call), tmp_path / "halves", **how)
    partial = stopped.value.result.replicas[0]
    assert partial.censored_by == "interrupt"
    # the repeat of the overlap takes calls too
    seen = whole.unphysical if call > OVERLAP_STEP else None
    assert partial.unphysical == seen
    assert fly(Hole(), tmp_path / "halves", **how) == whole


def test_the_schema_knows_both_events_and_which_of_them_end(tmp_path):
    text = files("nequip_decorr.md").joinpath("schema.json").read_text("utf-8")
    schema = jsonschema.Draft202012Validator(json.loads(text))
    fly(Hole(), tmp_path / "both", until="explosion")
    fly(NoHole(), tmp_path / "on", until="explosion")
    both, on = (
        json.loads((tmp_path / name / "result.json").read_text())
        for name in ("both", "on")
    )
    schema.validate(both)
    schema.validate(on)
    (exploded,), (went_on,) = both["replicas"], on["replicas"]
    assert exploded["unphysical"] and exploded["explosion"]
    assert went_on["unphysical"] and went_on["censored_by"] == "horizon"
    # an explosion always ends a replica
    exploded["censored_by"] = "horizon"
    assert not schema.is_valid(both)


class Batched(Native):
    """:class:`Hole` for torch-sim."""

    def forward(self, state):
        energy = torch.zeros(state.n_systems, dtype=torch.float64)
        forces = torch.zeros_like(state.positions)
        forces[state.positions[:, 0] > HOLE_X_A] = torch.nan
        return {"energy": energy, "forces": forces}


def test_the_batched_engine_goes_on_too(tmp_path):
    """Repeats of one replica, between two calls for all, change no other's path."""
    handle = ModelHandle("hole", "calculator", None, None, None, None, Batched())
    starts = [meeting(), meeting()]
    starts[1].positions[1, 0] = 3.2
    how = replace(FLIGHT, until="explosion", half_step_repeat=True)
    result = run_stability(
        handle, starts, how, output=tmp_path / "repeated", engine="torchsim"
    )
    both, later = result.replicas
    for event in (both.unphysical, both.explosion, later.unphysical, later.explosion):
        assert event.half_step_cause == event.cause
        assert event.time_ps - 2e-3 < event.half_step_time_ps <= event.time_ps
    how = replace(how, half_step_repeat=False)
    plain = run_stability(
        handle, starts, how, output=tmp_path / "plain", engine="torchsim"
    )
    assert [r.trace for r in plain.replicas] == [both.trace, later.trace]
    assert both.unphysical.step == OVERLAP_STEP
    assert later.unphysical.step == OVERLAP_STEP + 5
    assert both.explosion.step == later.explosion.step == HOLE_STEP
