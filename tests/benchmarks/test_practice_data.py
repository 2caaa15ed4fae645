"""The data of the studies, and how they are made."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones
from ase.calculators.singlepoint import SinglePointCalculator
from ase.data import covalent_radii
from ase.io import read
from ase.neighborlist import neighbor_list

from benchmarks.practice import data
from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import Criteria
from nequip_decorr.md.structures import smallest_height_A

RUNS = data.runs()
CUTOFF_A = 5.0
CONDITIONS = tuple(data.OUT_OF_DISTRIBUTION)


def frames_of(name: str) -> list[Atoms]:
    return read(data.DATA / f"{name}.extxyz", ":")


def test_runs_have_names_and_noise_of_their_own() -> None:
    assert len({run.name for run in RUNS}) == len(RUNS)
    assert len({run.rng(1, 2).random() for run in RUNS}) == len(RUNS)
    run = RUNS[0]
    assert run.rng(1, 2).random() == run.rng(1, 2).random() != run.rng(1, 3).random()


@pytest.mark.parametrize("polymorph", data.POLYMORPHS)
def test_crystals_are_hafnia_of_96_atoms(polymorph: str) -> None:
    atoms = data.crystal_cell(polymorph)
    assert atoms.get_chemical_formula("metal") == "Hf32O64"
    i, d = neighbor_list("id", atoms, {("Hf", "O"): 2.5})
    assert 1.95 < d.min() < 2.25
    # 7-fold in the monoclinic cell, 8-fold in the others
    expected = 7 if polymorph == "monoclinic" else 8
    assert (np.bincount(i, minlength=96)[atoms.symbols == "Hf"] == expected).all()


@pytest.mark.parametrize("run", RUNS, ids=lambda run: run.name)
def test_starts_have_the_composition_and_room_for_the_cutoff(run: data.Run) -> None:
    atoms = data.start_of(run)
    assert (atoms.symbols == "Hf").sum() == data.HAFNIUMS
    assert (atoms.symbols == "O").sum() == run.oxygens
    # the distance of opposite faces, by the cell's volume over their area
    a, b, c = atoms.cell.array
    volume = abs(np.linalg.det(atoms.cell.array))
    heights = [
        volume / np.linalg.norm(np.cross(*edges)) for edges in ((b, c), (c, a), (a, b))
    ]
    assert min(heights) == pytest.approx(smallest_height_A(atoms))
    assert min(heights) >= 2 * CUTOFF_A
    again = data.start_of(run)
    assert np.array_equal(atoms.positions, again.positions)
    assert np.array_equal(atoms.get_momenta(), again.get_momenta())


def test_a_run_in_distribution_is_split_into_whole_stretches_of_time() -> None:
    parts = [range(data.FRAMES)[part] for part in data.SPLIT.values()]
    assert [n for part in parts for n in part] == list(range(data.FRAMES))


def calculator() -> LennardJones:
    return LennardJones(sigma=1.5, epsilon=0.05, rc=4.0)


def simulate(folder: Path, steps: list[int]) -> list[np.ndarray]:
    run = data.Run("argon", 0, 300)
    start = Atoms("Ar4", np.eye(4, 3) * 2.0, cell=[8.0] * 3, pbc=True)
    data.simulate(folder, start, calculator(), run, steps)
    return [read(path).positions for path in data.frames_in(folder)]


def test_md_continues_from_the_last_saved_frame(tmp_path: Path) -> None:
    whole = simulate(tmp_path / "a" / "md", [3, 2, 2])
    assert len(whole) == 3
    first = simulate(tmp_path / "b" / "md", [3])
    (tmp_path / "b" / "md" / "001.extxyz.part").write_text("cut off")
    resumed = simulate(tmp_path / "b" / "md", [3, 2, 2])
    assert np.array_equal(first[0], resumed[0])
    np.testing.assert_allclose(resumed, whole, atol=1e-6)
    assert not np.allclose(whole[1], whole[2], atol=1e-3)


def test_saved_frames_have_the_labels_of_their_positions(tmp_path: Path) -> None:
    simulate(tmp_path / "md", [3, 2])
    for path in data.frames_in(tmp_path / "md"):
        atoms = read(path)
        again = Atoms(atoms.symbols, atoms.positions, cell=atoms.cell, pbc=True)
        again.calc = calculator()
        np.testing.assert_allclose(again.get_forces(), atoms.get_forces(), atol=1e-6)


def test_a_model_that_breaks_down_is_refused(tmp_path: Path) -> None:
    atoms = Atoms("Ar", cell=[8.0] * 3, pbc=True)
    atoms.calc = SinglePointCalculator(atoms, energy=0.0, forces=[[np.nan, 0, 0]])
    with pytest.raises(UserError, match="finite forces"):
        data.save(tmp_path / "0.extxyz", atoms)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("run", [RUNS[0], RUNS[-1]], ids=lambda run: run.name)
def test_labels_need_all_frames_of_the_sampler(tmp_path: Path, run: data.Run) -> None:
    with pytest.raises(UserError, match=r"expected \d+ frames"):
        data.label(run, tmp_path, calculator())


def written(folder: Path, run: data.Run, frames: int) -> None:
    """Frames of a run with labels that tell their number."""
    for number in range(frames):
        atoms = data.start_of(run)
        forces = np.full((len(atoms), 3), number / 100)
        atoms.calc = SinglePointCalculator(atoms, energy=-1.0, forces=forces)
        data.save(folder / run.name / "labelled" / f"{number:03d}.extxyz", atoms)


def numbers(folder: Path, run: data.Run) -> dict[str, list[int | None]]:
    return {
        name: [
            None if a.calc is None else round(a.get_forces()[0, 0] * 100)
            for a in frames
        ]
        for name, frames in data.sets_of(run, folder).items()
    }


def test_frames_of_a_run_go_where_they_belong(tmp_path: Path) -> None:
    run = data.Run("hfo2_300K", 0, 300)
    written(tmp_path, run, 118)
    assert numbers(tmp_path, run) == {
        "hfo2_train": [*range(90)],
        "hfo2_val": [*range(90, 102)],
        "hfo2_test": [*range(102, 118)],
    }
    run = data.Run("hfo1.56_1200K", 0, 1200, 50)
    written(tmp_path, run, 10)
    found = numbers(tmp_path, run)
    assert found == {run.group: [6, 7, 8, 9], f"{run.group}_start": [None]}


def test_compact_text_has_the_same_numbers(tmp_path: Path) -> None:
    atoms = data.start_of(RUNS[-1])
    frame = data.published(atoms_with_labels(atoms), RUNS[-1])
    text = data.extxyz([frame])
    short = data.compact(text)
    assert len(short) < 0.65 * len(text)
    (tmp_path / "a.extxyz").write_text(short)
    again = read(tmp_path / "a.extxyz")
    assert np.array_equal(again.positions, frame.positions)
    assert np.array_equal(again.get_forces(), frame.get_forces())
    assert np.array_equal(again.cell.array, frame.cell.array)
    assert again.get_potential_energy() == frame.get_potential_energy()
    assert again.info == frame.info


def atoms_with_labels(atoms: Atoms) -> Atoms:
    forces = np.random.default_rng(0).normal(size=(len(atoms), 3))
    forces[0] = [0.0, 10.0, -100.0]
    atoms.calc = SinglePointCalculator(atoms, energy=-900.12345, forces=forces)
    return atoms


def test_incomplete_runs_are_not_assembled(tmp_path: Path) -> None:
    written(tmp_path, RUNS[0], 3)
    with pytest.raises(UserError, match="rerun the stage"):
        data.assemble(tmp_path, tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_committed_data_are_those_of_the_checksums(tmp_path: Path) -> None:
    stored = (data.DATA / data.CHECKSUMS).read_text()
    assert data.checksums(data.DATA) == stored
    shutil.copy(data.DATA / "hfo2_val.extxyz", tmp_path)
    with (tmp_path / "hfo2_val.extxyz").open("a") as handle:
        handle.write("\n")
    assert data.checksums(tmp_path) not in stored


@pytest.mark.parametrize("name", [*CONDITIONS, "hfo2_test", "hfo2_train"])
def test_the_teacher_never_comes_near_a_failure(name: str) -> None:
    # else a correct model would be scored as unstable
    limit = Criteria().min_distance_ratio
    assert limit is not None
    for atoms in frames_of(name):
        i, j, d = neighbor_list("ijd", atoms, 3.0)
        radii = covalent_radii[atoms.numbers]
        assert (d / (radii[i] + radii[j])).min() > 1.1 * limit


@pytest.mark.parametrize("name", CONDITIONS)
def test_test_frames_follow_the_start_structures(name: str) -> None:
    starts, frames = frames_of(f"{name}_start"), frames_of(name)
    assert len(starts) == data.STRUCTURES
    assert {a.info["polymorph"] for a in starts} == set(data.POLYMORPHS)
    assert all(atoms.calc is None for atoms in starts)
    first = frames[:: len(frames) // data.STRUCTURES]
    for atoms, later in zip(starts, first, strict=True):
        assert atoms.info["run"] == later.info["run"]
        moved = atoms.positions - later.positions
        fractional = moved @ np.linalg.inv(atoms.cell.array)
        moved = (fractional - fractional.round()) @ atoms.cell.array
        # 24 fs later
        assert 0 < np.linalg.norm(moved, axis=1).max() < 1.5
