"""A self-contained HTML report of a run: all images are embedded."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.report.answer import (
    answers,
    notes,
    survival_table,
    survivals_of,
    temperature_name,
)
from nequip_decorr.md.report.events import (
    count_in_words,
    event_table,
    galleries,
    replica_table,
)
from nequip_decorr.md.report.figures import traces_figure
from nequip_decorr.md.report.images import png
from nequip_decorr.md.report.page import render_page
from nequip_decorr.md.report.quality import drift_section, fidelity_section
from nequip_decorr.md.report.sensitivity import sensitivity_section
from nequip_decorr.md.report.tables import Table
from nequip_decorr.md.report.untested import untested_lines
from nequip_decorr.md.results import SCHEMA, RunResult
from nequip_decorr.nested import flat
from nequip_decorr.wording import counted


def write_report(result: RunResult, folder: Path, html_path: Path) -> None:
    """Write the page of a run.

    Args:
        result: the run.
        folder: of its result file; the frames that it names are looked for there.
        html_path: the page to write.

    Raises:
        UserError: a run without any replica, or matplotlib is not installed.
        OSError: the page cannot be written.
    """
    write_atomic(html_path, render_report(result, folder))


def render_report(result: RunResult, folder: Path) -> str:
    """The page as text; ``folder`` is where the paths in ``result`` start.

    Raises:
        UserError: a run without any replica, or matplotlib is not installed.
    """
    survivals = survivals_of(result)
    traced = any(len(r.trace.time_ps) > 1 for r in result.replicas)
    return render_page(
        "nequip_decorr.md.report",
        "report.html.j2",
        title=_title(result),
        complete=result.complete or result.source is not None,
        setting=_setting(result),
        untested=[*(result.source or {}).get("notes", []), *untested_lines(result)],
        source=_source(result),
        answers=answers(survivals),
        survival_table=survival_table(survivals),
        notes=notes(survivals),
        sensitivity=sensitivity_section(result, folder),
        event_count=count_in_words(result.replicas),
        events=event_table(result.replicas),
        galleries=galleries(result, folder),
        traces=png(traces_figure(result)) if traced else None,
        drift=drift_section(result),
        fidelity=fidelity_section(result.fidelity),
        replicas=replica_table(result),
        protocol=_settings(result.protocol),
        provenance=_settings(
            {"model": result.model, "machine": result.machine, "schema": SCHEMA}
        ),
    )


def _title(result: RunResult) -> str:
    """The model's file in its folder: many are called ``best.ckpt``."""
    return "/".join(Path(str(result.model.get("path", "model"))).parts[-2:])


def _setting(result: RunResult) -> str:
    kelvin = sorted({r.temperature_K for r in result.replicas})
    formulas = sorted({r.formula for r in result.replicas})
    n_structures = len({r.structure for r in result.replicas})
    return (
        f"{counted(len(result.replicas), 'replica')} of "
        f"{counted(n_structures, 'structure')} ({_short_list(formulas)}) at "
        f"{_short_list([temperature_name(result, k) for k in kelvin])}, "
        f"{result.ensemble}, {result.timestep_fs:g} fs steps, up to "
        f"{result.horizon_ps:g} ps"
    )


def _source(result: RunResult) -> str:
    """Where trajectories came from that `md` did not run; empty for those it did."""
    if result.source is None:
        return ""
    first, *others = result.source["files"]
    more = f" and {counted(len(others), 'other')}" if others else ""
    return f"judged from {first}{more}"


def _short_list(names: list[str]) -> str:
    return ", ".join(names) if len(names) <= 4 else f"{', '.join(names[:3])}, ..."


def _settings(settings: Mapping[str, Any]) -> Table:
    rows = [(name, _shown(value)) for name, value in flat(settings).items()]
    return Table(columns=(), rows=rows, long=(1,))


def _shown(value: object) -> str:
    if isinstance(value, list | tuple):
        return ", ".join(map(str, value))
    return "-" if value is None else str(value)
