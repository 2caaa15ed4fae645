"""Planted explosions: a wrong model, driven atoms, and time steps too large."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from ase import units

from nequip_decorr.md import Criteria, run_stability
from tests.support.planted import COLD, COOL, Broken, Pushed, failure, of, sparse
from tests.support.potentials import Analytic, Free
from tests.support.systems import (
    NITROGEN,
    cluster,
    diatomics,
    metal,
    noble,
    salt,
    springs,
)

pytestmark = pytest.mark.filterwarnings("ignore:the cell of")
ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]


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
    assert result.replicas[0].first is None


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
