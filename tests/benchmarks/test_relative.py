"""The studies of the relative coefficient, and their table in docs/choose.md."""

from __future__ import annotations

import shutil
from dataclasses import replace
from pathlib import Path

import ase.io
import pytest
import yaml
from ase.build import molecule

from benchmarks.common import ROOT
from benchmarks.pages import updated
from benchmarks.relative import pages
from nequip_decorr.study.config import read_study
from nequip_decorr.study.models import Model
from nequip_decorr.study.plan import make_plan
from nequip_decorr.study.report.result import findings
from tests.support.synthetic_study import synthetic_study

FORMULAS = {"3bpa": "CH3CONH2", "acac": "CH3CH2OH"}


@pytest.mark.parametrize("name", pages.SYSTEMS)
def test_studies_plan(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """With ethanol and acetamide in place of the molecules that users bring."""
    for folder in ("relative", "hfox"):
        shutil.copytree(
            ROOT / "benchmarks" / folder,
            tmp_path / "benchmarks" / folder,
            ignore=shutil.ignore_patterns("results"),
        )
    if name in FORMULAS:
        data = tmp_path / "benchmarks" / "practice" / "external" / name
        data.mkdir(parents=True)
        ase.io.write(data / "train_300K.xyz", molecule(FORMULAS[name]))
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "benchmarks" / "relative" / f"{name}_study.yaml"
    found = make_plan(read_study(path), tmp_path / "out")
    assert {task.stage for task in found.tasks} == {"train", "test", "inspect"}
    changed = {
        each["config"]["nequip_decorr"]["schedule"]["coeff"]
        for variant, each in found.identity["variants"].items()
        if variant != "none"
    }
    assert changed == {0.3, 1, 3, 30}
    configs = [each["config"] for each in found.identity["variants"].values()]
    data, trainer = configs[0]["data"], configs[0]["trainer"]
    frames = data["split_dataset"]["train"] / data["train_dataloader"]["batch_size"]
    assert frames * trainer["max_epochs"] == 1000


def test_a_cell_has_the_correlation_of_each_seed(tmp_path: Path) -> None:
    measured = [
        Model("none", 1, layers=[{"mean_abs": 0.4}, {"mean_abs": 0.6}]),
        Model("1", 1, layers=[{"mean_abs": 0.1}]),
        Model("none", 2, layers=[{"mean_abs": 0.2}]),
        Model("1", 2),
    ]
    found = replace(findings(synthetic_study(tmp_path / "s")), models=measured)
    assert pages.correlations(found, "none") == "0.50, 0.20"
    assert pages.correlations(found, "1") == "0.10, failed"


def test_the_documentation_has_the_table_of_the_records() -> None:
    text = pages.PAGE.read_text(encoding="utf-8")
    studies = pages.read_studies()
    assert "<!-- table relative -->" in text
    assert updated(text, {"relative": pages.table(studies)}) == text
    for name, found in studies.items():
        assert found.complete
        asked = yaml.safe_load(
            (pages.RESULTS.parent / f"{name}_study.yaml").read_text()
        )
        variants = found.registered.identity["variants"]
        assert asked["variants"] == {
            each: list(known["overrides"]) for each, known in variants.items()
        }
