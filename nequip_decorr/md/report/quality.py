"""Accuracy of the stable part of a run: energy drift and fidelity."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from nequip_decorr.md.report.figures import distribution_figure
from nequip_decorr.md.report.images import svg
from nequip_decorr.md.report.tables import Table, number
from nequip_decorr.md.results import RunResult
from nequip_decorr.md.statistics.drift import Drift, run_drift
from nequip_decorr.md.statistics.units import student_interval, unit_means
from nequip_decorr.md.statistics.wording import error_words

#: Where LAMBench draws the line for a conserved energy, meV/atom/ps.
LAMBENCH_DRIFT_MEV = 0.5


@dataclass(frozen=True)
class DriftSection:
    """Energy drift of an NVE run: a line per temperature, a row per replica."""

    summary: list[str]
    limit: str
    table: Table


@dataclass(frozen=True)
class Distribution:
    """Pair distributions of one system: a title, a figure, and the errors."""

    title: str
    image: str
    table: Table


@dataclass(frozen=True)
class Fidelity:
    """Temperatures and pair distributions of the stable part."""

    notes: list[str]
    temperatures: Table
    distributions: list[Distribution]


def drift_section(result: RunResult) -> DriftSection | None:
    """The drift of an NVE run; None for any other."""
    drifts = run_drift(result)
    if not drifts:
        return None
    fitted: dict[float, list[tuple[int, Drift]]] = {}
    for replica in result.replicas:
        drift = drifts.get(replica.index)
        if isinstance(drift, Drift):
            own = fitted.setdefault(replica.temperature_K, [])
            own.append((replica.structure, drift))
    several = len({r.temperature_K for r in result.replicas}) > 1
    summary = [
        f"{kelvin:g} K: {mean_drift(own)}" if several else mean_drift(own)
        for kelvin, own in sorted(fitted.items())
    ]
    table = Table(
        columns=(
            "replica",
            "drift (meV/atom/ps)",
            "residual (meV/atom)",
            "largest excursion",
            "drift / σ(E kin)",
        ),
        rows=[(str(index), *_drift_cells(each)) for index, each in drifts.items()],
        long=(1,),
    )
    nothing = ["no trace is long enough to fit a drift"]
    return DriftSection(summary or nothing, f"{LAMBENCH_DRIFT_MEV:g}", table)


def mean_drift(fitted: Sequence[tuple[int, Drift]]) -> str:
    """The mean drift in words. Start structures are the independent units.

    Args:
        fitted: start structure and drift of each replica.
    """
    structures, drifts = zip(*fitted, strict=True)
    slopes = np.array([drift.slope_meV_per_atom_ps for drift in drifts])
    if len(slopes) == 1:
        width = drifts[0].uncertainty_meV_per_atom_ps
        return f"drift {slopes[0]:+.3g} ± {width:.2g} meV/atom/ps (95 %)"
    means = unit_means(slopes, np.unique(structures, return_inverse=True)[1])
    largest = f"largest {_largest(slopes):+.3g}"
    if len(means) == 1:
        return (
            f"mean drift {means[0]:+.3g} meV/atom/ps ({len(slopes)} replicas of one "
            f"structure, no interval), {largest}"
        )
    mean = student_interval(means)
    return (
        f"mean drift {mean.value:+.3g} ± {mean.high - mean.value:.2g} meV/atom/ps "
        f"(95 %, over {len(means)} structures), {largest}"
    )


def fidelity_section(fidelity: Mapping[str, Any] | None) -> Fidelity | None:
    """The fidelity section; None if nothing was measured."""
    if fidelity is None:
        return None
    temperatures = Table(
        columns=(
            "thermostat (K)",
            "mean T ± standard error (K)",
            "spread σ (K)",
            "canonical σ (K)",
        ),
        rows=[
            (
                f"{t['target_K']:g}",
                f"{t['mean_K']:.1f} ± {t['mean_error_K']:.1f}",
                f"{t['sigma_K']:.1f}",
                f"{t['sigma_canonical_K']:.1f}",
            )
            for t in fidelity["temperature"]
        ],
    )
    reference = Path(fidelity["reference"] or "").name
    distributions = [
        _distribution(each, reference) for each in fidelity["distributions"]
    ]
    return Fidelity(fidelity["notes"], temperatures, distributions)


def _distribution(group: Mapping[str, Any], reference: str) -> Distribution:
    unit = " (Å)" if group["kind"] == "g(r)" else ""
    return Distribution(
        title=f"{group['formula']} at {group['temperature_K']:g} K: {group['kind']} of "
        f"{group['n_frames']} frames{_window(group.get('window_ps'))}, against "
        f"{reference}",
        image=svg(distribution_figure(group["pairs"], group["kind"])),
        table=Table(
            columns=(
                "pair",
                f"∫|difference| dr{unit}",
                "noise floor (perfect model, as many frames)",
            ),
            rows=[
                (
                    name,
                    error_words(pair["error"], pair["standard_error"]),
                    number(pair.get("floor"), ".3f"),
                )
                for name, pair in group["pairs"].items()
            ],
        ),
    )


def _window(window_ps: Sequence[float] | None) -> str:
    return "" if window_ps is None else f", {window_ps[0]:.3g} to {window_ps[1]:.3g} ps"


def _drift_cells(drift: Drift | str) -> tuple[str, ...]:
    if isinstance(drift, str):
        return (drift, "-", "-", "-")
    return (
        f"{drift.slope_meV_per_atom_ps:+.3g} ± {drift.uncertainty_meV_per_atom_ps:.2g}",
        f"{drift.residual_meV_per_atom:.3g}",
        f"{drift.largest_excursion_meV_per_atom:.3g}",
        number(drift.drift_over_sigma_kinetic, "+.2g"),
    )


def _largest(values: np.ndarray) -> float:
    return float(values[np.abs(values).argmax()])
