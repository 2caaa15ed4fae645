"""The failure criteria of ``nequip-decorr md``, applied to frames of a trajectory."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
from ase import Atoms, units
from ase.cell import Cell
from ase.data import atomic_masses

from nequip_decorr.md.criteria.heat import Heat
from nequip_decorr.md.criteria.monitor import Watch, squares
from nequip_decorr.md.criteria.violation import Names, Violation
from nequip_decorr.md.criteria.warmth import Warmth, warmth
from nequip_decorr.md.frames import Array, Frame
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom
from nequip_decorr.md.results import kind_of
from nequip_decorr.md.trajectories.snapshot import Snapshot

#: A start this many canonical standard deviations above the target holds heat.
HOT_START_SIGMA = 5.0

#: A cell of a smaller volume has collapsed to a plane, a line or a point, A^3.
LEAST_VOLUME_A3 = 1e-12


@dataclass(frozen=True)
class Found:
    """An event: the test that failed, at which step, and the last frame before it."""

    violation: Violation
    step: int
    last_good: Snapshot | None = None


def reference_warmth(
    protocol: Protocol, temperature_K: float, n_atoms: int, first: Snapshot | None
) -> Warmth:
    """Reference temperature of a replica; a start above the target adds heat.

    Args:
        protocol: ensemble, thermostat, stored energy.
        temperature_K: target temperature.
        n_atoms: number of atoms.
        first: the first frame, whose velocities are used if it has any.
    """
    dof = degrees_of_freedom(n_atoms, protocol.ensemble)
    excess_K = 0.0
    start_K = None if first is None else temperature_of(first, dof)
    if start_K is not None:
        usual = HOT_START_SIGMA * temperature_K * math.sqrt(2 / dof)
        excess_K = start_K - temperature_K if start_K > temperature_K + usual else 0.0
    return warmth(protocol, temperature_K, excess_K)


def kinetic_energy_eV(frame: Snapshot) -> float | None:
    """Kinetic energy of all atoms; None if the frame does not contain it."""
    if frame.momenta is None:
        return frame.kinetic_energy_eV
    masses = atomic_masses[frame.numbers] if frame.masses is None else frame.masses
    return float(0.5 * (squares(frame.momenta) / masses).sum())


def temperature_of(frame: Snapshot, degrees_of_freedom: int) -> float | None:
    """Temperature of a frame; None if the frame does not contain it."""
    kinetic_eV = kinetic_energy_eV(frame)
    if kinetic_eV is None:
        return None
    return float(2 * kinetic_eV / (degrees_of_freedom * units.kB))


def atoms_of(frame: Snapshot) -> Atoms:
    """A frame as an ase ``Atoms`` object."""
    atoms = Atoms(
        numbers=frame.numbers,
        positions=frame.positions_A,
        cell=frame.cell_A,
        pbc=frame.pbc,
    )
    if frame.masses is not None:
        atoms.set_masses(frame.masses)
    if frame.momenta is not None:
        atoms.set_momenta(frame.momenta)
    return atoms


class Judge:
    """Tests the frames of one replica, as `md` tests each step.

    Frames that are one step apart are also tested for the displacement of each atom.
    Data missing from a frame are not tested.

    Args:
        start: reference structure for bonds and fragments, with masses and cell.
        protocol: criteria and time step.
        warmth: the temperature that a sound replica may have.
        interval_steps: MD steps between frames.
    """

    def __init__(
        self,
        start: Atoms,
        protocol: Protocol,
        warmth: Warmth,
        *,
        interval_steps: int,
    ) -> None:
        self._zeros = np.zeros((len(start), 3))
        self._names = Names(start)
        self._dof = degrees_of_freedom(len(start), protocol.ensemble)
        self._heat = Heat(
            protocol.criteria,
            self._names,
            timestep_fs=protocol.timestep_fs,
            degrees_of_freedom=self._dof,
            warmth=warmth,
        )
        criteria = protocol.criteria
        if interval_steps > 1:
            criteria = replace(criteria, max_displacement_A=None)
        # bonds are tested when md would test them, or at each frame
        check = protocol.check_interval_steps
        aligned = interval_steps <= check and check % interval_steps == 0
        self._watch = Watch(
            start,
            criteria,
            timestep_fs=protocol.timestep_fs,
            degrees_of_freedom=self._dof,
            warmth=warmth,
            check_interval_steps=check if aligned else 1,
            records=False,
        )
        self._last_step = -interval_steps
        self._interval = interval_steps
        self._cell = start.cell.array * start.pbc[:, None]
        #: the last frame without a violation
        self.last_good: Snapshot | None = None
        #: the first event of each kind
        self.events: dict[str, Found] = {}

    def __call__(self, frame: Snapshot, step: int) -> None:
        """Test the frame of a step; events are added to :attr:`events`."""
        violation = self._test(frame, step)
        self._last_step = step
        if violation is not None and kind_of(violation.cause) == "unphysical":
            self._note(violation, step)
            whole = self._whole(frame, step)
            violation = self._watch.past_unphysical(whole) or self._total_heat(
                frame, step
            )
        if violation is not None:
            self._note(violation, step)
        elif self._watch.calm:
            self.last_good = frame

    def _note(self, violation: Violation, step: int) -> None:
        event = Found(violation, step, self.last_good)
        self.events.setdefault(kind_of(violation.cause), event)

    def _test(self, frame: Snapshot, step: int) -> Violation | None:
        if frame.lost:
            n = len(frame.numbers)
            left = f"{n - len(frame.lost)} of {n} atoms are left, lost are"
            message = f"{left} {self._names(frame.lost)}"
            return Violation("blowup", message, frame.lost)
        broken = self._follow_cell(frame)
        if broken is not None:
            return broken
        if step - self._last_step != self._interval or frame.joined:
            # frames are missing: nothing moved here in one step
            watch = self._watch
            watch.restore(watch.state(), frame.positions_A, watch.seen)
            if step % watch.check_interval_steps:
                # or no later frame might be at a step at which md tests bonds
                watch.check_interval_steps = 1
        return (
            self._watch.before_forces(frame.positions_A)
            or self._watch.after_step(self._whole(frame, step))
            or self._total_heat(frame, step)
        )

    def _whole(self, frame: Snapshot, step: int) -> Frame:
        """The frame in the form that `md` uses, with zeros for missing data."""
        return Frame(
            replica=0,
            step=step,
            positions_A=frame.positions_A,
            momenta=_or(frame.momenta, self._zeros),
            forces_eV_per_A=_or(frame.forces_eV_per_A, self._zeros),
            energy_eV=0.0 if frame.energy_eV is None else frame.energy_eV,
        )

    def _total_heat(self, frame: Snapshot, step: int) -> Violation | None:
        """Test the temperature if only the total kinetic energy is known."""
        if frame.momenta is not None or frame.kinetic_energy_eV is None:
            return None
        return heat_of_all(
            self._heat, frame.kinetic_energy_eV, len(frame.numbers), step
        )

    def _follow_cell(self, frame: Snapshot) -> Violation | None:
        """Test in the cell of the frame from now on, if it is one."""
        cell = frame.cell_A * frame.pbc[:, None]
        if np.array_equal(cell, self._cell):
            return None
        if not np.isfinite(frame.cell_A).all():
            return Violation("nonfinite", "the cell is not finite")
        volume_A3 = Cell(cell).complete().volume
        if volume_A3 < LEAST_VOLUME_A3:
            message = f"the volume of the cell is {volume_A3:.2g} A^3"
            return Violation("nonfinite", message)
        self._cell = cell
        self._watch.follow_cell(frame.cell_A)
        return None


def heat_of_all(
    heat: Heat, kinetic_eV: float, n_atoms: int, step: int
) -> Violation | None:
    """Test a total kinetic energy as if all atoms had an equal share."""
    if not math.isfinite(kinetic_eV):
        return Violation("nonfinite", f"the kinetic energy is {kinetic_eV}")
    kelvin = heat.temperature_K(kinetic_eV)
    return heat(kelvin, (0, kinetic_eV / n_atoms), step)


def _or(values: Array | None, zeros: Array) -> Array:
    return zeros if values is None else values
