"""A self-contained HTML report of a study: all images are embedded."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from nequip_decorr.inspection.figure import correlation_figure
from nequip_decorr.inspection.result import Inspection, from_json
from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.report.images import png, svg
from nequip_decorr.md.report.page import render_page
from nequip_decorr.nested import flat
from nequip_decorr.study.answers import Answer, on_gpu
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.machine import versions
from nequip_decorr.study.models import Model
from nequip_decorr.study.report.figures import (
    forest_figure,
    kinds_with_events,
    survival_figure,
)
from nequip_decorr.study.report.result import (
    Findings,
    findings,
    largest,
    machines,
    write_data,
)
from nequip_decorr.study.report.rows import (
    GROUPS,
    answered,
    clock,
    judged,
    notes,
    row,
    unanswered,
)
from nequip_decorr.study.status import by_stage, failures

#: More rows of matrices than this say nothing more.
MAX_MATRICES = 4


def write_report(folder: StudyFolder) -> list[Path]:
    """Write the page, ``result.json`` and the CSV files; returns their paths.

    Raises:
        UserError: if the folder is not that of a study, or matplotlib is missing.
        OSError: if the files cannot be written.
    """
    found = findings(folder)
    written = write_data(found, folder.path)
    page = folder.path / "report.html"
    write_atomic(page, render(found, folder.path.name))
    return [page, *written]


def render(found: Findings, title: str) -> str:
    """The page as text."""
    registered = found.registered
    stages = by_stage(registered.tasks, found.records, set())
    given = found.answers
    return render_page(
        "nequip_decorr.study.report",
        "study.html.j2",
        title=title,
        complete=found.complete,
        done=f"{sum(s.done for s in stages)} of {len(registered.tasks)} tasks done",
        setting=_setting(found),
        primary=[row(a) for a in given if a.question.primary],
        secondary=[row(a) for a in answered(given) if not a.question.primary],
        judged=judged(given),
        unanswered=unanswered(given),
        notes=notes(found),
        survival=[
            (
                kind,
                svg(
                    survival_figure(
                        found.models, found.variants, found.conditions, kind
                    )
                ),
            )
            for kind in kinds_with_events(found.models)
        ],
        clock=clock(found),
        forests=_forests(given, found.variants),
        matrices=_matrices(found),
        columns=_columns(found.models),
        models=_model_rows(found.models),
        stages=stages,
        failed=failures(found.records),
        variants=registered.identity["variants"],
        provenance=list(
            flat(
                {
                    "plan": registered.checksum,
                    "versions of this page": versions(),
                    "machine": dict(enumerate(machines(found.records))),
                }
            ).items()
        ),
    )


def _setting(found: Findings) -> str:
    seeds = len(found.registered.seeds)
    return (
        f"{len(found.variants)} variants ({', '.join(found.variants)}) x {seeds} "
        f"training seed{'s' if seeds != 1 else ''}; baseline {found.variants[0]}"
    )


def _forests(given: Sequence[Answer], variants: Sequence[str]) -> list[tuple[str, str]]:
    found = []
    for title, quantities in GROUPS.items():
        shown = [
            a
            for a in given
            if a.question.quantity in quantities and a.effect is not None
        ]
        if shown:
            found.append((title, svg(forest_figure(shown, variants))))
    return found


def _matrices(found: Findings) -> dict[str, Any] | None:
    """Matrices of the seed for which most variants were inspected."""
    by_seed: dict[int, dict[str, Path]] = {}
    for model in found.models:
        if model.inspection is None:
            continue
        path = found.folder / model.inspection
        if path.is_file():  # not in a copy of the records alone
            by_seed.setdefault(model.seed, {})[model.variant] = path
    if not by_seed:
        return None
    seed, files = max(by_seed.items(), key=lambda item: len(item[1]))
    shown: dict[str, Inspection] = {}
    for variant, path in list(files.items())[:MAX_MATRICES]:
        inspection = from_json(path.read_text(encoding="utf-8"))
        first = next(iter(shown.values()), inspection)
        if len(inspection.layers) == len(first.layers):
            shown[variant] = inspection
    return {
        "seed": seed,
        "left_out": len(files) - len(shown),
        "image": png(correlation_figure(shown), dpi=110),
    }


def _columns(models: Sequence[Model]) -> list[str]:
    wall = on_gpu(models)
    return list(dict.fromkeys(name for model in models for name in _cells(model, wall)))


def _model_rows(models: Sequence[Model]) -> list[dict[str, Any]]:
    wall = on_gpu(models)
    return [
        {
            "name": f"{model.variant}, {model.seed}",
            "cells": _cells(model, wall),
            "failed": ", ".join(model.failed),
        }
        for model in models
    ]


def _cells(model: Model, wall: bool) -> dict[str, str]:
    cells: dict[str, str] = {}
    if wall and model.train_wall_s is not None:
        cells["training (wall s)"] = f"{model.train_wall_s:.0f}"
    elif not wall and model.train_s is not None:
        cells["training (CPU s)"] = f"{model.train_s:.0f}"
    if model.correlation is not None:
        cells["mean |ρ|"] = f"{model.correlation:.3f}"
    for test, errors in model.errors.items():
        squares = {m: v for m, v in errors.items() if m.endswith("_rmse")} or errors
        for metric, value in squares.items():
            cells[f"{metric}, {test}"] = f"{value:.4g}"
    for condition, replicas in model.replicas.items():
        cells[f"unphysical, {condition}"] = _count(replicas, "unphysical")
        cells[f"explosion, {condition}"] = _count(replicas, "explosion")
    for condition, value in model.rdf.items():
        cells[f"g(r) error (A), {condition}"] = f"{value:.3g}"
    for name, slopes in model.drift.items():
        slope = largest(slopes)
        said = "a replica failed" if slope is None else f"{slope:.2g}"
        cells[f"largest drift (meV/atom/ps), {name}"] = said
    return cells


def _count(replicas: Sequence[Mapping[str, Any]], kind: str) -> str:
    return f"{sum(r[kind]['happened'] for r in replicas)} of {len(replicas)}"
