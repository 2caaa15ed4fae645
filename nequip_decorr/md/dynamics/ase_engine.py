"""The engine that moves one replica at a time with ase's integrators."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
from ase import Atoms, units
from ase.calculators.calculator import Calculator, all_changes
from ase.md.langevinbaoab import LangevinBAOAB
from ase.md.md import MolecularDynamics
from ase.md.nose_hoover_chain import NoseHooverChainNVT, NoseHooverChainThermostat
from ase.md.verlet import VelocityVerlet

from nequip_decorr.md.dynamics.contract import (
    Array,
    Frame,
    Job,
    MDState,
    ModelBrokenError,
    Observer,
    OutOfMemoryError,
    degrees_of_freedom,
)
from nequip_decorr.md.models import load_nequip_calculator
from nequip_decorr.md.protocol import Protocol


class AseEngine:
    """Moves replicas one by one (see :mod:`nequip_decorr.md.dynamics.contract`).

    Args:
        calculator: an ase calculator with energy and forces.
        protocol: ensemble, time step, friction and thermostat time are taken.
    """

    batched = False

    def __init__(self, calculator: Calculator, protocol: Protocol) -> None:
        self._calculator = calculator
        self._protocol = protocol

    def run(self, jobs: Iterable[Job], observer: Observer) -> None:
        """Move the jobs until the observer has let go of each."""
        for job in jobs:
            self._run_one(job, observer)

    def _run_one(self, job: Job, observer: Observer) -> None:
        protocol, state = self._protocol, job.state
        atoms = job.atoms.copy()
        atoms.set_constraint()
        atoms.set_positions(state.positions_A)
        atoms.set_momenta(state.momenta)
        step = state.step
        gate = _Gate(
            self._calculator,
            lambda positions: observer.before_forces(job.replica, step, positions),
        )
        atoms.calc = gate
        if state.forces_eV_per_A is not None:
            gate.remember(atoms, state.energy_eV, state.forces_eV_per_A)
        rng = np.random.default_rng(job.entropy)
        if state.rng_state is not None:
            rng.bit_generator.state = state.rng_state

        def goes_on() -> bool:
            frame = _frame(job.replica, step, atoms, gate)
            return observer.after_step(frame, lambda: _snapshot(frame, rng, dynamics))

        try:
            atoms.get_forces()
            dynamics = _dynamics(atoms, protocol, job.temperature_K, rng)
            if state.extra:
                dynamics.extra = state.extra
            going = state.forces_eV_per_A is not None or goes_on()
            while going:
                if protocol.ensemble == "ramp":
                    dynamics.set_temperature(
                        protocol.target_temperature_K(job.temperature_K, step)
                    )
                step += 1
                # what overflows in a thermostat is not finite, and found so
                with np.errstate(over="ignore", invalid="ignore"):
                    dynamics.step()
                going = goes_on()
        except _Dropped:
            return
        except _Fault as fault:
            observer.fault(job.replica, step, fault.error)


class _Dropped(Exception):  # noqa: N818
    """The observer let go of the replica before the model was called."""


class _Fault(Exception):  # noqa: N818
    """The model raises on these positions, twice, and not on the ones before."""

    def __init__(self, error: Exception) -> None:
        super().__init__(str(error))
        self.error = error


class _Gate(Calculator):
    """Stands before a calculator: asks before each call, sorts out its faults."""

    implemented_properties: ClassVar[list[str]] = ["energy", "forces"]

    def __init__(
        self, calculator: Calculator, let_through: Callable[[Array], bool]
    ) -> None:
        super().__init__()
        self._calculator = calculator
        self._let_through = let_through

    def remember(self, atoms: Atoms, energy_eV: float | None, forces: Array) -> None:
        """Take these results for those of ``atoms``, without a call."""
        self.atoms = atoms.copy()
        self.results = {"energy": energy_eV, "forces": forces}

    @property
    def energy_eV(self) -> float:
        """Energy of the last call."""
        return float(np.asarray(self.results["energy"]))

    @property
    def forces(self) -> Array:
        """Forces of the last call; a new array each time."""
        return np.asarray(self.results["forces"])

    def calculate(
        self,
        atoms: Any = None,
        properties: Any = None,
        system_changes: Any = all_changes,
    ) -> None:
        if not self._let_through(atoms.get_positions()):
            raise _Dropped
        last_good = self.atoms if self.results else None
        try:
            results = self._evaluate(atoms)
        except Exception as error:
            if out_of_memory(error):
                raise OutOfMemoryError(str(error)) from error
            results = self._ask_again(atoms, last_good)
        self.atoms = atoms.copy()
        self.results = results

    def check_state(self, atoms: Any, tol: float = 1e-15) -> list[str]:
        """Positions alone change in a run; ase's own test costs as much as a model."""
        known = self.atoms is not None and np.array_equal(
            atoms.positions, self.atoms.positions
        )
        return [] if known else ["positions"]

    def get_property(
        self, name: str, atoms: Any = None, allow_calculation: bool = True
    ) -> Any:
        # The base class empties `results` before it calculates, and with them the
        # knowledge of whether anything worked before.
        if atoms is not None and self.check_state(atoms):
            self.calculate(atoms)
        return super().get_property(name, None, allow_calculation)

    def _evaluate(self, atoms: Atoms) -> dict[str, Any]:
        # as if all had changed: what comes out must not depend on calls before
        self._calculator.calculate(atoms, ["energy", "forces"], all_changes)
        results = self._calculator.results
        return {
            "energy": float(results["energy"]),
            "forces": np.array(results["forces"], dtype=np.float64),
        }

    def _ask_again(self, atoms: Atoms, last_good: Atoms | None) -> dict[str, Any]:
        self._calculator.reset()
        try:
            return self._evaluate(atoms)
        except Exception as error:
            self._calculator.reset()
            if last_good is None:
                raise ModelBrokenError(
                    f"the model raises on a start structure "
                    f"({atoms.get_chemical_formula()}; {type(error).__name__}: "
                    f"{error}); check that they belong together"
                ) from error
            try:
                self._evaluate(last_good)
            except Exception as broken:
                raise ModelBrokenError(
                    f"the model raises where it worked before "
                    f"({type(broken).__name__}: {broken}); check the machine and run "
                    "the same command again"
                ) from broken
            raise _Fault(error) from error


def out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that memory ran out, on any device."""
    text = str(error).lower()
    return isinstance(error, MemoryError) or (
        isinstance(error, RuntimeError)
        and ("out of memory" in text or "can't allocate memory" in text)
    )


class _NoseHoover(NoseHooverChainNVT):
    """Ase's chain with 3N - 3 degrees of freedom: total momentum is conserved."""

    def __init__(self, atoms: Atoms, temperature_K: float, **options: Any) -> None:
        super().__init__(atoms, temperature_K=temperature_K, **options)
        self._thermostat = NoseHooverChainThermostat(
            num_atoms_global=degrees_of_freedom(len(atoms), "nose-hoover") // 3,
            masses=self.masses,
            temperature_K=temperature_K,
            tdamp=options["tdamp"],
        )

    @property
    def extra(self) -> dict[str, Array]:
        """The chain's variables (copies)."""
        chain = self._thermostat
        return {"eta": chain._eta.copy(), "p_eta": chain._p_eta.copy()}

    @extra.setter
    def extra(self, values: dict[str, Array]) -> None:
        self._thermostat._eta[:] = values["eta"]
        self._thermostat._p_eta[:] = values["p_eta"]


def _dynamics(
    atoms: Atoms, protocol: Protocol, temperature_K: float, rng: np.random.Generator
) -> MolecularDynamics:
    timestep = protocol.timestep_fs * units.fs
    if protocol.ensemble == "nve":
        return VelocityVerlet(atoms, timestep)
    if protocol.ensemble == "nose-hoover":
        return _NoseHoover(
            atoms,
            temperature_K,
            timestep=timestep,
            tdamp=protocol.thermostat_time_fs * units.fs,
        )
    return LangevinBAOAB(
        atoms,
        timestep,
        temperature_K=temperature_K,
        T_tau=units.fs / protocol.friction_per_fs,
        # at constant volume this only chooses exp() over a matrix exponential
        hydrostatic=True,
        rng=rng,
    )


def _frame(replica: int, step: int, atoms: Atoms, gate: _Gate) -> Frame:
    return Frame(
        replica=replica,
        step=step,
        positions_A=atoms.get_positions(),
        momenta=atoms.get_momenta(),
        forces_eV_per_A=gate.forces,
        energy_eV=gate.energy_eV,
    )


def _snapshot(
    frame: Frame, rng: np.random.Generator, dynamics: MolecularDynamics
) -> MDState:
    return MDState(
        step=frame.step,
        positions_A=frame.positions_A,
        momenta=frame.momenta,
        forces_eV_per_A=frame.forces_eV_per_A,
        energy_eV=frame.energy_eV,
        rng_state=dict(rng.bit_generator.state),
        extra=getattr(dynamics, "extra", {}),
    )


def load(path: Path, kind: str, device: str) -> Calculator:
    """Open a model file as an ase calculator."""
    return load_nequip_calculator(path, kind, device)


def build(model: Calculator, protocol: Protocol) -> AseEngine:
    """The engine for a calculator and a protocol."""
    return AseEngine(model, protocol)
