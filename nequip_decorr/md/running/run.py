"""A complete stability run: plan, run or resume, and write the result file."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from ase import Atoms
from rich.console import Console

from nequip_decorr.checks import check_whole
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
from nequip_decorr.md.running.pool import run_in_processes
from nequip_decorr.md.running.progress import Display
from nequip_decorr.md.running.record import Record
from nequip_decorr.md.running.replica import Plan
from nequip_decorr.md.running.session import caught_signals, machine, torch_threads
from nequip_decorr.md.structures import (
    start_structures,
    structure_hash,
    structure_name,
)
from nequip_decorr.species import MAP_KEY


class RunStoppedError(RuntimeError):
    """A run stopped early; its results so far are in the result file.

    Attributes:
        result: the content of that file (``complete`` is False).
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
    """Run replicas until each has ended by an event or reached the horizon.

    An unfinished run of the same model, structures and protocol in the folder is
    resumed; a finished one is only read.

    Args:
        model: path of a NequIP model file, a :class:`ModelHandle`, an ase calculator,
            or a function (importable by name, for several processes) that returns one.
            A calculator is identified by its class and by its energy and forces on the
            first structure, which costs one call.
        structures: a file that ase reads, or structures. Velocities in them are used
            with ``protocol.keep_velocities``, constraints are refused without
            ``protocol.drop_constraints``.
        protocol: the protocol.
        output: folder of the run, which will contain ``result.json``.
        engine: one of :data:`nequip_decorr.md.dynamics.engines.ENGINES`.
        device: ``cpu`` or ``cuda``.
        processes: worker processes; results do not depend on how many.
        chemical_species_to_atom_type_map: for a model file, see
            :func:`nequip_decorr.md.load_model`.
        save_every_s: wall-clock seconds between saved states of a replica, the most
            that a killed run loses.
        console: console for progress; None for no output.

    Returns:
        The result, as written to ``result.json``.

    Raises:
        UserError: for invalid input, and for a folder that contains another run.
        RunStoppedError: if the run is interrupted (SIGINT, SIGTERM), memory or disk
            space runs out, the model breaks, or a worker process dies. All results so
            far are kept; the same call resumes the run.
    """
    handle = _handle(model, engine, device, chemical_species_to_atom_type_map)
    check_whole("processes", processes, least=1)
    if processes > 1 and handle.open is None:
        raise UserError(
            "several processes need a function that returns the calculator, got "
            f"{handle.path} itself; pass the function or use one process"
        )
    starts, said_of_them = start_structures(
        structures, protocol, species=handle.species, cutoff_A=handle.cutoff_A
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
        record = Record(
            handle,
            protocol,
            plan_replicas(starts, protocol),
            folder,
            machine(engine, device, processes),
        )
        pending = record.pending()
        if not pending:
            written = record.written()
            if written is None:
                written = record.result()
                record.write(written)
            return written
        steps, events = record.progress()
        work = Work(
            model=handle.loaded,
            engine=engine,
            protocol=protocol,
            folder=folder,
            save_every_s=save_every_s,
            steps=steps,
            events=events,
            poll=lambda: False,
        )
        display = Display(
            steps,
            events,
            n_steps=protocol.n_steps,
            timestep_fs=protocol.timestep_fs,
            console=console,
        )
        display.announce(protocol.horizon_ps)
        return _go(record, work, handle, processes, display)


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


def _go(
    record: Record, work: Work, handle: ModelHandle, processes: int, display: Display
) -> results.RunResult:
    """Run the unfinished replicas and write the result file."""
    with caught_signals() as caught, torch_threads(), display:

        def poll() -> bool:
            display.refresh()
            return bool(caught)

        try:
            stop = _move(record, replace(work, poll=poll), handle, processes)
        except OSError as error:
            stop = disk_full(error, work.folder)
    record.machine["ns_per_day"] = display.ns_per_day
    result = record.result() if stop is None else record.result(stop.reason)
    try:
        record.write(result)
    except OSError as error:
        stop = disk_full(error, work.folder)
    if stop is not None:
        raise RunStoppedError(stop.message, result, stop.reason)
    return result


def _move(
    record: Record, work: Work, handle: ModelHandle, processes: int
) -> Stop | None:
    pending = record.pending()
    n_batches = processes if engines.batched(work.engine) else len(pending)
    batches = [pending[i::n_batches] for i in range(min(n_batches, len(pending)))]
    if processes > 1 and handle.open is not None:
        return run_in_processes(
            batches, work, handle.open, processes, record.write_sometimes
        )
    for batch in batches:
        stop = run_replicas(batch, work)
        if stop is not None:
            return stop
        record.write_sometimes()
    return None


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
