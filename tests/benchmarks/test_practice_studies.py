"""The studies plan: config, variants, data and start structures fit each other."""

from __future__ import annotations

import shutil
from pathlib import Path

import ase.io
import pytest
from ase.build import molecule

from benchmarks.common import ROOT
from nequip_decorr.errors import UserError
from nequip_decorr.study.config import read_study
from nequip_decorr.study.plan import Plan, make_plan

PRACTICE = ROOT / "benchmarks" / "practice"
VARIANTS = {
    "hfo2": ["none", "term", "zbl", "zbl-term"],
    "3bpa": ["none", "term"],
    "acac": ["none", "term"],
    "early": ["none", "term"],
}
SEEDS = {"hfo2": 8, "3bpa": 12, "acac": 12, "early": 12}


@pytest.fixture(autouse=True)
def checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with the studies and stand-ins for the data that users bring."""
    folder = tmp_path / "benchmarks" / "practice"
    shutil.copytree(PRACTICE, folder, ignore=shutil.ignore_patterns("external"))
    monkeypatch.chdir(tmp_path)
    return folder


def bring_data(folder: Path) -> None:
    """Ethanol and acetamide in place of the molecules."""
    for name, files, formula in (
        ("3bpa", ("train_300K", "test_600K", "test_1200K"), "CH3CONH2"),
        ("acac", ("train_300K", "test_MD_300K", "test_MD_600K"), "CH3CH2OH"),
    ):
        (folder / "external" / name).mkdir(parents=True)
        for file in files:
            ase.io.write(folder / "external" / name / f"{file}.xyz", molecule(formula))


def planned(folder: Path, name: str) -> Plan:
    return make_plan(read_study(folder / f"{name}_study.yaml"), folder / "out")


@pytest.mark.parametrize("name", VARIANTS)
def test_studies_plan(checkout: Path, name: str) -> None:
    bring_data(checkout)
    study = read_study(checkout / f"{name}_study.yaml")
    found = make_plan(study, checkout / "out")
    assert list(study.variants) == VARIANTS[name]
    assert study.seeds == tuple(range(1, SEEDS[name] + 1))
    # nothing to warn of: small cells, missing checkpoints, a primary without an answer
    assert found.notes == ()
    stages = {task.stage for task in found.tasks}
    assert {"train", "test", "inspect", "compile"} < stages
    # a term and a baseline differ in the term alone
    overrides = found.identity["variants"]["term"]["overrides"]
    assert [each.partition("=")[0] for each in overrides] == ["+nequip_decorr"]
    # both kinds of event are followed, but in hfo2, whose collapsed structures do not
    # explode and would take as long as all else together
    ends = {each["protocol"]["until"] for each in found.identity["md"].values()}
    assert ends == {"first" if name == "hfo2" else "explosion"}
    # every condition is one composition at one temperature
    for simulation in study.md:
        index = str(simulation.structures)
        formulas = {a.get_chemical_formula() for a in ase.io.read(index, ":")}
        assert len(formulas) == 1


def test_term_and_zbl_together_are_both(checkout: Path) -> None:
    variants = planned(checkout, "hfo2").identity["variants"]
    both = variants["zbl"]["overrides"] + variants["term"]["overrides"]
    assert variants["zbl-term"]["overrides"] == both


@pytest.mark.parametrize("name", ["3bpa", "acac", "early"])
def test_missing_data_are_named_in_one_line(checkout: Path, name: str) -> None:
    with pytest.raises(UserError, match=r"\.xyz") as error:
        planned(checkout, name)
    assert "\n" not in str(error.value)
    assert "does not exist" in str(error.value)
