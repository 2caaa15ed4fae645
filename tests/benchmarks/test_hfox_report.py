"""RESULTS.md from records, complete or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from matplotlib.figure import Figure

from benchmarks.hfox import report
from benchmarks.hfox.analysis import Record
from benchmarks.hfox.models import DECORRELATED, VARIANTS
from benchmarks.hfox.report import write_results
from nequip_decorr.plotting import new_figure
from tests.benchmarks.test_hfox_analysis import record


def explored(variants: list[str], seeds: int = 2) -> list[Record]:
    """Decorrelated models hold two times as long, at 1.1 times the force error."""
    records = []
    for seed in range(1, seeds + 1):
        for i, variant in enumerate(variants):
            ours = variant in DECORRELATED
            made = record(
                variant,
                seed,
                times=[0.2 * seed * (2 if ours else 1), 10.0 * ours + 0.5],
                force=0.2 * (1.1 if ours else 1) + 0.001 * i,
                rho=(0.2 if ours else 0.5) + 0.001 * i,
                barrier=2.0 + i,
            )
            records.append(replace(made, grid="explored"))
    return records


def row(text: str, variant: str) -> list[str]:
    """Cells of the first row of a variant."""
    line = next(x for x in text.splitlines() if x.startswith(f"| {variant} |"))
    return [cell.strip() for cell in line.strip("|").split("|")]


def test_results_hold_every_variant_and_its_figures(tmp_path: Path) -> None:
    text = write_results(explored(list(VARIANTS)), tmp_path).read_text()
    for variant in VARIANTS:
        if variant != "none":
            assert row(text, variant)[1] == "2"
    assert row(text, "cosine-down")[5] == "4 of 8"
    assert row(text, "sam")[5] == "0 of 8"
    errors = text.split("Errors, ratio to no extension:")[1]
    assert row(errors, "constant-0.3")[1].startswith("1.1")
    assert row(errors, "sam")[3] == "1.00 [1.00, 1.00]"
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {f"explored_{x}.png" for x in ("survival", "forest", "scatter")}
    assert all(f"({name})" in text for name in figures)


@pytest.mark.parametrize(
    "variants", [["none"], ["none", "sam"], ["none", "cosine-up"]], ids=" ".join
)
def test_an_unfinished_grid_has_results_too(
    tmp_path: Path, variants: list[str]
) -> None:
    text = write_results(explored(variants, seeds=1), tmp_path).read_text()
    assert "## Explored" in text
    assert (tmp_path / "explored_survival.png").exists()


def test_curves_pool_the_same_seeds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    drawn: list[tuple[str, int]] = []
    shown: list[str] = []

    def survival(records: list[Record], variants: list[str]) -> Figure:
        drawn.extend((r.variant, r.seed) for r in records if r.variant in variants)
        shown.extend(variants)
        return new_figure(1, 1)

    monkeypatch.setattr(report, "survival_figure", survival)
    records = explored(["none", "constant-0.3", "cosine-up"], seeds=3)
    # three seeds of the first, two of the second, one of the third
    kept = {"none": 3, "constant-0.3": 2, "cosine-up": 1}
    write_results([r for r in records if r.seed <= kept[r.variant]], tmp_path)
    assert shown == ["none", "constant-0.3"]
    assert sorted(drawn) == [(v, s) for v in ("constant-0.3", "none") for s in (1, 2)]


def test_room_in_the_figure_is_filled_with_the_first_of_the_others(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = []

    def survival(records: list[Record], variants: list[str]) -> Figure:
        shown.extend(variants)
        return new_figure(1, 1)

    monkeypatch.setattr(report, "survival_figure", survival)
    compared = ["constant-0.3", "abs", "decorr-form", "by-element-pair", "later-layers"]
    write_results(explored(["none", *compared]), tmp_path)
    assert len(shown) == 5
    assert shown[:3] == ["none", "constant-0.3", "abs"]


def test_without_the_baseline_a_grid_has_none(tmp_path: Path) -> None:
    text = write_results(explored(["cosine-down"]), tmp_path).read_text()
    assert "## Explored" not in text


def test_failed_drift_runs_are_counted(tmp_path: Path) -> None:
    records = explored(["none", "cosine-down"])
    records[1].data["nve_drift"] = [None, 0.5]
    text = write_results(records, tmp_path).read_text()
    # the mean of 0.5, 0.01 and 0.02
    assert row(text, "cosine-down")[1] == "2"
    assert "| 0.18; 1 of 4 failed |" in text


def test_the_baseline_has_a_row_of_its_own(tmp_path: Path) -> None:
    text = write_results(explored(["none", "cosine-down"]), tmp_path).read_text()
    assert row(text, "none")[2] == "1.00 [1.00, 1.00]"


def test_a_section_borrows_the_models_that_it_is_compared_with(tmp_path: Path) -> None:
    records = explored(["none", "constant-0.3", "cosine-up"])
    forms = [replace(r, grid="forms", variant="abs") for r in records[1::3]]
    text = write_results([*records, *forms], tmp_path).read_text()
    section = text.split("## Other forms of the term")[1]
    assert row(section, "abs")[1] == row(section, "constant-0.3")[1] == "2"
    assert "| cosine-up |" not in section
