"""Energy drift of an NVE run: energy leaking from the integrator or the potential.

A thermostat hides drift, so this is a separate test and never a failure event.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import Replica, RunResult
from nequip_decorr.md.statistics.blocks import N_BLOCKS, block_means
from nequip_decorr.md.statistics.score import TAIL

WARM_UP_FRACTION = 0.2
MIN_SAMPLES = 4 * N_BLOCKS


@dataclass(frozen=True)
class Drift:
    """Energy drift of one NVE trajectory, after the warm-up.

    Attributes:
        slope_meV_per_atom_ps: least-squares slope of total energy per atom.
        standard_error_meV_per_atom_ps: standard error of the slope, from five blocks
            with three degrees of freedom.
        residual_meV_per_atom: root mean square deviation from the fitted line.
        largest_excursion_meV_per_atom: largest distance from the line.
        drift_over_sigma_kinetic: drift over the fitted time / standard deviation of
            the kinetic energy; None when the kinetic energy does not fluctuate.
        duration_ps: fitted time.
        n_samples: fitted samples.
    """

    slope_meV_per_atom_ps: float
    standard_error_meV_per_atom_ps: float
    residual_meV_per_atom: float
    largest_excursion_meV_per_atom: float
    drift_over_sigma_kinetic: float | None
    duration_ps: float
    n_samples: int

    @property
    def uncertainty_meV_per_atom_ps(self) -> float:
        """Half the width of the 95 % interval of the slope: 3.18 standard errors.

        Student's t with three degrees of freedom. It is too narrow if the energy is
        correlated over half a block (a tenth of the fitted time) or more.
        """
        quantile = float(stats.t.ppf(1 - TAIL, N_BLOCKS - 2))
        return quantile * self.standard_error_meV_per_atom_ps


def samples_of(protocol: Protocol) -> int:
    """Energies after the warm-up of a replica that reaches the horizon."""
    recorded = protocol.n_steps // protocol.record_interval_steps
    return recorded - math.ceil(WARM_UP_FRACTION * (recorded - 1))


def fit_drift(
    time_ps: ArrayLike,
    total_energy_eV: ArrayLike,
    potential_energy_eV: ArrayLike,
    n_atoms: int,
) -> Drift:
    """Least-squares drift of total energy per atom, in float64.

    The first 20 % of the time are discarded as warm-up. The standard error is that of
    a line through the means of five equal blocks, with three degrees of freedom, which
    accounts for fluctuations that are correlated over much less than a block. For
    correlation times of 0.5, 1 and 3 blocks it is too small by factors of 1.3, 1.6 and
    2.2 (simulated).

    Args:
        time_ps: increasing times, shape (n,), ps.
        total_energy_eV: potential + kinetic energy of the cell, shape (n,), eV.
        potential_energy_eV: potential energy of the cell, shape (n,), eV.
        n_atoms: atoms in the cell.

    Raises:
        UserError: if lengths differ, times do not increase, a value is not finite, or
            there are fewer than 20 samples after the warm-up.
    """
    time, total, potential = (
        np.asarray(a, dtype=np.float64)
        for a in (time_ps, total_energy_eV, potential_energy_eV)
    )
    _check(time, total, potential, n_atoms)
    kept = time >= time[0] + WARM_UP_FRACTION * (time[-1] - time[0])
    if kept.sum() < MIN_SAMPLES:
        raise UserError(
            f"expected at least {MIN_SAMPLES} energies after the warm-up, got "
            f"{int(kept.sum())}; record more often or run longer"
        )
    time = time[kept] - time[kept].mean()
    kinetic = (total - potential)[kept] * 1000 / n_atoms
    # energies per atom about their mean: the slope of small drifts on large totals
    energy = (total[kept] - total[kept].mean()) * 1000 / n_atoms
    slope = float(stats.linregress(time, energy).slope)
    residual = energy - slope * time
    duration = float(time[-1] - time[0])
    sigma_kinetic = float(kinetic.std(ddof=1))
    return Drift(
        slope_meV_per_atom_ps=slope,
        standard_error_meV_per_atom_ps=_block_error(time, energy),
        residual_meV_per_atom=float(np.sqrt(np.mean(residual**2))),
        largest_excursion_meV_per_atom=float(np.abs(residual).max()),
        drift_over_sigma_kinetic=(
            slope * duration / sigma_kinetic if sigma_kinetic > 0 else None
        ),
        duration_ps=duration,
        n_samples=len(time),
    )


def replica_drift(replica: Replica) -> Drift:
    """Drift of a replica's trace, up to its first event.

    Raises:
        UserError: the trace is too short (see :func:`fit_drift`).
    """
    trace = replica.trace
    end = np.inf if replica.first is None else replica.first.time_ps
    kept = [i for i, time in enumerate(trace.time_ps) if time < end]
    return fit_drift(
        [trace.time_ps[i] for i in kept],
        [trace.total_energy_eV[i] for i in kept],
        [trace.potential_energy_eV[i] for i in kept],
        replica.n_atoms,
    )


def run_drift(result: RunResult) -> dict[int, Drift | str]:
    """Drift of each replica of an NVE run by index, or the reason for not having one.

    Empty for other ensembles, whose thermostat hides drift.
    """
    if result.ensemble != "nve":
        return {}
    drifts: dict[int, Drift | str] = {}
    for replica in result.replicas:
        try:
            drifts[replica.index] = replica_drift(replica)
        except ValueError as error:
            drifts[replica.index] = str(error)
    return drifts


def _block_error(time: Array, energy: Array) -> float:
    """Standard error of the slope of a line through the means of the blocks.

    From its residuals: ``linregress`` has it from 1 - r^2, which loses all digits on an
    almost exact line.
    """
    t, e = block_means(time), block_means(energy)
    t, e = t - t.mean(), e - e.mean()
    residual = e - stats.linregress(t, e).slope * t
    return float(np.sqrt(residual @ residual / (N_BLOCKS - 2) / (t @ t)))


def _check(time: Array, total: Array, potential: Array, n_atoms: int) -> None:
    if not n_atoms > 0:
        raise UserError(f"expected at least one atom, got {n_atoms}")
    if not (time.ndim == 1 and time.shape == total.shape == potential.shape):
        raise UserError(
            "expected times and energies of one length, got shapes "
            f"{time.shape}, {total.shape} and {potential.shape}"
        )
    if not (len(time) >= MIN_SAMPLES and np.all(np.diff(time) > 0)):
        raise UserError(
            f"expected at least {MIN_SAMPLES} increasing times, got {len(time)}"
        )
    if not (np.isfinite(total).all() and np.isfinite(potential).all()):
        raise UserError("expected finite energies; give only the part before failure")
