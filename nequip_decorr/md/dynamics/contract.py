"""The contract between engines, which move atoms, and observers, which judge replicas.

An engine takes replicas as :class:`Job` and integrates them until the observer drops
them. It knows nothing of criteria, horizons, records or files. For every job, in any
order and in batches of any size, it calls

1. ``before_forces(replica, step, positions)`` when positions are new and the model
   has not been called on them. If it returns False, the replica is dropped: the model
   never sees these positions.
2. the model, on a batch of positions that were all accepted;
3. ``after_step(frame, snapshot)`` when positions, momenta, forces and energy of the
   step are complete, before anything moves again. If it returns False, the replica is
   dropped.

A fresh job (``state.forces_eV_per_A is None``) begins with 1-3 for its step 0; a
resumed one begins with the step after ``state.step`` and does not call the model on
positions whose forces it has.

An engine guarantees:

- A replica's path depends on its job alone: its random numbers come from
  ``job.entropy`` and ``state.rng_state``, never from who shares the batch.
- How random numbers are used is up to the engine; start positions and momenta are part
  of the job.
- A dropped replica costs nothing from then on. Non-finite numbers in one replica do not
  affect the others.
- ``frame`` arrays belong to the observer: the engine never writes to them again.
- ``snapshot()`` is called at most once, during ``after_step``; an engine started
  from it continues bit for bit (on the CPU) as if it had never stopped.
- Positions are not wrapped into the cell.
- A model that raises is asked again. When it raises again on these positions, and
  still works on the last good ones, the replica is dropped by ``fault``; when it
  fails there too, or on the first positions of a fresh job, the model or the machine
  is broken: :class:`ModelBrokenError`.
  Memory that runs out is :class:`OutOfMemoryError`; both end ``run``.
- Exceptions raised by the observer pass through. Within a call, the observer may run
  another engine on the same model.

Momenta are in ase units, amu * Angstrom / (ase time). Langevin dynamics (BAOAB) keep
all 3N degrees of freedom, Nose-Hoover and NVE conserve the total momentum, which
starts at zero (:func:`nequip_decorr.md.protocol.conserves_momentum`).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

from nequip_decorr.md.frames import Array, Frame

if TYPE_CHECKING:
    from ase import Atoms


class ModelBrokenError(RuntimeError):
    """The model fails where it worked before, so no replica is to blame."""


class OutOfMemoryError(RuntimeError):
    """The model needs more memory than is available."""


class System(NamedTuple):
    """A structure (numbers, masses, cell, periodicity) and its positions, (N, 3)."""

    atoms: Atoms
    positions_A: Array


class Forces(NamedTuple):
    """Energy in eV and forces in eV/A, (N, 3), of one structure."""

    energy_eV: float
    forces_eV_per_A: Array


class ForceProvider(Protocol):
    """Where an engine gets energies and forces from."""

    def __call__(self, systems: Sequence[System]) -> list[Forces | Exception]:
        """Energy and forces of each structure, or the exception raised on it.

        An exception affects only its own structure: the others get their forces, and
        later calls work as usual.
        """


@dataclass(frozen=True)
class MDState:
    """Everything that determines how a replica continues.

    Attributes:
        step: steps taken.
        positions_A: (N, 3), not wrapped.
        momenta: (N, 3), ase units.
        forces_eV_per_A: (N, 3), None before the first model call.
        energy_eV: potential energy, None before the first model call.
        rng_state: state of the random generator, in JSON types; None for a fresh one.
        extra: the engine's own arrays (a thermostat's variables).
    """

    step: int
    positions_A: Array
    momenta: Array
    forces_eV_per_A: Array | None = None
    energy_eV: float | None = None
    rng_state: dict[str, Any] | None = None
    extra: Mapping[str, Array] = field(default_factory=dict)


@dataclass(frozen=True)
class Job:
    """One replica to move.

    Attributes:
        replica: its index, which is passed back to the observer.
        atoms: numbers, masses, cell and periodicity (positions are in ``state``).
        temperature_K: target (at the start, for a ramp).
        entropy: seeds the replica's own random numbers
            (:class:`numpy.random.SeedSequence`).
        state: the state from which it starts or resumes.
    """

    replica: int
    atoms: Atoms
    temperature_K: float
    entropy: tuple[int, ...]
    state: MDState


class Observer(Protocol):
    """Receives the reports of an engine; see the module docstring for when."""

    def before_forces(self, replica: int, step: int, positions_A: Array) -> bool:
        """Whether the model may be called on these positions."""

    def after_step(self, frame: Frame, snapshot: Callable[[], MDState]) -> bool:
        """Whether the replica continues."""

    def fault(self, replica: int, step: int, error: Exception) -> None:
        """The model raises, reproducibly, on this replica's positions of ``step``."""


class Engine(Protocol):
    """Moves replicas; built for one model, ensemble and time step."""

    def run(self, jobs: Iterable[Job], observer: Observer) -> None:
        """Integrate all jobs until the observer has dropped them."""
