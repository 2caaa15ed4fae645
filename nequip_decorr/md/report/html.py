"""A self-contained HTML report of a run: all images are embedded."""

from __future__ import annotations

import base64
import io
from collections import Counter
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import ase.io
import jinja2
import numpy as np

from nequip_decorr import __version__
from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.nested import flat
from nequip_decorr.md.report.figures import (
    distribution_figure,
    survival_figure,
    traces_figure,
)
from nequip_decorr.md.report.snapshot import MAX_FAILING, neighbourhood_figure
from nequip_decorr.md.results import SCHEMA, Failure, Replica, RunResult
from nequip_decorr.md.statistics.drift import Drift, run_drift
from nequip_decorr.md.statistics.score import Interval
from nequip_decorr.md.statistics.survival import (
    Survival,
    counted,
    describe_score,
    estimate_survival,
    survival_by_temperature,
)

if TYPE_CHECKING:
    from matplotlib.figure import Figure

#: Pictures of failures on one page; the others are only in the table.
MAX_PICTURES = 12
#: More curves than this in one figure cannot be distinguished.
MAX_CURVES = 5
#: Where LAMBench draws the line for a conserved energy, meV/atom/ps.
LAMBENCH_DRIFT_MEV = 0.5


def write_report(result: RunResult, folder: Path, html_path: Path) -> None:
    """Write the page of a run.

    Args:
        result: the run.
        folder: of its result file; the frames that it names are looked for there.
        html_path: the page to write.

    Raises:
        UserError: a run without any replica.
        RuntimeError: matplotlib is not installed.
        OSError: the page cannot be written.
    """
    write_atomic(html_path, render_report(result, folder))


def render_report(result: RunResult, folder: Path) -> str:
    """The page as text; ``folder`` is where the paths in ``result`` start.

    Raises:
        UserError: a run without any replica.
        RuntimeError: matplotlib is not installed.
    """
    survival = estimate_survival(result.replicas, result.horizon_ps)
    by_temperature = survival_by_temperature(result.replicas, result.horizon_ps)
    environment = jinja2.Environment(
        loader=jinja2.PackageLoader("nequip_decorr.md.report"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    return environment.get_template("report.html.j2").render(
        version=__version__,
        title=Path(str(result.model.get("path", "model"))).name,
        complete=result.complete,
        setting=_setting(result),
        headline=describe_score(survival),
        notes=survival.notes,
        curves=_svg(survival_figure(_curves(survival, by_temperature))),
        survival_rows=_survival_rows(survival, by_temperature),
        traces=(
            _png(traces_figure(result))
            if any(len(r.trace.time_ps) > 1 for r in result.replicas)
            else None
        ),
        drift=_drift(result),
        failures=_failures(result, folder),
        fidelity=_fidelity(result.fidelity),
        replicas=[_replica_row(r) for r in result.replicas],
        protocol=_rows(result.protocol),
        provenance=_rows({"model": result.model, "machine": result.machine}),
        schema=SCHEMA,
    )


def _setting(result: RunResult) -> str:
    kelvin = sorted({r.temperature_K for r in result.replicas})
    formulas = sorted({r.formula for r in result.replicas})
    n_structures = len({r.structure for r in result.replicas})
    return (
        f"{counted(len(result.replicas), 'replica')} of "
        f"{counted(n_structures, 'structure')} ({_short_list(formulas)}) at "
        f"{_short_list([f'{k:g}' for k in kelvin])} K, {result.ensemble}, "
        f"{result.timestep_fs:g} fs steps, horizon {result.horizon_ps:g} ps"
    )


def _short_list(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ..."


def _curves(
    survival: Survival, by_temperature: Mapping[float, Survival]
) -> dict[str, Survival]:
    if 1 < len(by_temperature) <= MAX_CURVES:
        return {f"{kelvin:g} K": each for kelvin, each in by_temperature.items()}
    return {"all replicas": survival}


def _survival_rows(
    survival: Survival, by_temperature: Mapping[float, Survival]
) -> list[dict[str, str]]:
    groups = {f"{kelvin:g} K": each for kelvin, each in by_temperature.items()}
    if len(groups) > 1:
        groups["all"] = survival
    return [
        {
            "group": name,
            "failed": f"{each.n_failures} of {each.n_replicas}",
            "score": _bounded(each.score, each),
            "survival": _bounded(each.survival_at_tau, each),
            "median": (
                "not reached" if each.median_ps is None else f"{each.median_ps:.3g} ps"
            ),
            "hazard": _number(each.hazard_upper_per_ps, ".2g"),
            "hazard_per_atom": _number(each.hazard_upper_per_atom_ps, ".2g"),
            "causes": ", ".join(f"{cause} {n}" for cause, n in each.causes.items())
            or "none",
        }
        for name, each in groups.items()
    ]


def _bounded(interval: Interval, survival: Survival) -> str:
    if survival.n_failures == 0:
        return f"at least {interval.low:.2f}"
    return f"{interval.value:.2f} [{interval.low:.2f}, {interval.high:.2f}]"


def _failures(result: RunResult, folder: Path) -> dict[str, Any]:
    """Rows of the table of failures, and pictures of the earliest of them."""
    failed = [(r, r.failure) for r in result.replicas if r.failure is not None]
    rows: list[dict[str, Any]] = []
    pictures: list[dict[str, Any]] = []
    missing: Counter[str] = Counter()
    for replica, failure in sorted(failed, key=lambda pair: pair[1].time_ps):
        rows.append(
            {
                "replica": replica.index,
                "structure": replica.structure_name,
                "temperature": f"{replica.temperature_K:g}",
                "time": f"{failure.time_ps:.4g}",
                "cause": failure.cause,
                "message": failure.message,
                "half_step": _half_step(failure),
            }
        )
        if len(pictures) < MAX_PICTURES:
            image, reason = _picture(failure, folder)
            if image is None:
                missing[reason] += 1
            else:
                pictures.append({**rows[-1], "image": image})
    return {
        "rows": rows,
        "pictures": pictures,
        "missing": [f"{n} without a picture: {why}" for why, n in missing.items()],
        "unpictured": len(rows) - len(pictures) - missing.total(),
        "repeated": any(row["half_step"] for row in rows),
    }


def _half_step(failure: Failure) -> str:
    if failure.half_step_cause is None:
        return ""
    if failure.half_step_cause == "none":
        return "survives"
    when = failure.half_step_time_ps
    return failure.half_step_cause + ("" if when is None else f" at {when:.4g} ps")


def _picture(failure: Failure, folder: Path) -> tuple[str | None, str]:
    """The picture of a failure, or why there is none."""
    if not failure.atoms:
        return None, "no single atoms involved"
    if len(failure.atoms) > MAX_FAILING:
        return None, f"{len(failure.atoms)} atoms involved: no one place to show"
    if failure.last_good_frame is None:
        return None, "no frame was kept"
    try:
        atoms = ase.io.read(folder / failure.last_good_frame)
        return _svg(neighbourhood_figure(atoms, failure.atoms)), ""
    except (OSError, ValueError, ase.io.formats.UnknownFileTypeError) as error:
        return None, f"{failure.last_good_frame} cannot be shown: {error}"


def _drift(result: RunResult) -> dict[str, Any] | None:
    drifts = run_drift(result)
    if not drifts:
        return None
    fitted = [d for d in drifts.values() if isinstance(d, Drift)]
    slopes = np.array([d.slope_meV_per_atom_ps for d in fitted])
    summary = "no trace is long enough to fit a drift"
    if len(slopes) == 1:
        error = fitted[0].standard_error_meV_per_atom_ps
        summary = f"drift {slopes[0]:+.3g} ± {error:.2g} meV/atom/ps (standard error)"
    elif len(slopes) > 1:
        error = slopes.std(ddof=1) / np.sqrt(len(slopes))
        summary = (
            f"mean drift {slopes.mean():+.3g} ± {error:.2g} meV/atom/ps (standard "
            f"error over {len(slopes)} replicas), largest {_largest(slopes):+.3g}"
        )
    rows = [
        {"replica": index, "error": drift}
        if isinstance(drift, str)
        else {
            "replica": index,
            "slope": f"{drift.slope_meV_per_atom_ps:+.3g} ± "
            f"{drift.standard_error_meV_per_atom_ps:.2g}",
            "residual": f"{drift.residual_meV_per_atom:.3g}",
            "excursion": f"{drift.largest_excursion_meV_per_atom:.3g}",
            "ratio": _number(drift.drift_over_sigma_kinetic, "+.2g"),
            "error": None,
        }
        for index, drift in drifts.items()
    ]
    return {"summary": summary, "rows": rows, "limit": f"{LAMBENCH_DRIFT_MEV:g}"}


def _largest(values: np.ndarray) -> float:
    return float(values[np.abs(values).argmax()])


def _fidelity(fidelity: Mapping[str, Any] | None) -> dict[str, Any] | None:
    if fidelity is None:
        return None
    temperatures = [
        {
            "target": f"{t['target_K']:g}",
            "mean": f"{t['mean_K']:.1f} ± {t['mean_error_K']:.1f}",
            "sigma": f"{t['sigma_K']:.1f}",
            "canonical": f"{t['sigma_canonical_K']:.1f}",
        }
        for t in fidelity["temperature"]
    ]
    distributions = [
        {
            "where": f"{group['formula']} at {group['temperature_K']:g} K",
            "n_frames": group["n_frames"],
            "unit": "Å" if group["kind"] == "g(r)" else "",
            "kind": group["kind"],
            "rows": [
                {
                    "pair": name,
                    "error": f"{pair['error']:.3f}"
                    + (
                        ""
                        if pair["standard_error"] is None
                        else f" ± {pair['standard_error']:.3f}"
                    ),
                    "reference": _number(pair["reference_error"], ".3f"),
                }
                for name, pair in group["pairs"].items()
            ],
            "image": _svg(distribution_figure(group["pairs"], group["kind"])),
        }
        for group in fidelity["distributions"]
    ]
    return {
        "reference": Path(fidelity["reference"] or "").name,
        "temperatures": temperatures,
        "distributions": distributions,
        "notes": fidelity["notes"],
    }


def _replica_row(replica: Replica) -> dict[str, Any]:
    if replica.failure is not None:
        end = f"failed: {replica.failure.cause}"
    elif replica.censored_by == "horizon":
        end = "survived to the horizon"
    else:
        end = f"censored: {replica.censored_by}"
    return {
        "index": replica.index,
        "structure": replica.structure_name,
        "formula": replica.formula,
        "temperature": f"{replica.temperature_K:g}",
        "seed": replica.seed,
        "time": f"{replica.time_ps:.4g}",
        "end": end,
    }


def _rows(settings: Mapping[str, Any]) -> list[tuple[str, str]]:
    return [(name, _shown(value)) for name, value in flat(settings).items()]


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)


def _number(value: float | None, style: str) -> str:
    return "-" if value is None else format(value, style)


def _svg(figure: Figure) -> str:
    return _data_uri(figure, "svg", "image/svg+xml", metadata={"Date": None})


def _png(figure: Figure) -> str:
    """For traces: as a vector drawing they would be tens of megabytes."""
    return _data_uri(figure, "png", "image/png", dpi=180)


def _data_uri(figure: Figure, style: str, mime: str, **options: Any) -> str:
    buffer = io.BytesIO()
    figure.savefig(buffer, format=style, **options)
    return f"data:{mime};base64,{base64.b64encode(buffer.getvalue()).decode()}"
