"""Accuracy beside stability: pair distributions and temperature of the stable part.

A wrong model can be stable. So what was simulated before any failure is compared with
a reference trajectory, or a table of pair distributions, and its temperature with the
canonical distribution.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.protocol import degrees_of_freedom
from nequip_decorr.md.results import Replica, RunResult, save
from nequip_decorr.md.statistics.drift import WARM_UP_FRACTION
from nequip_decorr.md.statistics.rdf import (
    N_BLOCKS,
    compare_distributions,
    pair_distributions,
    partial_cover,
    read_reference,
)


@dataclass(frozen=True)
class TemperatureCheck:
    """Mean and spread of the temperature at one thermostat setting.

    Attributes:
        target_K: what the thermostat was set to.
        mean_K: mean over the stable part of all replicas.
        mean_error_K: its standard error, from five blocks of each replica's trace.
        sigma_K: standard deviation about ``mean_K``.
        sigma_canonical_K: ``T sqrt(2 / Ndof)``, that of a canonical ensemble.
        n_samples: recorded temperatures.
    """

    target_K: float
    mean_K: float
    mean_error_K: float
    sigma_K: float
    sigma_canonical_K: float
    n_samples: int


def temperature_check(
    replicas: Sequence[Replica],
    target_K: float,
    ensemble: str,
) -> TemperatureCheck | None:
    """Temperature of the stable part of the replicas at one target, None if too short.

    The first 20 % of each trace is warm-up.
    """
    traces = [
        (stable, r.n_atoms)
        for r in replicas
        if r.temperature_K == target_K and len(stable := _stable_temperatures(r)) > 1
    ]
    if not traces:
        return None
    pooled = np.concatenate([t for t, _ in traces])
    blocks = np.array(
        [
            block.mean()
            for t, _ in traces
            for block in np.array_split(t, min(N_BLOCKS, len(t)))
        ]
    )
    weights = [len(t) for t, _ in traces]
    variance = np.average(
        [2 / degrees_of_freedom(n, ensemble) for _, n in traces], weights=weights
    )
    return TemperatureCheck(
        target_K=target_K,
        mean_K=float(pooled.mean()),
        mean_error_K=float(blocks.std(ddof=1) / np.sqrt(len(blocks))),
        sigma_K=float(np.sqrt(np.mean((pooled - pooled.mean()) ** 2))),
        sigma_canonical_K=float(target_K * np.sqrt(variance)),
        n_samples=len(pooled),
    )


def measure_fidelity(
    result: RunResult, folder: Path, reference: Path | None
) -> dict[str, Any]:
    """What goes into ``RunResult.fidelity``: plain types, ready for JSON.

    Args:
        result: the run.
        folder: of the result file, to which the paths of its trajectories are
            relative.
        reference: a trajectory, or a table (``.csv``, ``.dat`` or ``.txt``, see
            :func:`read_table`); None compares the temperatures alone.

    Returns:
        ``temperature``: a list of :class:`TemperatureCheck`, empty without thermostat;
        ``reference``: its path or None; ``distributions``: a list, for each formula
        and temperature (K) its ``kind``, ``n_frames`` and ``pairs``, the
        :class:`~nequip_decorr.md.statistics.rdf.PairError` of each element pair;
        ``notes``: what is missing and why.

    Raises:
        UserError: no such reference or trajectory.
        UserError: one that cannot be read as what it should be.
    """
    temperatures: list[dict[str, Any]] = []
    distributions: list[dict[str, Any]] = []
    targets = sorted({r.temperature_K for r in result.replicas})
    if result.ensemble in ("langevin", "nose-hoover"):
        checks = [
            temperature_check(result.replicas, target, result.ensemble)
            for target in targets
        ]
        temperatures = [asdict(check) for check in checks if check is not None]
    if reference is None:
        notes = ["no reference was given: pair distributions are not compared"]
    else:
        distributions, notes = _compared_frames(result, folder, reference)
    return {
        "temperature": temperatures,
        "reference": None if reference is None else str(reference),
        "distributions": distributions,
        "notes": notes,
    }


def add_fidelity(
    result: RunResult, result_path: Path, reference: Path | None
) -> RunResult:
    """Measure the fidelity of a finished run and write it into its result file.

    Raises:
        UserError: see :func:`measure_fidelity`.
    """
    measured = measure_fidelity(result, result_path.parent, reference)
    result = replace(result, fidelity=measured)
    save(result, result_path, traces=False)
    return result


def _compared_frames(
    result: RunResult, folder: Path, reference: Path
) -> tuple[list[dict[str, Any]], list[str]]:
    groups: dict[tuple[str, float], list[Atoms]] = {}
    for replica in result.replicas:
        if replica.trajectory is not None:
            groups.setdefault((replica.formula, replica.temperature_K), []).extend(
                stable_frames(folder / replica.trajectory, replica)
            )
    known = read_reference(reference)
    distributions: list[dict[str, Any]] = []
    notes = []
    for (formula, kelvin), frames in sorted(groups.items(), key=lambda item: item[0]):
        where = f"{formula} at {kelvin:g} K"
        if not frames:
            notes.append(f"{where}: no frame after the warm-up and before a failure")
            continue
        try:
            model = pair_distributions(frames)
            errors = compare_distributions(model, known)
        except ValueError as error:
            notes.append(f"{where}: {error}")
            continue
        notes += [f"{where}, {line}" for line in partial_cover(model, errors)]
        distributions.append(
            {
                "formula": formula,
                "temperature_K": kelvin,
                "kind": model.kind,
                "n_frames": model.n_frames,
                "pairs": {name: asdict(error) for name, error in errors.items()},
            }
        )
    if not groups:
        notes.append("no trajectory was recorded: set frame_interval_steps")
    if len({kelvin for _, kelvin in groups}) > 1:
        notes.append(
            "one reference for several temperatures: read the error at its own"
        )
    return distributions, notes


def stable_frames(path: Path, replica: Replica) -> list[Atoms]:
    """Recorded frames of a replica, after the warm-up and before its failure.

    Raises:
        UserError: a frame without ``time_ps`` in its info.
    """
    frames = ase.io.read(path, index=":")
    if not all("time_ps" in atoms.info for atoms in frames):
        raise UserError(
            f"expected time_ps in the info of every frame of {path}, got a frame "
            "without; give the trajectory that the run recorded"
        )
    start, end = _stable_window(replica)
    return [atoms for atoms in frames if start <= atoms.info["time_ps"] < end]


def _stable_window(replica: Replica) -> tuple[float, float]:
    end = replica.time_ps if replica.failed else np.inf
    return WARM_UP_FRACTION * replica.time_ps, end


def _stable_temperatures(replica: Replica) -> Array:
    start, end = _stable_window(replica)
    time = np.array(replica.trace.time_ps)
    kept: Array = np.array(replica.trace.temperature_K)[(time >= start) & (time < end)]
    return kept
