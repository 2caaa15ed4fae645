"""Runs that start from the velocities of their structures."""

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk
from ase.constraints import FixAtoms

from nequip_decorr.errors import UserError
from nequip_decorr.md import Criteria, Protocol, run_stability
from nequip_decorr.md.dynamics.contract import MDState
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.replica import Plan, start_state, watch
from nequip_decorr.md.statistics.comparison import compare_runs
from tests.support.potentials import Einstein, Free, K, crystal

#: A/fs in ase's units
VELOCITY = 1.0 / units.fs
QUIET = Criteria(isolation_ratio=None, min_distance_ratio=None)
SHORT = Protocol(
    timestep_fs=2.0,
    horizon_ps=0.04,
    replicas=2,
    keep_velocities=True,
    frame_interval_steps=1,
    criteria=QUIET,
)


def flying(speed_A_per_fs=0.002):
    """Two atoms that fly apart, and along."""
    atoms = Atoms("Ar2", [[0, 0, 0], [5, 0, 0]])
    velocities = np.array([[-1.0, 0.5, 0.0], [1.0, 0.5, 0.0]]) * speed_A_per_fs
    atoms.set_velocities(velocities * VELOCITY)
    return atoms


def springs():
    return Einstein(crystal().positions, K)


def warm(seed=0, kelvin=300.0):
    """The spring crystal in motion."""
    atoms = crystal()
    rng = np.random.default_rng(seed)
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * kelvin)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread)
    return atoms


def test_free_flight_goes_on_as_the_file_says(tmp_path):
    """In the frame of the centre of mass, at 0.002 A/fs each, for 40 fs."""
    protocol = replace(SHORT, ensemble="nve", replicas=1)
    run_stability(Free(), flying(), protocol, output=tmp_path)
    frames = ase.io.read(tmp_path / "frames" / "0000.extxyz", ":")
    moved = frames[-1].positions - flying().positions
    expected = np.array([[-1.0, 0, 0], [1.0, 0, 0]]) * 0.002 * 40
    np.testing.assert_allclose(moved, expected, atol=1e-7)


def test_replicas_start_alike_and_differ_by_noise(tmp_path):
    run_stability(springs(), warm(), SHORT, output=tmp_path)
    replicas = [
        ase.io.read(tmp_path / "frames" / f"000{i}.extxyz", ":") for i in range(2)
    ]
    assert (replicas[0][0].positions == replicas[1][0].positions).all()
    assert (replicas[0][-1].positions != replicas[1][-1].positions).any()


@pytest.mark.parametrize(("kelvin", "excess_K"), [(2000.0, 1700.0), (200.0, 0.0)])
def test_hotter_start_velocities_add_to_the_reference(kelvin, excess_K):
    atoms = crystal()
    atoms.set_momenta(exactly(atoms, kelvin))
    criteria = replace(QUIET, stored_energy_eV_per_atom=0.0)
    protocol = replace(SHORT, ensemble="nve", replicas=1, criteria=criteria)
    found = watch(Plan(0, 0, "", atoms, 300.0, 0), protocol)
    assert found.seen.start_excess_K == pytest.approx(excess_K)


def exactly(atoms, kelvin):
    """Momenta without a total one, at this temperature."""
    momenta = np.random.default_rng(5).normal(size=(len(atoms), 3))
    momenta -= momenta.mean(axis=0)
    kinetic_eV = 0.5 * (momenta**2 / atoms.get_masses()[:, None]).sum()
    now_K = 2 * kinetic_eV / ((3 * len(atoms) - 3) * units.kB)
    return momenta * np.sqrt(kelvin / now_K)


def test_a_run_that_starts_hot_is_no_runaway(tmp_path):
    """Springs keep half of it: 1000 K where 300 K were asked for."""
    criteria = replace(QUIET, stored_energy_eV_per_atom=0.0, runaway_time_fs=10.0)
    hot = crystal()
    hot.set_momenta(exactly(hot, 2000.0))
    asked = replace(SHORT, ensemble="nve", horizon_ps=0.4, replicas=1)
    asked = replace(asked, criteria=criteria)
    (sound,) = run_stability(springs(), hot, asked, output=tmp_path / "a").replicas
    assert sound.first is None
    # the same heat, of which the start says nothing
    stretched = crystal()
    rng = np.random.default_rng(6)
    stretched.positions += rng.normal(size=(len(hot), 3)) * np.sqrt(
        2000.0 * units.kB / K
    )
    stretched.set_momenta(exactly(hot, 300.0))
    (heated,) = run_stability(
        springs(), stretched, asked, output=tmp_path / "b"
    ).replicas
    assert heated.explosion.cause == "runaway"


@pytest.mark.parametrize("ensemble", ["langevin", "nose-hoover", "nve"])
def test_the_start_is_that_of_the_structure(ensemble):
    protocol = Protocol(ensemble=ensemble, keep_velocities=True, replicas=1)
    atoms = warm()
    states = [
        start_state(Plan(0, 0, "", atoms, 300.0, seed), protocol) for seed in (0, 1)
    ]
    assert isinstance(states[0], MDState)
    np.testing.assert_array_equal(states[0].momenta, states[1].momenta)
    total = states[0].momenta.sum(axis=0)
    if ensemble == "langevin":
        np.testing.assert_array_equal(states[0].momenta, atoms.get_momenta())
    else:
        np.testing.assert_allclose(total, 0, atol=1e-10)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"ensemble": "nve"}, "use replicas: 1 "),
        ({"ensemble": "nose-hoover"}, "use replicas: 1 "),
        (
            {"ensemble": "nve", "replicas": 1, "temperatures_K": (300.0, 600.0)},
            "has no thermostat",
        ),
        ({"keep_velocities": "yes"}, "`keep_velocities` to be true or false"),
        ({"drop_constraints": 1}, "`drop_constraints` to be true or false"),
    ],
)
def test_replicas_that_would_be_the_same_are_refused(changes, message):
    with pytest.raises(UserError, match=message) as caught:
        Protocol(**{"keep_velocities": True, **changes})
    assert "\n" not in str(caught.value)


def test_velocities_are_a_part_of_the_run(tmp_path):
    run_stability(springs(), warm(0), SHORT, output=tmp_path)
    with pytest.raises(UserError, match="structures"):
        run_stability(springs(), warm(1), SHORT, output=tmp_path)
    random = replace(SHORT, keep_velocities=False)
    with (
        pytest.raises(UserError, match="keep_velocities was True, is False"),
        pytest.warns(UserWarning, match="velocities of structure 0 are not used"),
    ):
        run_stability(springs(), warm(0), random, output=tmp_path)
    assert RunFolder(tmp_path).finished(0) is not None


def test_only_runs_of_the_same_velocities_are_compared(tmp_path):
    a, b, other = (
        run_stability(springs(), warm(seed), SHORT, output=tmp_path / name)
        for name, seed in (("a", 0), ("b", 0), ("c", 1))
    )
    assert compare_runs(a, b).n_pairs == 2
    with pytest.raises(UserError, match="positions, velocities, cells or"):
        compare_runs(a, other)
    random = replace(SHORT, keep_velocities=False)
    unlike = run_stability(springs(), crystal(), random, output=tmp_path / "d")
    with pytest.raises(UserError, match="keep_velocities: True in A, False in B"):
        compare_runs(a, unlike)


def test_constraints_are_dropped_only_when_asked(tmp_path):
    held = bulk("Ar", cubic=True)
    held.set_constraint(FixAtoms([0]))
    protocol = Protocol(timestep_fs=2.0, horizon_ps=0.02, replicas=1, criteria=QUIET)
    with pytest.raises(UserError, match="--drop-constraints"):
        run_stability(Free(), held, protocol, output=tmp_path)
    dropped = replace(protocol, drop_constraints=True)
    with pytest.warns(UserWarning, match="constraints of structure 0 are dropped"):
        result = run_stability(Free(), held, dropped, output=tmp_path)
    assert result.protocol["drop_constraints"] is True
    start = ase.io.read(tmp_path / "frames" / "0000.extxyz", "0")
    assert not start.constraints
