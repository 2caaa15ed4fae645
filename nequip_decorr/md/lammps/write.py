"""A folder of LAMMPS runs: all replicas of a protocol, ready to be run elsewhere.

::

    replicas.json     model, protocol, and the folder of each replica
    run.sh            starts or resumes replicas, one after another
    job.slurm         the same, as an array job
    NAME.nequip.pt2   the model
    start.extxyz_0-300K-0/data.lammps   start structure and velocities
    start.extxyz_0-300K-0/in.lammps     input
"""

from __future__ import annotations

import json
import re
import shutil
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jinja2
import numpy as np
from ase import Atoms

from nequip_decorr import __version__
from nequip_decorr.errors import UserError
from nequip_decorr.md.files import file_sha256
from nequip_decorr.md.lammps.data import boundary, data_file
from nequip_decorr.md.lammps.model import LammpsModel, read_model
from nequip_decorr.md.protocol import Protocol, degrees_of_freedom
from nequip_decorr.md.running.replica import Plan, start_state
from nequip_decorr.md.running.run import plan_replicas
from nequip_decorr.md.structures import start_structures, structure_hash
from nequip_decorr.md.trajectories.layout import REPLICAS_NAME, REPLICAS_SCHEMA

#: LAMMPS takes seeds from 1 to this one.
LARGEST_SEED = 900_000_000


def write_lammps(
    model: str | Path,
    structures: str | Path | Atoms | Sequence[Atoms],
    protocol: Protocol,
    folder: str | Path,
    *,
    device: str = "cpu",
    chemical_species_to_atom_type_map: Mapping[str, str] | None = None,
) -> list[Path]:
    """Write every replica of a protocol as a LAMMPS run.

    Structures, velocities, temperatures and seeds are those that
    :func:`nequip_decorr.md.run_stability` starts from.

    Args:
        model: compiled with ``nequip-compile`` for pair_allegro or pair_nequip; it is
            copied.
        structures: as for :func:`nequip_decorr.md.run_stability`.
        protocol: the protocol.
        folder: a new folder, or an empty one.
        device: device in the suggested command if a checkpoint was given.
        chemical_species_to_atom_type_map: as for
            :func:`nequip_decorr.md.run_stability`.

    Returns:
        The folder of each replica.

    Raises:
        UserError: for invalid input, and for a folder that is not empty or cannot be
            written.
    """
    _check_protocol(protocol)
    read = read_model(model, chemical_species_to_atom_type_map, device)
    starts, said_of_them = start_structures(
        structures, protocol, species=tuple(read.species_map), cutoff_A=read.cutoff_A
    )
    for line in said_of_them:
        warnings.warn(line, stacklevel=2)
    return write_runs(read, starts, protocol, folder)


def write_runs(
    model: LammpsModel,
    starts: Sequence[Atoms],
    protocol: Protocol,
    folder: str | Path,
) -> list[Path]:
    """:func:`write_lammps` for a model and structures that have been checked."""
    plans = plan_replicas(starts, protocol)
    names = _folder_names(plans, protocol)
    folder = Path(folder)
    files = {
        "run.sh": _render("run.sh.j2"),
        "job.slurm": _render(
            "job.slurm.j2", job_name=_safe(folder.name), last=len(plans) - 1
        ),
    }
    for plan, name in zip(plans, names, strict=True):
        for file, text in _replica(plan, protocol, model).items():
            files[f"{name}/{file}"] = text
    description = {
        "schema": REPLICAS_SCHEMA,
        "model": {
            "path": str(model.path),
            "sha256": file_sha256(model.path),
            "pair_style": model.pair_style,
            "species": list(model.species_map),
        },
        "protocol": protocol.to_dict(),
        "replicas": [
            _describe(plan, name) for plan, name in zip(plans, names, strict=True)
        ],
    }
    files[REPLICAS_NAME] = json.dumps(description, indent=1)
    _write(folder, files, model.path)
    return [folder / name for name in names]


def lammps_seed(plan: Plan) -> int:
    """Seed for a replica in LAMMPS, from 0 to :data:`LARGEST_SEED` - 1.

    The input adds 1 and the step at which LAMMPS starts.
    """
    state = np.random.SeedSequence(plan.entropy(1)).generate_state(1, np.uint64)
    return int(state[0] % LARGEST_SEED)


def _check_protocol(protocol: Protocol) -> None:
    if protocol.frame_interval_steps is None:
        raise UserError(
            "expected frame_interval_steps for LAMMPS, whose frames are judged "
            "afterwards, got null; give a number of steps"
        )
    if protocol.half_step_repeat:
        raise UserError(
            "cannot repeat failures at half the time step in LAMMPS; leave out "
            "half_step_repeat (--half-step)"
        )


def _replica(plan: Plan, protocol: Protocol, model: LammpsModel) -> dict[str, str]:
    """LAMMPS data file and input of a replica."""
    state = start_state(plan, protocol)
    present = set(plan.atoms.get_chemical_symbols())
    elements = [element for element in model.species_map if element in present]
    return {
        "data.lammps": data_file(
            plan.atoms, state.positions_A, state.momenta, elements
        ),
        "in.lammps": lammps_input(plan, protocol, model, elements),
    }


def lammps_input(
    plan: Plan, protocol: Protocol, model: LammpsModel, elements: Sequence[str]
) -> str:
    """LAMMPS input of a replica whose atom types 1, 2, ... are ``elements``."""
    n_atoms = len(plan.atoms)
    dof = degrees_of_freedom(n_atoms, protocol.ensemble)
    stop_K = protocol.target_temperature_K(plan.temperature_K, protocol.n_steps)
    return _render(
        "in.lammps.j2",
        version=__version__,
        structure_name=" ".join(plan.structure_name.split()),
        temperature=f"{plan.temperature_K:g} K",
        seed=plan.seed,
        newton=model.newton,
        boundary=boundary(plan.atoms),
        pair_style=model.pair_style,
        model=f"../{_safe(model.path.name)}",
        types=" ".join(model.species_map[element] for element in elements),
        elements=" ".join(elements),
        timestep_ps=_number(protocol.timestep_fs / 1000),
        degrees_of_freedom=dof,
        extra_dof=3 * n_atoms - dof,
        ensemble=protocol.ensemble,
        noise=protocol.ensemble in ("langevin", "ramp"),
        start_K=_number(plan.temperature_K),
        stop_K=_number(stop_K),
        damping_ps=_number(1 / (1000 * protocol.friction_per_fs)),
        thermostat_ps=_number(protocol.thermostat_time_fs / 1000),
        noise_seed=lammps_seed(plan),
        thermo_steps=protocol.record_interval_steps,
        frame_steps=protocol.frame_interval_steps,
        n_steps=protocol.n_steps,
    )


def _describe(plan: Plan, folder: str) -> dict[str, Any]:
    return {
        "index": plan.index,
        "folder": folder,
        "structure": plan.structure,
        "structure_name": plan.structure_name,
        "structure_sha256": structure_hash(plan.atoms),
        "temperature_K": plan.temperature_K,
        "seed": plan.seed,
    }


def _folder_names(plans: Sequence[Plan], protocol: Protocol) -> list[str]:
    """Folder name of each replica: structure, temperature, number."""
    names = {plan.structure: _safe(plan.structure_name) for plan in plans}
    if len(set(names.values())) < len(names):
        names = {structure: f"{name}_{structure}" for structure, name in names.items()}
    return [
        f"{names[plan.structure]}-{_number(plan.temperature_K)}K-"
        f"{plan.seed - protocol.seed}"
        for plan in plans
    ]


def _write(folder: Path, files: Mapping[str, str], model: Path) -> None:
    """Write all files, or none."""
    target = folder.resolve()
    part = target.with_name(f".{target.name}.nequip-decorr-part")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UserError(
                f"expected a new folder for LAMMPS runs, got {folder} with files in "
                "it; choose another one"
            )
        shutil.rmtree(part, ignore_errors=True)  # of one that was killed
        part.mkdir(parents=True)
        try:
            for name, text in files.items():
                path = part / name
                path.parent.mkdir(exist_ok=True)
                path.write_text(text, encoding="utf-8")
            shutil.copyfile(model, part / _safe(model.name))
            part.replace(target)
        except BaseException:
            shutil.rmtree(part, ignore_errors=True)
            raise
    except OSError as error:
        raise UserError(
            f"cannot write LAMMPS runs to {folder} ({error.strerror or error}); choose "
            "another folder"
        ) from error


def _safe(name: str) -> str:
    """A name that needs no quotes in shells and LAMMPS."""
    return re.sub(r"[^A-Za-z0-9._+=-]", "_", name).lstrip("-") or "_"


def _number(value: float) -> str:
    return f"{value:.12g}"


def _render(template: str, **values: Any) -> str:
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nequip_decorr.md.lammps"),
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    return environment.get_template(template).render(**values)
