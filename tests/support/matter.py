"""Exact potentials of matter that people simulate."""

from __future__ import annotations

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from matscipy.calculators.pair_potential import LennardJonesQuadratic, PairPotential
from matscipy.neighbours import neighbour_list
from scipy.special import erfc

from tests.support.potentials import Analytic, Einstein


class BornMayer(Analytic):
    """Sodium chloride: Born-Mayer repulsion and damped, shifted charges.

    Parameters as Fumi and Tosi's without dispersion; the charges after Wolf et al.,
    J. Chem. Phys. 110, 8254 (1999).
    """

    cutoff_A, damping = 8.0, 0.25

    def __init__(self, atoms: Atoms) -> None:
        super().__init__()
        self.system = atoms

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        i, j, vectors, r = neighbour_list(
            "ijDd",
            positions=positions,
            cell=self.system.cell.array,
            pbc=self.system.pbc,
            cutoff=self.cutoff_A,
        )
        sodium = self.system.numbers == 11
        charge = np.where(sodium, 1.0, -1.0)
        radius = np.where(sodium, 1.17, 1.585)
        wall = 0.211 * np.exp((radius[i] + radius[j] - r) / 0.317)
        strength = charge[i] * charge[j] * units.Hartree * units.Bohr
        energy, slope = self._charge(r)
        edge_energy, edge_slope = self._charge(np.array(self.cutoff_A))
        shifted = energy - edge_energy - edge_slope * (r - self.cutoff_A)
        total = 0.5 * (wall + strength * shifted).sum()
        pull = -wall / 0.317 + strength * (slope - edge_slope)
        forces = np.zeros_like(positions)
        np.add.at(forces, i, (pull / r)[:, None] * vectors)
        return float(total), forces

    def _charge(self, r: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Damped 1/r and its derivative."""
        screened = erfc(self.damping * r) / r
        gauss = 2 * self.damping / np.sqrt(np.pi) * np.exp(-((self.damping * r) ** 2))
        return screened, -(screened + gauss) / r


class Diatomics(Analytic):
    """Molecules of two atoms: Morse bonds within, Lennard-Jones between them."""

    def __init__(
        self,
        atoms: Atoms,
        *,
        length_A: float,
        depth_eV: float,
        width_per_A: float,
        epsilon_eV: float,
        sigma_A: float,
    ) -> None:
        super().__init__()
        self.system = atoms
        self.bond = (length_A, depth_eV, width_per_A)
        self.between = LennardJonesQuadratic(epsilon_eV, sigma_A, 2.2 * sigma_A)

    def field(self, positions: np.ndarray) -> tuple[float, np.ndarray]:
        length, depth, width = self.bond
        bonds = positions[1::2] - positions[::2]
        r = np.linalg.norm(bonds, axis=1)
        decay = np.exp(-width * (r - length))
        total = (depth * (1 - decay) ** 2).sum()
        pull = (2 * depth * width * (1 - decay) * decay / r)[:, None] * bonds
        forces = np.zeros_like(positions)
        forces[::2] += pull
        forces[1::2] -= pull
        i, j, vectors, r = neighbour_list(
            "ijDd",
            positions=positions,
            cell=self.system.cell.complete().array,
            pbc=self.system.pbc,
            cutoff=self.between.cutoff,
        )
        apart = i // 2 != j // 2
        i, vectors, r = i[apart], vectors[apart], r[apart]
        total += 0.5 * self.between(r).sum()
        slope = self.between.first_derivative(r)
        np.add.at(forces, i, (slope / r)[:, None] * vectors)
        return float(total), forces


NITROGEN = {
    "length_A": 1.10,
    "depth_eV": 9.9,
    "width_per_A": 2.7,
    "epsilon_eV": 0.0032,
    "sigma_A": 3.3,
}


IODINE = {
    "length_A": 2.67,
    "depth_eV": 1.6,
    "width_per_A": 1.86,
    "epsilon_eV": 0.021,
    "sigma_A": 3.6,
}


HYDROGEN = {
    "length_A": 0.74,
    "depth_eV": 4.7,
    "width_per_A": 1.94,
    "epsilon_eV": 0.003,
    "sigma_A": 2.6,
}


#: epsilon (eV), sigma (A), number density of the liquid (1/A^3), melting range (K)
NOBLE = {
    "Ar": (0.0104, 3.40, 0.0210),
    "Kr": (0.0140, 3.65, 0.0173),
    "Xe": (0.0190, 4.07, 0.0135),
}


Built = tuple[Atoms, Calculator]


def metal(symbol: str, cells: int = 2, second: str | None = None) -> Built:
    """An fcc crystal of 4 ``cells``^3 atoms; with ``second``, an alloy A3B."""
    atoms = bulk(symbol, cubic=True) * (cells, cells, cells)
    if second:
        atoms.symbols[::4] = second
    return atoms, EMT()


def slab(adatom: str | None = None) -> Built:
    """Copper with 10 A of vacuum, and an atom on it."""
    atoms = fcc111("Cu", (3, 3, 3), vacuum=5.0, periodic=True)
    if adatom:
        add_adsorbate(atoms, adatom, 2.0, "fcc")
    return atoms, EMT()


def cluster() -> Built:
    """Nineteen copper atoms in open space."""
    return Octahedron("Cu", 3), EMT()


def noble(symbol: str, cells: int = 3, density: float = 1.0) -> Built:
    """A noble gas on an fcc lattice, at the density of the liquid times a factor."""
    epsilon, sigma, per_A3 = NOBLE[symbol]
    a = (4 / (density * per_A3)) ** (1 / 3)
    atoms = bulk(symbol, cubic=True, a=a) * (cells, cells, cells)
    pair = LennardJonesQuadratic(epsilon, sigma, 2.5 * sigma)
    return atoms, PairPotential({(atoms.numbers[0],) * 2: pair})


def noble_drop(symbol: str, pbc: bool) -> Built:
    """The crystal with vacuum around it: a slab, or a drop in open space."""
    atoms, potential = noble(symbol, density=1.2)
    axes = (2,) if pbc else (0, 1, 2)
    atoms.center(vacuum=8.0, axis=axes)
    atoms.pbc = pbc
    return atoms, potential


def salt(a: float = 5.64) -> Built:
    """Sixty-four ions on the rock-salt lattice."""
    atoms = bulk("NaCl", "rocksalt", a=a, cubic=True) * (2, 2, 2)
    return atoms, BornMayer(atoms)


def diatomics(symbol: str, spacing_A: float, n: int = 3, **bond: float) -> Built:
    """Molecules on a cubic lattice, side by side."""
    atoms = Atoms(cell=[n * spacing_A] * 3, pbc=True)
    for site in np.indices((n, n, n)).reshape(3, -1).T:
        half = 0.5 * bond["length_A"] * np.array([0.6, 0.0, 0.8])
        centre = (site + 0.5) * spacing_A
        atoms += Atoms([symbol] * 2, positions=[centre - half, centre + half])
    return atoms, Diatomics(atoms, **bond)


def lone(name: str, **bond: float) -> Built:
    """One molecule in open space."""
    atoms = molecule(name)
    return atoms, Diatomics(atoms, **bond)


def springs(cells: int = 2, symbol: str = "Cu") -> Built:
    """An Einstein crystal."""
    atoms = bulk("Cu", cubic=True) * (cells, cells, cells)
    atoms.symbols[:] = symbol
    return atoms, Einstein(atoms.positions, 12.0)
