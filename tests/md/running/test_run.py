"""A whole run through the public call: how it ends, what it writes, what it refuses."""

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk
from ase.calculators.lj import LennardJones

from nequip_decorr.errors import UserError
from nequip_decorr.md import Criteria, RunStoppedError, results, run_stability
from tests.support.potentials import Beyond, Einstein, Free, crystal, einstein, flyer
from tests.support.short_runs import SHORT, ends, springs


def test_a_spring_crystal_survives(tmp_path):
    result = run_stability(springs(), crystal(), SHORT, output=tmp_path)
    assert result == results.load(tmp_path / "result.json")
    assert result.complete
    assert [r.censored_by for r in result.replicas] == ["horizon"] * 2
    assert [r.time_ps for r in result.replicas] == [0.06] * 2
    assert [r.seed for r in result.replicas] == [0, 1]
    trace = result.replicas[0].trace
    np.testing.assert_allclose(trace.time_ps, np.arange(0, 31, 3) * 2e-3)
    frames = ase.io.read(tmp_path / result.replicas[1].trajectory, ":")
    assert [a.info["step"] for a in frames] == [0, 7, 14, 21, 28]
    assert frames[0].pbc.all()


@pytest.mark.slow
def test_a_lennard_jones_liquid_survives(tmp_path):
    argon = bulk("Ar", cubic=True, a=5.6) * (2, 2, 2)
    model = LennardJones(sigma=3.4, epsilon=0.0104, rc=5.5, smooth=True)
    protocol = replace(
        SHORT, temperatures_K=(130.0,), timestep_fs=5.0, horizon_ps=2.0, replicas=2
    )
    result = run_stability(model, argon, protocol, output=tmp_path)
    assert [r.first for r in result.replicas] == [None, None]


def test_a_hole_is_told_with_its_last_good_frame(tmp_path):
    """Free flight: the momentum of the last good frame tells when it had to fail."""
    protocol = replace(
        SHORT,
        ensemble="nve",
        temperatures_K=(2000.0,),
        timestep_fs=0.5,
        horizon_ps=2.0,
        replicas=6,
        half_step_repeat=True,
    )
    result = run_stability(
        Beyond(2.0, "nan-forces"), flyer(), protocol, output=tmp_path
    )
    failed = [r for r in result.replicas if r.first]
    assert 0 < len(failed) < 6
    for replica in failed:
        failure = replica.first
        good = ase.io.read(tmp_path / failure.last_good_frame)
        speed = good.get_velocities()[0, 0] * 0.5 * 0.0982269478  # A a step
        assert failure.step == np.ceil(2.0 / speed)
        assert good.info["step"] == failure.step - 1
        assert failure.cause == "nonfinite"
        assert failure.atoms == (0,)
        assert replica.time_ps == failure.time_ps
        assert failure.time_ps == pytest.approx(failure.step * 0.5e-3)
        # the surface is to blame: at half the step it fails between the same two
        assert failure.half_step_cause == "nonfinite"
        before = failure.time_ps - 0.5e-3
        assert before < failure.half_step_time_ps <= failure.time_ps
    for replica in set(result.replicas) - set(failed):
        frames = ase.io.read(tmp_path / replica.trajectory, ":")
        assert frames[-1].positions[0, 0] < 2.0


def test_isotopes_keep_their_masses(tmp_path):
    """Else a last good frame that is read again is at another temperature."""
    atoms = flyer()
    atoms.set_masses([2.014] * len(atoms))
    protocol = replace(SHORT, ensemble="nve", temperatures_K=(2000.0,), horizon_ps=2.0)
    result = run_stability(Beyond(2.0, "nan-forces"), atoms, protocol, output=tmp_path)
    failure = next(r.first for r in result.replicas if r.first)
    good = ase.io.read(tmp_path / failure.last_good_frame)
    assert good.get_masses() == pytest.approx(2.014)


def test_half_the_step_tells_the_integrator_from_the_surface(tmp_path):
    """Velocity Verlet on a spring is stable for w dt < 2: at 1.2 x that it blows up,
    at half of it, it holds.
    """
    site = flyer().positions
    mass = flyer().get_masses()[0]
    timestep_fs = 1.0
    k = mass * (2 * 1.2 / (timestep_fs * 0.0982269478)) ** 2
    protocol = replace(
        SHORT,
        ensemble="nve",
        timestep_fs=timestep_fs,
        horizon_ps=1.0,
        replicas=3,
        temperatures_K=(1.0,),
        half_step_repeat=True,
        criteria=Criteria(
            max_force_eV_per_A=None,
            max_atom_kinetic_eV=None,
            max_temperature_K=None,
            runaway_sigma=None,
        ),
    )
    result = run_stability(Einstein(site, k), flyer(), protocol, output=tmp_path)
    assert [r.first.cause for r in result.replicas] == ["blowup"] * 3
    assert [r.first.half_step_cause for r in result.replicas] == ["none"] * 3
    assert [r.first.half_step_time_ps for r in result.replicas] == [None] * 3


def test_a_path_depends_on_its_seed_alone(tmp_path):
    many = run_stability(
        springs(), crystal(), replace(SHORT, replicas=3), output=tmp_path / "a"
    )
    one = run_stability(
        springs(), crystal(), replace(SHORT, replicas=1, seed=2), output=tmp_path / "b"
    )
    assert many.replicas[2].trace == one.replicas[0].trace
    assert many.replicas[1].trace != one.replicas[0].trace


@pytest.mark.slow
def test_several_processes_find_what_one_does(tmp_path):
    protocol = replace(SHORT, replicas=4)
    for processes in (1, 2):
        folder = tmp_path / str(processes)
        run_stability(einstein, crystal(), protocol, output=folder, processes=processes)
    assert ends(tmp_path / "1") == ends(tmp_path / "2")


def test_a_fault_tied_to_a_place_is_an_event(tmp_path):
    protocol = replace(
        SHORT, ensemble="nve", horizon_ps=2.0, temperatures_K=(300.0,), replicas=6
    )
    result = run_stability(Beyond(1.0, "raise"), flyer(), protocol, output=tmp_path)
    causes = {r.first.cause for r in result.replicas if r.first}
    assert causes == {"exception"}
    assert "ArithmeticError: no such place" in next(
        r.first.message for r in result.replicas if r.first
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"timestep_fs": 1.0}, "protocol.timestep_fs was 2.0, is 1.0"),
        (
            {"criteria": Criteria(max_force_eV_per_A=50.0)},
            "protocol.criteria.max_force_eV_per_A was 100.0, is 50.0",
        ),
    ],
)
def test_another_protocol_is_not_mixed_in(tmp_path, change, message):
    run_stability(springs(), crystal(), SHORT, output=tmp_path)
    before = ends(tmp_path)
    with pytest.raises(UserError, match="choose another --out") as caught:
        run_stability(springs(), crystal(), replace(SHORT, **change), output=tmp_path)
    assert message in str(caught.value)
    assert ends(tmp_path) == before


def test_another_model_or_structure_is_not_mixed_in(tmp_path):
    run_stability(springs(), crystal(), SHORT, output=tmp_path)
    with pytest.raises(UserError, match=r"model.sha256 was .*AtCall.*Free"):
        run_stability(Free(), crystal(), SHORT, output=tmp_path)
    moved = crystal()
    moved.positions[0, 0] += 1e-12
    with pytest.raises(UserError, match="structures was"):
        run_stability(springs(), moved, SHORT, output=tmp_path)


def test_a_foreign_folder_is_left_alone(tmp_path):
    (tmp_path / "thesis.tex").write_text("...")
    with pytest.raises(UserError, match="other files in it"):
        run_stability(springs(), crystal(), SHORT, output=tmp_path)
    assert [p.name for p in tmp_path.iterdir()] == ["thesis.tex"]


def test_one_process_at_a_time_in_a_folder(tmp_path):
    class Nested(Free):
        def field(self, positions):
            run_stability(Free(), flyer(), SHORT, output=tmp_path)

    with pytest.raises(RunStoppedError, match="another process"):
        run_stability(Nested(), flyer(), SHORT, output=tmp_path)


def test_an_output_that_cannot_be_written(tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="Not a directory"):
        run_stability(springs(), crystal(), SHORT, output=tmp_path / "file" / "run")


def test_bad_calls(tmp_path):
    with pytest.raises(UserError, match="a function that returns the calculator"):
        run_stability(springs(), crystal(), SHORT, output=tmp_path, processes=2)
    with pytest.raises(UserError, match="`processes` to be a whole number >= 1, got 0"):
        run_stability(springs(), crystal(), SHORT, output=tmp_path, processes=0)
    with pytest.raises(UserError, match="did you mean 'torchsim'"):
        run_stability(springs(), crystal(), SHORT, output=tmp_path, engine="torch-sim")


def test_the_result_file_is_plain_json(tmp_path):
    run_stability(Beyond(0.05, "nan-energy"), flyer(), SHORT, output=tmp_path)
    text = Path(tmp_path / "result.json").read_text()

    def refuse(constant):
        raise AssertionError(constant)

    data = json.loads(text, parse_constant=refuse)
    assert data["schema"] == results.SCHEMA
    assert not Path(data["replicas"][0]["explosion"]["last_good_frame"]).is_absolute()
