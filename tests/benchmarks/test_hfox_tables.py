"""Tables of the evidence, on studies whose effects are known."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from benchmarks.hfox import tables as t
from nequip_decorr.study.report.result import Findings, findings
from tests.support.synthetic_study import synthetic_study


@pytest.fixture
def found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Findings]:
    conditions = {"hot": ("hot@1200K", "out"), "hotter": ("hotter@2400K", "out")}
    monkeypatch.setattr(t, "CONDITIONS", conditions)
    yield findings(synthetic_study(tmp_path / "s", 3, log_ratio=0.8))


def numbers(cell: str) -> list[float]:
    return [float(number) for number in re.findall(r"\d+\.\d+", cell)]


def test_ratios_are_those_of_the_study(found: Findings) -> None:
    cell = t.ratio("time", "hot@1200K", "unphysical", found, "variant-1")
    effect = found.answers[0].effect
    assert effect is not None
    expected = [effect.value, effect.low, effect.high]
    assert numbers(cell) == [float(f"{number:.2f}") for number in expected]
    assert cell.startswith("**")


def test_the_row_of_the_baseline_is_its_mean(found: Findings) -> None:
    cell = t.ratio("time", "hot@1200K", "unphysical", found, "none")
    times = [
        each["unphysical"]["time_ps"]
        for model in found.models
        if model.variant == "none"
        for each in model.replicas["hot@1200K"]
    ]
    assert cell == f"{stats.gmean(times):.2g} ps"
    assert t.ratio("error", "in", "forces_rmse", found, "none").endswith(" eV/A")


def test_no_interval_from_two_seeds(tmp_path: Path) -> None:
    found = findings(synthetic_study(tmp_path / "two", seeds=2))
    cell = t.ratio("time", "hot@1200K", "unphysical", found, "variant-1")
    assert re.fullmatch(r"\d+\.\d\d", cell)


def test_what_was_not_followed_has_no_number(found: Findings) -> None:
    assert t.ratio("time", "hot@1200K", "explosion", found, "variant-1") == "-"
    assert t.ratio("time", "hot@1200K", "explosion", found, "none") == "-"


def test_survivors(found: Findings) -> None:
    assert t.survivors("hot@1200K", found, "none") == "0 of 64"


def test_every_row_has_a_cell_for_each_column(found: Findings) -> None:
    studies = {"one": found}
    columns = t.of_conditions("time", "unphysical")
    text = t.table(studies, t.everything(studies), columns, "study | variant | seeds")
    lines = text.splitlines()
    assert len(lines) == 2 + 3
    assert len({line.count("|") for line in lines}) == 1
    assert lines[2].startswith("| one | none | 8 |")


def test_the_seeds_of_two_studies_together(
    found: Findings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The same models once more: the same ratio, and no star."""
    other = findings(synthetic_study(tmp_path / "t", 3, log_ratio=0.8))
    for model in other.models:
        object.__setattr__(model, "seed", model.seed + 8)
    line = t.together({"a": found, "b": other}, {("a", "b"): "variant-1"})
    row = line.splitlines()[-1]
    assert row.startswith("| a and b | variant-1 | 16 |")
    effect = found.answers[0].effect
    assert effect is not None
    assert numbers(row.split("|")[4])[0] == pytest.approx(effect.value, abs=0.005)
    assert "\\*" not in row


def test_rank_correlation(found: Findings) -> None:
    """Of times that follow the correlation without fail, as good as one."""
    rng = np.random.default_rng(0)
    for model in found.models:
        rho = float(rng.uniform(0.1, 0.6))
        object.__setattr__(model, "layers", [{"mean_abs": rho}])
        for index, replica in enumerate(model.replicas["hot@1200K"]):
            replica["unphysical"]["time_ps"] = (1 - rho) * (1 + 0.01 * index)
    cell = t.ranks(found, "hot@1200K", found.variants)
    assert cell.startswith("**-1.00**")
