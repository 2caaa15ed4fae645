"""Made-up but realistic results: what a run of a failing HfO2 model leaves behind."""

from __future__ import annotations

import hashlib
from typing import Any

import numpy as np
from ase import units

from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import Event, Replica, RunResult, Trace

#: of one kind, so that every failure of a made-up run counts for it
CAUSES = ("overlap", "dissociation")


def replica(
    index: int,
    *,
    time_ps: float,
    cause: str | None = None,
    censored_by: str = "horizon",
    **changes: Any,
) -> Replica:
    """One replica that failed by ``cause`` at ``time_ps``, or was censored then."""
    event = (
        None
        if cause is None
        else Event(
            cause=cause,
            step=round(time_ps * 1000),
            time_ps=time_ps,
            message=f"{cause}: expected no such thing at {time_ps} ps",
            atoms=(0, 5),
        )
    )
    values: dict[str, Any] = {
        "index": index,
        "structure": 0,
        "structure_name": "hfo2.extxyz#0",
        "formula": "Hf32O64",
        "n_atoms": 96,
        "temperature_K": 1800.0,
        "seed": index,
        **changes,
    }
    return Replica(
        **values,
        time_ps=time_ps,
        **({} if event is None else {event.kind: event}),
        censored_by=None if cause else censored_by,
    )


def trace(
    rng: np.random.Generator,
    end_ps: float,
    *,
    kelvin: float,
    n_atoms: int,
    failed: bool = False,
    drift_meV_per_atom_ps: float = 0.0,
) -> Trace:
    """Temperatures with the canonical spread, and energies that go with them."""
    time = np.arange(0, end_ps, max(end_ps / 200, 1e-3))
    dof = 3 * n_atoms
    temperature = kelvin * (1 + np.sqrt(2 / dof) * rng.standard_normal(len(time)))
    if failed and len(time) > 3:
        temperature[-3:] *= (1.3, 2.0, 4.0)
    kinetic = dof / 2 * units.kB * temperature
    total = -9.0 * n_atoms + drift_meV_per_atom_ps / 1000 * n_atoms * time
    potential = total - kinetic
    return Trace(
        time_ps=tuple(time.tolist()),
        temperature_K=tuple(temperature.tolist()),
        potential_energy_eV=tuple(potential.tolist()),
        total_energy_eV=tuple((potential + kinetic).tolist()),
    )


def run(
    *,
    hazard_per_ps: float = 0.1,
    n_structures: int = 8,
    replicas: int = 2,
    temperatures_K: tuple[float, ...] = (1800.0,),
    ensemble: str = "langevin",
    horizon_ps: float = 10.0,
    traces: bool = False,
    model: str = "a",
    seed: int = 0,
) -> RunResult:
    """A run whose replicas fail at a constant hazard."""
    rng = np.random.default_rng(seed)
    protocol = Protocol(
        ensemble=ensemble,
        temperatures_K=temperatures_K,
        horizon_ps=horizon_ps,
        replicas=replicas,
    )
    made = []
    for structure in range(n_structures):
        for kelvin in temperatures_K:
            for k in range(replicas):
                until = rng.exponential(1 / hazard_per_ps) if hazard_per_ps else np.inf
                failed = bool(until < horizon_ps)
                end = min(float(until), horizon_ps)
                cause = CAUSES[int(rng.integers(len(CAUSES)))]
                made.append(
                    replica(
                        len(made),
                        time_ps=end,
                        cause=cause if failed else None,
                        structure=structure,
                        structure_name=f"hfo2.extxyz#{structure}",
                        temperature_K=kelvin,
                        seed=k,
                        trace=trace(
                            rng,
                            end,
                            kelvin=kelvin,
                            n_atoms=96,
                            failed=failed,
                            drift_meV_per_atom_ps=0.3 if ensemble == "nve" else 0.0,
                        )
                        if traces
                        else Trace(),
                    )
                )
    return RunResult(
        model={
            "path": f"models/{model}.nequip.pt2",
            "sha256": hashlib.sha256(model.encode()).hexdigest(),
            "kind": "compiled",
            "species": ["Hf", "O"],
        },
        protocol=protocol.to_dict(),
        machine={"host": "synthetic", "processor": "none", "versions": {"ase": "3.29"}},
        replicas=tuple(made),
    )
