"""Systems whose exact potentials cannot explode, and how each is simulated.

Every row of :data:`SYSTEMS` is a situation that people simulate: none may be called a
failure. Docs show the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms, units
from ase.build import add_adsorbate, bulk, fcc111, molecule
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT
from ase.cluster import Octahedron
from matscipy.calculators.pair_potential import LennardJonesQuadratic, PairPotential
from matscipy.neighbours import neighbour_list
from scipy.special import erfc

from nequip_decorr.md import Protocol, preset
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Job, MDState
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


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        name: for people.
        build: makes the atoms and their exact potential.
        protocol: how it is simulated.
        equilibrated_K: temperature of the run that the start is a snapshot of; None
            starts from the lattice.
        slow: takes more than two seconds.
    """

    name: str
    build: Callable[[], Built]
    protocol: Protocol
    equilibrated_K: float | None = None
    slow: bool = field(default=True)

    def start(self) -> Built:
        """The start structure and its potential."""
        atoms, potential = self.build()
        if self.equilibrated_K is not None:
            atoms.positions = snapshot(
                atoms, potential, self.equilibrated_K, self.protocol.timestep_fs
            )
        return atoms, potential


class _Last:
    """An observer that lets a run go on for a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def before_forces(self, *_: Any) -> bool:
        return True

    def after_step(self, frame: Any, _: Any) -> bool:
        self.positions = frame.positions_A
        return bool(frame.step < self.steps)

    def fault(self, *_: Any) -> None:
        raise AssertionError("a sound potential raised")


def snapshot(
    atoms: Atoms, potential: Calculator, temperature_K: float, timestep_fs: float
) -> np.ndarray:
    """Positions after 150 steps of strongly damped dynamics at a temperature."""
    protocol = Protocol(
        temperatures_K=(temperature_K,), timestep_fs=timestep_fs, friction_per_fs=0.05
    )
    last = _Last(150)
    state = MDState(0, atoms.get_positions(), np.zeros((len(atoms), 3)))
    job = Job(0, atoms, temperature_K, (5,), state)
    engines.build("ase", potential, protocol).run([job], last)
    return last.positions


def at(
    temperature_K: float,
    ensemble: str = "langevin",
    *,
    ps: float = 1.0,
    dt: float = 4.0,
    base: Protocol | None = None,
    **changes: Any,
) -> Protocol:
    """A protocol of one replica."""
    return replace(
        base or Protocol(),
        ensemble=ensemble,
        temperatures_K=(temperature_K,),
        timestep_fs=dt,
        horizon_ps=ps,
        replicas=1,
        frame_interval_steps=None,
        **changes,
    )


def ramp(start_K: float, end_K: float, **changes: Any) -> Protocol:
    """From one temperature to another."""
    return at(start_K, "ramp", ramp_end_temperature_K=end_K, **changes)


WEAK = {"friction_per_fs": 0.001}
MOLECULES = preset("molecule")

SYSTEMS = [
    System("copper", metal_cu := lambda: metal("Cu"), at(300), slow=False),
    System("copper, snapshot of 1200 K", metal_cu, at(300), 1200),
    System("copper, snapshot of 1200 K", metal_cu, at(300, "nve"), 1200),
    System("copper, snapshot of 1200 K", metal_cu, at(300, "nose-hoover"), 1200),
    System(
        "copper, snapshot of 1200 K, weak friction", metal_cu, at(300, **WEAK), 1200
    ),
    System("copper, snapshot of 600 K", metal_cu, at(10), 600),
    System("copper, cooled", metal_cu, ramp(1200, 20), 1200),
    System("copper, cooled, weak friction", metal_cu, ramp(1200, 20, **WEAK), 1200),
    System("copper, heated", metal_cu, ramp(20, 1500)),
    System("copper, cold", metal_cu, at(10, "nose-hoover")),
    System("aluminium", lambda: metal("Al"), at(600, "nve", dt=2.0)),
    System("nickel", lambda: metal("Ni", 3), at(1000, "nose-hoover", ps=0.4)),
    System(
        "gold, 8 atoms", lambda: (bulk("Au", cubic=True) * (1, 1, 2), EMT()), at(500)
    ),
    System("platinum, liquid", lambda: metal("Pt"), at(3000)),
    System("platinum, liquid quenched", lambda: metal("Pt"), ramp(3000, 300), 3000),
    System("Cu3Au", lambda: metal("Cu", second="Au"), at(900, "nve"), 1500),
    System("Pd3Ag, heated", lambda: metal("Pd", second="Ag"), ramp(300, 2000)),
    System("copper slab with vacuum", slab, at(300, "nve")),
    System("copper slab with vacuum, hot", slab, at(1800)),
    System("gold atom on copper", lambda: slab("Au"), at(600, "nose-hoover")),
    System("gold atom on copper, hot", lambda: slab("Au"), at(2500)),
    System("copper cluster", cluster, at(600, "nve")),
    System("copper cluster, evaporating", cluster, at(3000)),
    System("argon, liquid", lambda: noble("Ar"), at(90, dt=8.0, ps=4.0)),
    System("argon, liquid", lambda: noble("Ar"), at(90, "nve", dt=8.0, ps=4.0), 140),
    System(
        "argon, liquid quenched",
        lambda: noble("Ar"),
        ramp(300, 10, dt=8.0, ps=4.0),
        300,
    ),
    System(
        "argon, crystal",
        lambda: noble("Ar", density=1.2),
        at(10, "nose-hoover", dt=8.0, ps=4.0),
    ),
    System(
        "argon, gas", lambda: noble("Ar", density=0.02), at(3000, "nve", dt=4.0, ps=4.0)
    ),
    System("argon, gas", lambda: noble("Ar", density=0.1), at(300, dt=8.0, ps=8.0)),
    System(
        "argon slab, evaporating",
        lambda: noble_drop("Ar", True),
        at(100, dt=8.0, ps=4.0),
    ),
    System(
        "argon drop, evaporating",
        lambda: noble_drop("Ar", False),
        at(90, "nve", dt=8.0, ps=4.0),
    ),
    System(
        "krypton, liquid",
        lambda: noble("Kr"),
        at(125, "nose-hoover", dt=8.0, ps=4.0),
        slow=False,
    ),
    System(
        "xenon, liquid", lambda: noble("Xe"), at(165, dt=8.0, ps=4.0), 165, slow=False
    ),
    System(
        "xenon, liquid, 2048 atoms",
        lambda: noble("Xe", 8),
        at(165, "nve", dt=8.0, ps=1.0),
        250,
    ),
    System("xenon, heated", lambda: noble("Xe", 4), ramp(20, 600, dt=8.0, ps=4.0)),
    System("rock salt", salt, at(300, "nve", dt=2.0)),
    System("rock salt, melting", lambda: salt(6.1), at(1400, dt=2.0, ps=2.0)),
    System("molten salt", lambda: salt(6.1), at(1100, "nose-hoover", dt=2.0), 1600),
    System("molten salt", lambda: salt(6.5), at(3000, dt=2.0)),
    System("molten salt, quenched", lambda: salt(6.1), ramp(1600, 100, dt=2.0), 1600),
    System(
        "nitrogen, crystal",
        lambda: diatomics("N", 3.9, **NITROGEN),
        at(20, "nose-hoover", dt=1.0),
    ),
    System(
        "nitrogen, liquid",
        lambda: diatomics("N", 3.9, **NITROGEN),
        at(77, "nve", dt=1.0),
        150,
    ),
    System("nitrogen, gas", lambda: diatomics("N", 8.0, **NITROGEN), at(1000, dt=1.0)),
    System(
        "nitrogen, gas",
        lambda: diatomics("N", 8.0, **NITROGEN),
        at(2000, dt=0.5, base=MOLECULES),
    ),
    System(
        "iodine, crystal",
        lambda: diatomics("I", 5.6, **IODINE),
        at(150, dt=4.0, base=MOLECULES),
    ),
    System(
        "iodine, heated",
        lambda: diatomics("I", 5.6, **IODINE),
        ramp(100, 600, dt=4.0, base=MOLECULES),
    ),
    System(
        "hydrogen, gas",
        lambda: diatomics("H", 6.0, **HYDROGEN),
        at(3000, "nve", dt=0.5),
    ),
    System(
        "one nitrogen molecule",
        lambda: lone("N2", **NITROGEN),
        at(1200, dt=0.5, base=MOLECULES),
        slow=False,
    ),
    System("spring crystal", springs, at(300, "nose-hoover"), slow=False),
    System("spring crystal, snapshot of 3000 K", springs, at(300), 3000, slow=False),
    System(
        "spring crystal, cold start", springs, at(3000, "nose-hoover"), 10, slow=False
    ),
    System(
        "spring crystal of hydrogen",
        lambda: springs(1, "H"),
        at(3000, dt=2.0),
        slow=False,
    ),
]
