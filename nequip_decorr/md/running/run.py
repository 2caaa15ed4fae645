"""A whole stability run: plan, run or resume, and write the result file."""

from __future__ import annotations

import time
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from ase import Atoms
from rich.console import Console

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.models import ModelHandle, calculator_model, load_model
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.batch import (
    Stop,
    Work,
    disk_full,
    fingerprint,
    run_replicas,
)
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.pool import run_in_processes, shared_steps
from nequip_decorr.md.running.progress import Display
from nequip_decorr.md.running.replica import Plan, describe
from nequip_decorr.md.running.session import caught_signals, machine, torch_threads
from nequip_decorr.md.structures import (
    check_structures,
    prepare_structures,
    read_structures,
    structure_hash,
    structure_name,
)
from nequip_decorr.species import MAP_KEY

#: Wall time between two writings of the result file while replicas run, s.
RESULT_EVERY_S = 20.0


class RunStoppedError(RuntimeError):
    """A run stopped before its end; what it found so far is in the result file.

    Attributes:
        result: what is in that file (``complete`` is False).
        reason: one of :data:`nequip_decorr.md.results.CENSORED_BY`.
    """

    def __init__(self, message: str, result: results.RunResult, reason: str) -> None:
        super().__init__(message)
        self.result = result
        self.reason = reason


def run_stability(
    model: Any,
    structures: str | Path | Atoms | Sequence[Atoms],
    protocol: Protocol,
    *,
    output: str | Path,
    engine: str = "ase",
    device: str = "cpu",
    processes: int = 1,
    chemical_species_to_atom_type_map: Mapping[str, str] | None = None,
    save_every_s: float = 2.0,
    console: Console | None = None,
) -> results.RunResult:
    """Run replicas until each has failed or reached the horizon.

    In a folder that holds an unfinished run of the same model, structures and
    protocol, that run goes on; a finished one is only read.

    Args:
        model: path of a NequIP model file, a :class:`ModelHandle`, an ase calculator,
            or a function (importable by name, for several processes) that makes one.
            A calculator is known again by its class and by what it says of the first
            structure, which costs one call.
        structures: a file that ase reads, or structures. Velocities in them are used
            with ``protocol.keep_velocities``, constraints are refused without
            ``protocol.drop_constraints``.
        protocol: what is run.
        output: folder of the run; ``result.json`` in it is the result file.
        engine: one of :data:`nequip_decorr.md.dynamics.engines.ENGINES`.
        device: ``cpu`` or ``cuda``.
        processes: worker processes; results do not depend on how many.
        chemical_species_to_atom_type_map: for a model file, see
            :func:`nequip_decorr.md.load_model`.
        save_every_s: wall time between two saved states of a replica: what a killed
            run loses at most.
        console: where progress is shown; None for silence.

    Returns:
        The result, as written to ``result.json``.

    Raises:
        UserError: for input that cannot be run, and for a folder
            that holds another run.
        RunStoppedError: when it is interrupted (SIGINT, SIGTERM), memory or disk ran
            out, the model broke, or a worker process died. All so far is kept; the
            same call goes on.
    """
    handle = _handle(model, engine, device, chemical_species_to_atom_type_map)
    if not processes >= 1:
        raise UserError(f"expected at least 1 process, got {processes}")
    if processes > 1 and handle.open is None:
        raise UserError(
            "expected a function that makes the calculator for several processes, "
            f"got {handle.path} itself; give the function or use one process"
        )
    starts, said_of_them = prepare_structures(
        _structures(structures),
        keep_velocities=protocol.keep_velocities,
        drop_constraints=protocol.drop_constraints,
    )
    said_of_them += check_structures(
        starts,
        species=handle.species,
        cutoff_A=handle.cutoff_A,
        min_distance_ratio=protocol.criteria.min_distance_ratio,
    )
    for line in said_of_them:
        warnings.warn(line, stacklevel=2)
    folder = RunFolder(output)
    identity = {
        "schema": results.SCHEMA,
        "model": handle.identity(),
        "structures": [structure_hash(atoms) for atoms in starts],
        "protocol": {**protocol.to_dict(), "structures": None},
        "engine": engine,
        "device": device,
    }
    with folder.held(identity):
        # the name of a calculator's class says nothing of its parameters
        said = (
            fingerprint(engine, handle.loaded, protocol, starts[0])
            if handle.kind == "calculator"
            else None
        )
        if said is not None:
            folder.recognise(said)
        run = _Run(
            handle,
            starts,
            protocol,
            folder,
            engine=engine,
            device=device,
            processes=processes,
        )
        return run.go(save_every_s, console)


def plan_replicas(structures: Sequence[Atoms], protocol: Protocol) -> list[Plan]:
    """All replicas of a protocol: structures x temperatures x seeds."""
    plans: list[Plan] = []
    for structure, atoms in enumerate(structures):
        for temperature_K in protocol.temperatures_K:
            for seed in range(protocol.seed, protocol.seed + protocol.replicas):
                plans.append(
                    Plan(
                        index=len(plans),
                        structure=structure,
                        structure_name=structure_name(atoms, structure),
                        atoms=atoms,
                        temperature_K=float(temperature_K),
                        seed=seed,
                    )
                )
    return plans


class _Run:
    """One session of a run, in an open folder."""

    def __init__(
        self,
        handle: ModelHandle,
        structures: Sequence[Atoms],
        protocol: Protocol,
        folder: RunFolder,
        *,
        engine: str,
        device: str,
        processes: int,
    ) -> None:
        self.handle = handle
        self.protocol = protocol
        self.folder = folder
        self.engine = engine
        self.processes = processes
        self.plans = plan_replicas(structures, protocol)
        self.machine = machine(engine, device, processes)
        self.written_at = time.monotonic()

    def go(self, save_every_s: float, console: Console | None) -> results.RunResult:
        """Run what has not ended; write the result file."""
        pending = [p for p in self.plans if self.folder.finished(p.index) is None]
        if not pending:
            written = self._written()
            if written is not None:
                return written
            result = self.result(None)
            results.save(result, self.folder.result_path)
            return result
        steps = self._steps()
        if console is not None:
            started = sum(steps[p.index] > 0 for p in pending)
            console.print(
                f"{len(self.plans)} replicas of {self.protocol.horizon_ps:g} ps: "
                f"{len(self.plans) - len(pending)} have ended, {started} go on, "
                f"{len(pending) - started} start",
                highlight=False,
            )
        display = Display(
            steps,
            n_steps=self.protocol.n_steps,
            timestep_fs=self.protocol.timestep_fs,
            console=console,
        )
        with caught_signals() as caught, torch_threads(), display:

            def poll() -> bool:
                display.refresh()
                return bool(caught)

            work = Work(
                model=self.handle.loaded,
                engine=self.engine,
                protocol=self.protocol,
                folder=self.folder,
                save_every_s=save_every_s,
                steps=steps,
                poll=poll,
            )
            try:
                stop = self._run(pending, work)
            except OSError as error:
                stop = disk_full(error, self.folder)
        self.machine["ns_per_day"] = display.ns_per_day
        result = self.result(stop)
        try:
            results.save(result, self.folder.result_path)
        except OSError as error:
            stop = disk_full(error, self.folder)
        if stop is not None:
            raise RunStoppedError(stop.message, result, stop.reason)
        return result

    def _run(self, pending: list[Plan], work: Work) -> Stop | None:
        n_batches = self.processes if engines.batched(self.engine) else len(pending)
        batches = [pending[i::n_batches] for i in range(min(n_batches, len(pending)))]
        if self.processes > 1 and self.handle.open is not None:
            return run_in_processes(
                batches, work, self.handle.open, self.processes, self.write_sometimes
            )
        for batch in batches:
            stop = run_replicas(batch, work)
            if stop is not None:
                return stop
            self.write_sometimes()
        return None

    def _written(self) -> results.RunResult | None:
        """The result file of a run that has ended, None when it is not (all) there."""
        try:
            found = results.load(self.folder.result_path)
        except (FileNotFoundError, ValueError):
            return None
        return found if found.complete else None

    def _steps(self) -> Any:
        steps = shared_steps(len(self.plans))
        for plan in self.plans:
            ended = self.folder.finished(plan.index)
            saved = None if ended else self.folder.saved(plan.index)
            if ended is not None:
                last = ended.failure.step if ended.failure else self.protocol.n_steps
                steps[plan.index] = ~last
            elif saved is not None:
                steps[plan.index] = saved.state.step
        return steps

    def write_sometimes(self) -> None:
        """Write the result file when the last time is long ago."""
        if time.monotonic() - self.written_at > RESULT_EVERY_S:
            results.save(self.result(None), self.folder.result_path)
            self.written_at = time.monotonic()

    def result(self, stop: Stop | None) -> results.RunResult:
        """What there is, ended or stopped."""
        reason = "interrupt" if stop is None else stop.reason
        ended = [self.folder.finished(plan.index) for plan in self.plans]
        replicas = [
            self._replica(plan, reason) if replica is None else replica
            for plan, replica in zip(self.plans, ended, strict=True)
        ]
        found = tuple(replica for replica in replicas if replica is not None)
        return results.RunResult(
            model=self.handle.describe(),
            protocol=self.protocol.to_dict(),
            machine=self.machine,
            horizon_ps=self.protocol.horizon_ps,
            timestep_fs=self.protocol.timestep_fs,
            ensemble=self.protocol.ensemble,
            replicas=found,
            complete=None not in ended,
        )

    def _replica(self, plan: Plan, reason: str) -> results.Replica | None:
        """A replica that has not ended, as far as it came; None when it never began."""
        saved = self.folder.saved(plan.index)
        if saved is None:
            return None
        return describe(
            plan,
            time_ps=self.protocol.time_ps(saved.state.step),
            trace=np.asarray(saved.trace),
            censored_by=reason,
        )


def _handle(
    model: Any, engine: str, device: str, species_map: Mapping[str, str] | None
) -> ModelHandle:
    if isinstance(model, str | Path):
        return load_model(
            model,
            device=device,
            loader=engines.loader(engine),
            chemical_species_to_atom_type_map=species_map,
        )
    if species_map is not None:
        raise UserError(
            f"expected {MAP_KEY} with the path of a model file, got it with "
            f"{type(model).__name__}; give it to what loads the model"
        )
    if isinstance(model, ModelHandle):
        return model
    return calculator_model(model)


def _structures(structures: str | Path | Atoms | Sequence[Atoms]) -> list[Atoms]:
    if isinstance(structures, str | Path):
        return read_structures(structures)
    return [structures] if isinstance(structures, Atoms) else list(structures)
