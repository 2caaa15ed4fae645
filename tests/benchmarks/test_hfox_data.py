"""The data in the repository, and how they are made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase.data import covalent_radii
from ase.io import read
from ase.neighborlist import neighbor_list

from benchmarks.hfox import data
from nequip_decorr.md.protocol import Criteria

#: Data out of distribution.
CONDITIONS = ("hfo1.56_1200K", "hfo1.12_1200K", "hfo2_2400K")

#: Lattice constants (A) as published for hafnia, and Hf-O distances of its kind.
VOLUMES_PER_HF = {"monoclinic": 34.58, "tetragonal": 33.3, "cubic": 32.8}


@pytest.mark.parametrize("polymorph", data.POLYMORPHS)
def test_unit_cells_are_hafnia(polymorph: str) -> None:
    atoms = data.unit_cell(polymorph)
    hafnium = (atoms.symbols == "Hf").sum()
    assert (atoms.symbols == "O").sum() == 2 * hafnium
    volume = atoms.get_volume() / hafnium
    assert volume == pytest.approx(VOLUMES_PER_HF[polymorph], rel=0.01)
    i, d = neighbor_list("id", atoms, {("Hf", "O"): 2.5})
    assert 1.95 < d.min() < 2.25
    # 7-fold in the monoclinic cell, 8-fold in the others
    expected = 7 if polymorph == "monoclinic" else 8
    on_hafnium = np.bincount(i, minlength=len(atoms))[atoms.symbols == "Hf"]
    assert (on_hafnium == expected).all()


def test_runs_have_seeds_of_their_own() -> None:
    runs = data.runs()
    assert len({run.name for run in runs}) == len(runs)
    assert len({run.seed for run in runs}) == len(runs)


def test_start_of_a_run_has_the_oxygens_asked_for() -> None:
    run = next(run for run in data.runs() if run.oxygens == 18)
    first = data.start_of(run, np.random.default_rng(run.seed))
    again = data.start_of(run, np.random.default_rng(run.seed))
    assert first.get_chemical_formula("metal") == "Hf16O18"
    assert np.array_equal(first.positions, again.positions)


def test_committed_data_are_those_of_the_checksums() -> None:
    data.require_intact()


def test_changed_data_are_refused(tmp_path: Path) -> None:
    shutil.copyfile(data.DATA / data.CHECKSUMS, tmp_path / data.CHECKSUMS)
    for path in data.DATA.glob("*.extxyz"):
        shutil.copyfile(path, tmp_path / path.name)
    with (tmp_path / "hfo2_val.extxyz").open("a") as handle:
        handle.write("\n")
    with pytest.raises(ValueError, match="other bytes"):
        data.require_intact(tmp_path)


@pytest.mark.parametrize("name", [*CONDITIONS, "hfo2_test", "hfo2_train"])
def test_the_teacher_never_comes_near_a_failure(name: str) -> None:
    # else a correct model would be scored as unstable
    limit = Criteria().min_distance_ratio
    for atoms in read(data.DATA / f"{name}.extxyz", ":"):
        i, j, d = neighbor_list("ijd", atoms, 3.0)
        radii = covalent_radii[atoms.numbers]
        assert (d / (radii[i] + radii[j])).min() > 1.15 * limit


@pytest.mark.parametrize("condition", CONDITIONS)
def test_start_structures_are_the_ends_of_runs_of_their_own(condition: str) -> None:
    starts = read(data.DATA / f"{condition}_start.extxyz", ":")
    frames = read(data.DATA / f"{condition}.extxyz", ":")
    assert len({a.info["run"] for a in starts}) == data.STRUCTURES
    for atoms, last in zip(starts, frames[5::6], strict=True):
        assert np.array_equal(atoms.positions, last.positions)
        assert atoms.calc is None
