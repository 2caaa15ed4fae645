"""What is planted is found, by its name and at its time."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from ase.calculators.calculator import Calculator, all_changes
from scipy.integrate import solve_ivp

from nequip_decorr.md import Criteria, Protocol, preset, results, run_stability
from tests.support.potentials import Analytic, Free
from tests.support.systems import (
    NITROGEN,
    Built,
    cluster,
    diatomics,
    lone,
    metal,
    noble,
    salt,
    springs,
)

pytestmark = pytest.mark.filterwarnings("ignore:the cell of")
ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]


def of(ensemble: str, **changes: Any) -> Protocol:
    how = {
        "timestep_fs": 1.0,
        "horizon_ps": 0.4,
        "replicas": 1,
        "frame_interval_steps": 1,
        **changes,
    }
    end = 400.0 if ensemble == "ramp" else None
    return Protocol(ensemble=ensemble, ramp_end_temperature_K=end, **how)


class Broken(Analytic):
    """Another potential, which goes wrong at its ``call``-th call (from 1)."""

    def __init__(self, sound: Calculator, atoms: Atoms, call: int, what: str) -> None:
        super().__init__()
        self.sound, self.system, self.call, self.what = sound, atoms.copy(), call, what
        self.cursed: np.ndarray | None = None

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        if self.calls == self.call:
            self.cursed = positions.copy()
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        energy = float(self.sound.results["energy"])
        forces = np.array(self.sound.results["forces"])
        if self.cursed is not None and np.array_equal(positions, self.cursed):
            if self.what == "raise":
                raise ArithmeticError("no such place")
            if self.what == "nan-energy":
                return np.nan, forces
            forces[0] = {"nan": np.nan, "inf": np.inf, "strong": 1e6}[self.what]
        return energy, forces


class Pushed(Analytic):
    """Another potential, and a constant force on each atom."""

    def __init__(self, sound: Calculator, atoms: Atoms, push: np.ndarray) -> None:
        super().__init__()
        self.sound, self.system, self.push = sound, atoms.copy(), push

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        energy = float(self.sound.results["energy"]) - (self.push * positions).sum()
        return energy, self.sound.results["forces"] + self.push


class Holed(Analytic):
    """Another potential, and a hole between atom 0 and its nearest neighbour.

    ``-0.1 eV (d / r)^14``, with d their distance at the start, outdoes any wall of the
    other potential.
    """

    def __init__(self, sound: Calculator, atoms: Atoms) -> None:
        super().__init__()
        self.sound, self.system = sound, atoms.copy()
        distances = atoms.get_distances(0, range(len(atoms)), mic=True)
        distances[0] = np.inf
        self.other, self.start_A = int(np.argmin(distances)), float(distances.min())

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        self.system.positions = positions
        self.sound.calculate(self.system, ["energy", "forces"], all_changes)
        away = self.system.get_distance(0, self.other, mic=True, vector=True)
        well = 0.1 * (self.start_A**2 / (away @ away)) ** 7
        pull = 14 * well / (away @ away) * away
        forces = np.array(self.sound.results["forces"])
        forces[0] += pull
        forces[self.other] -= pull
        return float(self.sound.results["energy"]) - well, forces


def failure(
    built: Built, protocol: Protocol, folder: Any
) -> tuple[results.Failure, results.Replica]:
    atoms, potential = built
    (replica,) = run_stability(potential, atoms, protocol, output=folder).replicas
    assert replica.failure is not None
    return replica.failure, replica


def sparse(n: int = 8, spacing_A: float = 20.0) -> Atoms:
    """Copper atoms that know nothing of each other."""
    places = np.indices((n, 1, 1)).reshape(3, -1).T * spacing_A
    return Atoms(f"Cu{n}", positions=places, cell=[n * spacing_A, 20, 20], pbc=True)


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("what", ["nan-energy", "nan", "inf", "strong", "raise"])
def test_a_model_that_goes_wrong_at_a_call(what, ensemble, tmp_path):
    """The first call tells models apart, the second is that of step 0."""
    atoms, sound = springs()
    found, _ = failure((atoms, Broken(sound, atoms, 39, what)), of(ensemble), tmp_path)
    cause = {"strong": "blowup", "raise": "exception"}.get(what, "nonfinite")
    if ensemble == "nose-hoover" and what == "strong":
        cause = "nonfinite"  # its thermostat overflows within the step
    assert (found.step, found.cause) == (37, cause)
    assert (0 in found.atoms) is (what not in ("nan-energy", "raise"))


@pytest.mark.parametrize(
    "build",
    [
        lambda: metal("Cu"),
        lambda: noble("Xe"),
        salt,
        lambda: diatomics("N", 6.0, **NITROGEN),
        cluster,
    ],
    ids=["metal", "liquid", "salt", "gas", "cluster"],
)
def test_a_model_that_goes_wrong_in_any_system(build, tmp_path):
    atoms, sound = build()
    found, _ = failure((atoms, Broken(sound, atoms, 13, "nan")), of("nve"), tmp_path)
    assert (found.step, found.cause) == (11, "nonfinite")


COLD = {"temperatures_K": (1.0,)}
#: without the tests of the mean temperature, which few atoms raise quickly
COOL = Criteria(runaway_sigma=None, max_temperature_K=None)


@pytest.mark.parametrize("force", [2.0, 5.0, 20.0])
def test_an_atom_that_is_driven(force, tmp_path):
    """It has 14.4 eV (40 k (1 + 1.1 x 3868 K)) after t = sqrt(2 m E) / F."""
    atoms = sparse()
    push = np.zeros((len(atoms), 3))
    push[3, 1] = force
    protocol = of("nve", criteria=COOL, **COLD)
    found, _ = failure((atoms, Pushed(Free(), atoms, push)), protocol, tmp_path)
    energy = 40 * (units.kB * 1.0 + 1.1 * 0.5 / 1.5)
    momentum = np.sqrt(2 * atoms.get_masses()[3] * energy)
    assert (found.cause, found.atoms) == ("runaway", (3,))
    # the start's thermal momentum is a thousandth of this
    assert found.step == pytest.approx(momentum / force / units.fs, abs=1.5, rel=0.005)


@pytest.mark.parametrize("force", [0.5, 0.8])
def test_all_atoms_are_heated(force, tmp_path):
    """K = (F t)^2 / 2m for each; the limit must be passed for 50 fs."""
    atoms = sparse()
    push = np.zeros((len(atoms), 3))
    push[:, 1] = force * np.array([1, -1] * 4)
    found, _ = failure(
        (atoms, Pushed(Free(), atoms, push)), of("nve", **COLD), tmp_path
    )
    stored = 0.5 / (1.5 * units.kB)
    limit = 1.0 * (1 + 10 * np.sqrt(2 / 21)) + 1.1 * stored
    kinetic_eV = 21 * units.kB * limit / 2 / len(atoms)  # 3 x 8 - 3 degrees of freedom
    crossed = np.sqrt(2 * atoms.get_masses()[0] * kinetic_eV) / force / units.fs
    assert found.cause == "runaway"
    assert found.step == pytest.approx(crossed + 50, abs=2, rel=0.005)


def test_all_atoms_are_heated_at_once(tmp_path):
    """At 10 000 K nothing waits for confirmation."""
    atoms = sparse()
    push = np.zeros((len(atoms), 3))
    push[:, 1] = 40.0 * np.array([1, -1] * 4)
    found, _ = failure(
        (atoms, Pushed(Free(), atoms, push)), of("nve", **COLD), tmp_path
    )
    kinetic_eV = 21 * units.kB * 10_000 / 2 / len(atoms)
    crossed = np.sqrt(2 * atoms.get_masses()[0] * kinetic_eV) / 40.0 / units.fs
    assert (found.cause, found.limit) == ("runaway", 10_000)
    assert found.step == pytest.approx(crossed, abs=1.5)


@pytest.mark.parametrize("force", [0.5, 1.0])
def test_two_atoms_are_pushed_together(force, tmp_path):
    """From 20 A to 0.6 x 2 x 1.32 A; each has come half of the way."""
    atoms = sparse(4)
    push = np.zeros((4, 3))
    push[1, 0], push[2, 0] = force, -force
    criteria = replace(COOL, max_atom_kinetic_eV=None)
    protocol = of("nve", criteria=criteria, horizon_ps=3.0, **COLD)
    found, _ = failure((atoms, Pushed(Free(), atoms, push)), protocol, tmp_path)
    way = (20 - 0.6 * 2 * 1.32) / 2
    time = np.sqrt(2 * way * atoms.get_masses()[0] / force) / units.fs
    assert (found.cause, found.atoms) == ("overlap", (1, 2))
    assert found.step == pytest.approx(time, abs=1.5, rel=0.01)


class Stirred(Analytic):
    """Springs, and a force about each site that does work on every turn."""

    def __init__(self, sites: np.ndarray, k: float, stir: float) -> None:
        super().__init__()
        self.sites, self.k, self.stir = sites, k, stir

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        away = positions - self.sites
        around = np.cross([0.0, 0.0, 1.0], away)
        return 0.5 * self.k * (away**2).sum(), -self.k * away + self.stir * around


@pytest.mark.parametrize(
    ("ensemble", "limit_K"),
    [
        ("nve", 300 * (1 + 10 * np.sqrt(2 / 93)) + 1.1 * 3868),
        ("langevin", 300 * (1 + 10 * np.sqrt(2 / 96)) + 0.1 * 3868),
        ("ramp", 300 * (1 + 10 * np.sqrt(2 / 96)) + 0.1 * 3868),
    ],
)
def test_forces_that_do_work_for_ever(ensemble, limit_K, tmp_path):
    """No circling atom gains energy faster than at stir / sqrt(k m).

    A Nose-Hoover chain removes any heat that comes this slowly, and hides it.
    """
    atoms, _ = springs()
    model = Stirred(atoms.positions, 12.0, 3.0)
    criteria = Criteria(min_distance_ratio=None)
    protocol = of(ensemble, horizon_ps=1.0, criteria=criteria)
    found, _ = failure((atoms, model), protocol, tmp_path)
    rate_per_fs = 3.0 / np.sqrt(12.0 * atoms.get_masses()[0]) * units.fs
    assert found.cause == "runaway"
    # the first momenta of 32 atoms are those of 450 K at most
    assert np.log(limit_K / 450) / rate_per_fs < found.step < 1000


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_time_step_too_large(ensemble, tmp_path):
    """Velocity Verlet on a spring is unstable beyond w dt = 2, and sound at half."""
    atoms, potential = springs()
    limit_fs = 2 / np.sqrt(12.0 / atoms.get_masses()[0]) / units.fs
    wrong = of(ensemble, timestep_fs=1.1 * limit_fs, horizon_ps=4.0)
    found, _ = failure((atoms, potential), wrong, tmp_path / "wrong")
    # cosh(growth) = w^2 dt^2 / 2 - 1: from 0.1 A to 0.5 A in a handful of steps
    growth = np.arccosh(2 * 1.1**2 - 1)
    assert found.cause in ("nonfinite", "blowup", "overlap", "runaway")
    assert found.step < 10 + np.log(1000) / growth
    right = replace(wrong, timestep_fs=0.3 * limit_fs)
    atoms, potential = springs()
    result = run_stability(potential, atoms, right, output=tmp_path / "right")
    assert result.replicas[0].failure is None


@pytest.mark.parametrize(
    ("build", "timestep_fs"),
    [
        (lambda: metal("Cu"), 60.0),
        (lambda: noble("Ar"), 150.0),
        (salt, 40.0),
        (lambda: diatomics("N", 6.0, **NITROGEN), 7.0),
    ],
    ids=["copper at 60 fs", "argon at 150 fs", "salt at 40 fs", "nitrogen at 7 fs"],
)
def test_a_time_step_too_large_for_a_real_potential(build, timestep_fs, tmp_path):
    protocol = of("nve", timestep_fs=timestep_fs, horizon_ps=0.1 * timestep_fs)
    found, _ = failure(build(), protocol, tmp_path)
    assert found.cause in ("blowup", "overlap", "runaway", "dissociation")


def crossing_fs(force: float, length_A: float) -> float:
    """When a pulled Morse bond of nitrogen is so long, by an integrator of its own."""
    r0, depth, width = (NITROGEN[k] for k in ("length_A", "depth_eV", "width_per_A"))
    mass = Atoms("N").get_masses()[0]

    def motion(_: float, y: np.ndarray) -> list[float]:
        decay = np.exp(-width * (y[0] - r0))
        pull = 2 * depth * width * (1 - decay) * decay
        return [y[1], (2 * force - 2 * pull) / mass]

    def there(_: float, y: np.ndarray) -> float:
        return float(y[0] - length_A)

    there.terminal = True  # type: ignore[attr-defined]
    start = molecule("N2").get_distance(0, 1)
    solved = solve_ivp(motion, (0, 40), [start, 0], events=there, rtol=1e-10)
    return float(solved.t_events[0][0] / units.fs)


BONDS = preset("molecule").criteria


@pytest.mark.parametrize("force", [12.0, 20.0])
@pytest.mark.parametrize("kind", ["bond", "pieces"])
def test_a_bond_that_breaks(kind, force, tmp_path):
    """Both atoms are pulled apart, harder than the bond can hold."""
    atoms, bond = lone("N2", **NITROGEN)
    axis = atoms.positions[1] - atoms.positions[0]
    axis /= np.linalg.norm(axis)
    push = force * np.array([-axis, axis])
    loose = replace(BONDS, max_atom_kinetic_eV=1e3, max_temperature_K=None)
    loose = replace(loose, runaway_sigma=None)
    at_start = molecule("N2").get_distance(0, 1)
    if kind == "bond":
        criteria = replace(loose, fragment_ratio=None)
        length, confirm = at_start + 0.5, 10
    else:
        criteria = replace(loose, max_bond_deviation_A=None)
        length, confirm = 1.5 * 2 * 0.71, 0
    protocol = of(
        "nve", criteria=criteria, timestep_fs=0.1, check_interval_steps=1, **COLD
    )
    found, _ = failure((atoms, Pushed(bond, atoms, push)), protocol, tmp_path)
    assert (found.cause, sorted(found.atoms)[:1]) == ("dissociation", [0])
    expected = crossing_fs(force, length) + confirm
    assert 0.1 * found.step == pytest.approx(expected, abs=0.3)


@pytest.mark.parametrize("ensemble", ["langevin", "nve"])
def test_an_atom_is_pulled_from_a_cluster(ensemble, tmp_path):
    """A neighbour is within 1.5 x 2.64 A; the crystal's nearest is 2.55 A away."""
    atoms, potential = springs()
    atoms.pbc = False
    corner = int(np.argmin(atoms.positions.sum(axis=1)))
    push = np.zeros((len(atoms), 3))
    push[corner] = -12.0
    criteria = replace(COOL, max_atom_kinetic_eV=None)
    protocol = of(ensemble, timestep_fs=0.5, check_interval_steps=1, criteria=criteria)
    found, _ = failure((atoms, Pushed(potential, atoms, push)), protocol, tmp_path)
    assert (found.cause, found.atoms) == ("dissociation", (corner,))
    frames = ase.io.read(tmp_path / "frames" / "0000.extxyz", ":")
    nearest = [np.sort(f.get_distances(corner, range(32)))[1] for f in frames]
    assert max(nearest) <= 1.5 * 2.64
    assert len(frames) == found.step


@pytest.mark.parametrize(
    ("build", "temperature_K"),
    [
        (lambda: noble("Ar"), 90.0),
        (lambda: noble("Kr"), 120.0),
        (lambda: noble("Xe", 3, 0.9), 165.0),
        (salt, 600.0),
        (lambda: metal("Cu"), 600.0),
        (lambda: metal("Al"), 600.0),
    ],
    ids=["argon", "krypton", "xenon", "salt", "copper", "aluminium"],
)
def test_a_hole_between_two_atoms(build, temperature_K, tmp_path):
    """Every recorded step is sound by its distances; the next one is the failure."""
    atoms, sound = build()
    model = Holed(sound, atoms)
    protocol = of("langevin", timestep_fs=2.0, temperatures_K=(temperature_K,))
    found, _ = failure((atoms, model), protocol, tmp_path)
    assert found.cause in ("overlap", "blowup")
    assert set(found.atoms) <= {0, model.other}
    frames = ase.io.read(tmp_path / "frames" / "0000.extxyz", ":")
    assert len(frames) == found.step
    assert all(ratio(frame) >= 0.6 for frame in frames)
    model.calculate(frames[-1])
    strongest = np.linalg.norm(model.results["forces"], axis=1).max()
    assert strongest <= 100
    assert strongest > 10  # it was on its way


def ratio(atoms: Atoms) -> float:
    """Shortest distance over the sum of covalent radii, by ase's own distances."""
    from ase.data import covalent_radii

    radii = covalent_radii[atoms.numbers]
    distances = atoms.get_all_distances(mic=True)
    np.fill_diagonal(distances, np.inf)
    return float((distances / np.add.outer(radii, radii)).min())
