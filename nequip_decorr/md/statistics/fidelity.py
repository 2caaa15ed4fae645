"""Accuracy beside stability: pair distributions and temperature of the stable part.

A wrong model can be stable. Therefore the part of each trajectory before any failure is
compared with a reference trajectory, or a table of pair distributions, and its
temperature with the canonical distribution.
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
from nequip_decorr.md.statistics.blocks import N_BLOCKS
from nequip_decorr.md.statistics.drift import WARM_UP_FRACTION
from nequip_decorr.md.statistics.rdf import pair_distributions, read_reference
from nequip_decorr.md.statistics.rdf_error import compare_distributions, partial_cover


@dataclass(frozen=True)
class TemperatureCheck:
    """Mean and spread of the temperature at one thermostat setting.

    Attributes:
        target_K: thermostat setting.
        mean_K: mean over the stable part of all replicas.
        mean_error_K: its standard error, from the spread between replicas; from five
            blocks of the trace if there is only one.
        sigma_K: standard deviation about ``mean_K``.
        sigma_canonical_K: ``T sqrt(2 / Ndof)``, the value for a canonical ensemble.
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
    """Temperature of the stable part at one target temperature; None if too short.

    The first 20 % of each trace is warm-up.
    """
    traces = [
        (stable, r.n_atoms)
        for r in replicas
        if r.temperature_K == target_K and len(stable := _stable_temperatures(r)) > 1
    ]
    if not traces:
        return None
    series = [t for t, _ in traces]
    pooled = np.concatenate(series)
    # samples of one replica are correlated: its sum is one independent value
    blocks = np.array_split(pooled, min(N_BLOCKS, len(pooled)))
    groups = series if len(series) > 1 else blocks
    sums = np.array([float((t - pooled.mean()).sum()) for t in groups])
    error = np.sqrt(len(sums) / (len(sums) - 1) * (sums @ sums)) / len(pooled)
    weights = [len(t) for t, _ in traces]
    variance = np.average(
        [2 / degrees_of_freedom(n, ensemble) for _, n in traces], weights=weights
    )
    return TemperatureCheck(
        target_K=target_K,
        mean_K=float(pooled.mean()),
        mean_error_K=float(error),
        sigma_K=float(np.sqrt(np.mean((pooled - pooled.mean()) ** 2))),
        sigma_canonical_K=float(target_K * np.sqrt(variance)),
        n_samples=len(pooled),
    )


def measure_fidelity(
    result: RunResult, folder: Path, reference: Path | None
) -> dict[str, Any]:
    """Content of ``RunResult.fidelity``, in plain types ready for JSON.

    Args:
        result: the run.
        folder: folder of the result file, to which its trajectory paths are relative.
        reference: a trajectory, or a table (``.csv``, ``.dat`` or ``.txt``, see
            :func:`read_table`); None compares only the temperatures.

    Returns:
        ``temperature``: a list of :class:`TemperatureCheck`, empty without thermostat;
        ``reference``: its path or None; ``distributions``: a list, for each formula
        and temperature (K) its ``kind``, ``n_frames``, ``window_ps`` (times of the
        first and the last frame) and ``pairs``, the
        :class:`~nequip_decorr.md.statistics.rdf_error.PairError` of each element pair;
        ``notes``: what is missing and why.

    Raises:
        UserError: if the reference or a trajectory is missing or cannot be read.
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
                frames_between(folder / replica.trajectory, *stable_window(replica))
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
                "window_ps": list(times_of(frames)),
                "pairs": {name: asdict(error) for name, error in errors.items()},
            }
        )
    if not groups:
        notes.append("no trajectory was recorded: set frame_interval_steps")
    if len({kelvin for _, kelvin in groups}) > 1:
        notes.append(
            "one reference was used for several temperatures: only the error at the "
            "reference's own temperature means anything"
        )
    return distributions, notes


def frames_between(path: Path, start_ps: float, end_ps: float) -> list[Atoms]:
    """Recorded frames from one time on, up to (not at) another.

    Raises:
        UserError: if a frame has no ``time_ps`` in its info.
    """
    frames = ase.io.read(path, index=":")
    if not all("time_ps" in atoms.info for atoms in frames):
        raise UserError(
            f"expected time_ps in the info of every frame of {path}, got a frame "
            "without; give the trajectory that the run recorded"
        )
    return [atoms for atoms in frames if start_ps <= atoms.info["time_ps"] < end_ps]


def times_of(frames: Sequence[Atoms]) -> tuple[float, float]:
    """Times of the first and of the last of recorded frames, ps."""
    times = [float(atoms.info["time_ps"]) for atoms in frames]
    return min(times), max(times)


def stable_window(replica: Replica) -> tuple[float, float]:
    """From the end of the warm-up to the failure, ps."""
    first = replica.first
    if first is None:
        return WARM_UP_FRACTION * replica.time_ps, np.inf
    return WARM_UP_FRACTION * first.time_ps, first.time_ps


def _stable_temperatures(replica: Replica) -> Array:
    start, end = stable_window(replica)
    time = np.array(replica.trace.time_ps)
    kept: Array = np.array(replica.trace.temperature_K)[(time >= start) & (time < end)]
    return kept
