"""Planted failures of the geometry: atoms that are pushed together or pulled apart."""

from __future__ import annotations

from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms, units
from ase.build import molecule
from scipy.integrate import solve_ivp

from nequip_decorr.md import preset
from tests.support.planted import COLD, COOL, Holed, Pushed, failure, of, sparse
from tests.support.potentials import Free
from tests.support.systems import NITROGEN, lone, metal, noble, salt, springs

pytestmark = pytest.mark.filterwarnings("ignore:the cell of")


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
