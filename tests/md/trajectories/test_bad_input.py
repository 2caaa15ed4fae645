"""What cannot be judged, or not all of it, is said in one line."""

import gzip
import re
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from nequip_decorr import UserError
from nequip_decorr.md import Protocol
from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made


@pytest.fixture
def frames():
    return made.script(made.oxide(), 6)


def refused(path, pattern, **how):
    with pytest.raises(UserError, match=pattern) as error:
        judge(path, **how)
    assert "\n" not in str(error.value)


def edited(path, old, new, count=1):
    text = path.read_text()
    assert old in text
    path.write_text(text.replace(old, new, count))
    return path


@pytest.mark.parametrize("cut", [1, 40, 400, 4000, 4700])
@pytest.mark.parametrize("name", ["dump.lammpstrj", "dump.lammpstrj.gz"])
def test_a_dump_that_was_cut_off(tmp_path, frames, name, cut):
    """Wherever it ends, all whole frames are judged."""
    made.approach(frames, 3, 1.4)
    text = "".join(made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames))
    path = tmp_path / name
    opener = gzip.open if name.endswith(".gz") else open
    with opener(path, "wt") as handle:
        handle.write(text[:-cut])
    whole = text[:-cut].count("ITEM: TIMESTEP\n") - 1
    warned = []
    (replica,) = judge(path, warned=warned).replicas
    assert replica.unphysical.step == 30
    assert replica.time_ps == pytest.approx(0.01 * (whole - 1))
    assert len(warned) == 1
    assert "is incomplete and is skipped" in warned[0]


def test_a_gzip_stream_that_was_cut_off(tmp_path, frames):
    path = made.write_dump(tmp_path / "dump.lammpstrj.gz", frames)
    path.write_bytes(path.read_bytes()[:-2000])
    warned = []
    (replica,) = judge(path, warned=warned).replicas
    assert 0.01 <= replica.time_ps < 0.05
    assert len(warned) == 1


@pytest.mark.parametrize("cut", [5, 500, 2000, -12, -30, -60])
def test_a_restart_that_appends_after_a_cut(tmp_path, frames, cut):
    """The rest of a frame, and then the next begins, in the middle of a line.

    From the end of the frame, or (negative) from its beginning.
    """
    texts = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    made.approach(frames, 4, 1.4)
    again = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    path = tmp_path / "dump.lammpstrj"
    path.write_text("".join(texts[:3]) + texts[3][:-cut] + "".join(again[2:]))
    warned = []
    (replica,) = judge(path, warned=warned).replicas
    assert (replica.unphysical.step, replica.time_ps) == (40, 0.05)
    assert len(warned) == 1
    named = "a frame of" if cut < 0 else "the frame of step 30 of"
    assert f"{named} {path} is incomplete" in warned[0]


def test_a_restart_that_ends_the_line_of_a_cut(tmp_path, frames):
    """As run.sh does: all lines are there, and the last one lacks columns."""
    texts = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    made.approach(frames, 4, 1.4)
    again = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    cut = texts[3].rstrip("\n").rpartition(" ")[0] + " \n"
    path = tmp_path / "dump.lammpstrj"
    path.write_text("".join(texts[:3]) + cut + "".join(again[2:]))
    warned = []
    (replica,) = judge(path, warned=warned).replicas
    assert (replica.unphysical.step, replica.time_ps) == (40, 0.05)
    assert [f"the frame of step 30 of {path} is incomplete" in w for w in warned] == [
        True
    ]
    # a line that is damaged elsewhere is none that was cut off
    lines = texts[3].splitlines(keepends=True)
    lines[-3] = lines[-3].rpartition(" ")[0] + "\n"
    path.write_text("".join(texts[:3]) + "".join(lines))
    with pytest.raises(UserError, match="damaged"):
        judge(path, warned=[])


def test_steps_that_go_back(tmp_path, frames):
    """A run killed at step 50 and restarted from step 20."""
    texts = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    longer = made.script(made.oxide(), 8)
    rest = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(longer)][2:]
    path = tmp_path / "dump.lammpstrj"
    path.write_text("".join(texts + rest))
    warned = []
    (replica,) = judge(path, warned=warned).replicas
    assert (replica.unphysical, replica.explosion) == (None, None)
    assert replica.time_ps == 0.07
    assert len(warned) == 1
    assert re.search(r"go back from 50 to 20 .*; 4 frames .*skipped", warned[0])


def test_a_restart_writes_its_first_frame_twice(tmp_path, frames):
    texts = [made.dump_text(atoms, 10 * n) for n, atoms in enumerate(frames)]
    path = tmp_path / "dump.lammpstrj"
    path.write_text("".join(texts[:4] + texts[3:]))
    assert judge(path).replicas[0].time_ps == 0.05


def test_a_restart_with_other_noise(tmp_path):
    """With a frame each step: nothing leaps from one run into the other."""
    before = made.script(made.oxide(), 12, drift_A=0.0)
    after = made.script(made.oxide(), 16, drift_A=0.0)
    for number in range(16):
        way = 0.08 * max(number - 5, 0) * np.array([0.0, 0.0, 1.0])
        after[number].positions[7] -= way
        if number < 12:
            before[number].positions[7] += way
    texts = [made.dump_text(atoms, number) for number, atoms in enumerate(before)]
    texts += [made.dump_text(after[number], number) for number in range(5, 16)]
    path = tmp_path / "dump.lammpstrj"
    path.write_text("".join(texts))
    criteria = replace(Protocol().criteria, min_distance_ratio=None)
    warned = []
    protocol = Protocol(criteria=criteria)
    (replica,) = judge(path, protocol=protocol, warned=warned).replicas
    assert "go back from 11 to 5" in warned[0]
    assert (replica.explosion, replica.time_ps) == (None, 0.015)
    # a leap within the second run still is one
    after[14].positions[7] += [0.6, 0.0, 0.0]
    texts[-2] = made.dump_text(after[14], 14)
    path.write_text("".join(texts))
    (replica,) = judge(path, protocol=protocol, warned=warned).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("blowup", 14)


def test_two_simulations_in_one_file(tmp_path, frames):
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    other = made.script(made.oxide(skew=0.5), 3, seed=1)
    second = made.write_dump(tmp_path / "b", other)
    path.write_text(path.read_text() + second.read_text())
    refused(path, "expected one simulation in .*begins at step 0")


def test_the_same_simulation_started_again(tmp_path, frames):
    """Killed before its first restart file: it is the same, from the start."""
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames[:3])
    again = made.write_dump(tmp_path / "b", frames)
    path.write_text(path.read_text() + again.read_text())
    warned = []
    assert judge(path, warned=warned).replicas[0].time_ps == 0.05
    assert "go back from 20 to 0" in warned[0]


@pytest.mark.parametrize("name", ["dump.lammpstrj", "md.extxyz", "md.traj", "XDATCAR"])
def test_another_number_of_atoms(tmp_path, frames, name):
    frames[3] += bulk("Cu", cubic=True)[:1]
    path = tmp_path / name
    if name == "dump.lammpstrj":
        made.write_dump(path, frames)
    elif name == "XDATCAR":
        one = made.write_xdatcar(tmp_path / "a", frames[:3]).read_text()
        other = made.write_xdatcar(tmp_path / "b", frames[3:4]).read_text()
        path.write_text(one + other)
    else:
        ase.io.write(path, frames)
    refused(path, "atoms of the first frame", interval_steps=10)


def test_types_that_change(tmp_path, frames):
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    text = path.read_text()
    place = text.index("\n7 1 Hf", text.index("TIMESTEP\n30"))
    path.write_text(text[:place] + "\n7 2 O " + text[place + 7 :])
    refused(path, r"keep their element, got atom 7 as another one .*step 30")


def test_types_without_elements(tmp_path, frames):
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, labels="type")
    refused(path, r"which type is what: --atom-types 1=ELEMENT 2=ELEMENT")
    refused(path, "got none for '2'", types={"1": "Hf"})
    refused(path, "got none for '1'", types={"1": "Xx", "2": "O"})
    # LAMMPS writes C for each type that has no element
    path = made.write_dump(path, frames)
    path.write_text(re.sub(r" (Hf|O) ", " C ", path.read_text()))
    refused(path, "got C for all of them")
    assert judge(path, types={"1": "Hf", "2": "O"}).replicas[0].formula == "Hf32O32"


def test_what_a_dump_must_have(tmp_path, frames):
    def fresh():
        return made.write_dump(tmp_path / "dump.lammpstrj", frames)

    path = fresh()
    box = "\n".join(made.box_lines(frames[0])) + "\n"
    refused(edited(path, box, "", 99), "expected ITEM: BOX BOUNDS in each frame")
    refused(edited(fresh(), "ATOMS id type", "ATOMS number type", 99), "without id")
    refused(edited(fresh(), " x y z", " a b c", 99), "without x y z")
    refused(edited(fresh(), "ITEM: TIMESTEP", "TIMESTEP"), "a LAMMPS text dump")
    refused(edited(fresh(), "\n3 1 Hf", "\n2 1 Hf"), "each atom id once")
    refused(edited(fresh(), " Hf ", " Hf x"), "a line at step 0 that is damaged")
    path.write_text("")
    refused(path, "got no complete one")


def test_lengths_in_other_units(tmp_path, frames):
    """Nanometres, and lengths of a Lennard-Jones diameter of nothing."""
    for atoms in frames:
        atoms.set_cell(atoms.cell / 10, scale_atoms=True)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    refused(path, "lengths may not be in A")
    for atoms in frames:
        atoms.set_cell(atoms.cell * 1000, scale_atoms=True)
    refused(made.write_dump(path, frames), "lengths may not be in A")


@pytest.mark.parametrize("spacing_A", [4.0, 30.0])
def test_atoms_that_are_far_apart_by_nature(tmp_path, spacing_A):
    """Solid helium at 7 sums of covalent radii, and a gas."""
    gas = bulk("He", "sc", a=spacing_A) * (3, 3, 3)
    path = made.write_ase(tmp_path / "md.extxyz", made.script(gas, 6), "extxyz")
    assert judge(path, interval_steps=10).replicas[0].first is None


@pytest.mark.parametrize(("written", "read"), [("metal", "real"), ("real", "metal")])
def test_velocities_in_other_units(tmp_path, frames, written, read):
    """A/ps as A/fs is 3e8 K, A/fs as A/ps 3e-4 K."""
    made.give(frames, forces=False)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, units=written)
    refused(path, f"not in units {read}: give --units {written}", units=read)
    assert judge(path, units=written).replicas[0].first is None


def test_units_that_the_dump_says(tmp_path, frames):
    """With ``dump_modify units yes time yes``: units in the first frame alone."""
    made.give(frames, forces=False)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, units="real")
    text = path.read_text().replace(
        "ITEM: TIMESTEP", "ITEM: UNITS\nreal\nITEM: TIME\n0.0\nITEM: TIMESTEP", 1
    )
    path.write_text(text)
    assert judge(path).replicas[0].trace.temperature_K[0] == pytest.approx(300.0)
    refused(path, "expected units real as .* says, got metal", units="metal")
    path.write_text(text.replace("UNITS\nreal", "UNITS\nlj"))
    refused(path, "expected units metal or real, got 'lj'")


def test_a_first_frame_that_is_not_sound(tmp_path, frames):
    made.approach(frames, 0, 1.4)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    refused(
        path,
        r"expected a first frame without violations, .*1\.400 A apart.*--start FILE",
    )
    (replica,) = judge(path, start=made.oxide()).replicas
    assert replica.unphysical.step == 0
    # where the corner of the box is does not matter
    moved = made.oxide()
    moved.positions += moved.cell.array.sum(axis=0) / 2
    assert judge(path, start=moved).replicas[0].unphysical.step == 0
    turned = made.oxide(skew=2.0)
    refused(path, "expected the cell of .* in the same orientation", start=turned)
    bare = made.oxide()
    bare.cell, bare.pbc = None, False
    refused(path, "expected the cell of .* write it from the first frame", start=bare)
    other = made.oxide()[::-1]
    refused(path, "expected the atoms of .* in the same order in --start", start=other)


def test_positions_that_are_no_numbers(tmp_path, frames):
    frames[4].positions[9] = np.nan
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    (replica,) = judge(path).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.atoms) == ("nonfinite", 40, (9,))
    frames[0].positions[9] = np.nan
    refused(made.write_dump(path, frames), "expected finite positions")


def test_no_box(tmp_path, frames):
    for atoms in frames:
        atoms.cell = [9.6, 0, 9.6]
    ase.io.write(tmp_path / "md.traj", frames)
    refused(tmp_path / "md.traj", "a cell with non-zero volume", interval_steps=1)


def test_a_single_frame(tmp_path, frames):
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames[:1])
    refused(path, "trajectories of at least one step")


@pytest.mark.parametrize("name", ["md.traj", "XDATCAR", "vasprun.xml", "md.extxyz"])
def test_what_is_something_else(tmp_path, name):
    (tmp_path / name).write_text("this is a note\nof two lines\n")
    refused(tmp_path / name, r"^expected ", interval_steps=1)


def test_a_vasprun_that_was_cut_off(tmp_path, frames):
    path = made.write_vasprun(tmp_path / "vasprun.xml", frames)
    path.write_text(path.read_text()[:-3000])
    warned = []
    (replica,) = judge(
        path,
        protocol=Protocol(horizon_ps=1.0, criteria=made.no_leaps()),
        given={"horizon_ps"},
        warned=warned,
    ).replicas
    assert (replica.time_ps, replica.censored_by) == (0.004, "file_ends")
    assert "ends in the middle of step 5" in warned[0]


def test_a_vasprun_of_a_relaxation(tmp_path, frames):
    path = made.write_vasprun(tmp_path / "vasprun.xml", frames)
    refused(edited(path, '"IBRION">0', '"IBRION">2'), "IBRION = 2")


def test_an_xdatcar_and_an_extxyz_that_were_cut_off(tmp_path, frames):
    path = made.write_xdatcar(tmp_path / "XDATCAR", frames)
    path.write_text(path.read_text()[:-100])
    warned = []
    assert judge(path, interval_steps=10, warned=warned).replicas[0].time_ps == 0.04
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    path.write_text(path.read_text()[:-100])
    assert judge(path, interval_steps=10, warned=warned).replicas[0].time_ps == 0.04
    assert len(warned) == 2
    assert all("frame 6 of" in line for line in warned)


def test_velocities_of_an_unknown_unit(tmp_path, frames):
    for atoms in frames:
        atoms.set_array("vel", np.ones((len(atoms), 3)))
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    warned = []
    result = judge(path, interval_steps=10, warned=warned)
    assert "the unit of its velocities is unknown" in warned[0]
    assert "temperature" in {item["test"] for item in result.source["not_tested"]}


def test_frames_without_steps(tmp_path, frames):
    path = made.write_ase(tmp_path / "md.traj", frames, "traj")
    refused(path, "give the steps between two frames: --frame-interval-steps N")


def test_times_that_do_not_fit_the_steps(tmp_path, frames):
    """Steps go on after an equilibration, and times begin anew."""
    for number, atoms in enumerate(frames):
        atoms.info.update(step=10 * number, time_ps=0.02 * number)
    path = made.write_ase(tmp_path / "md.extxyz", frames, "extxyz")
    assert judge(path, without={"timestep_fs"}).timestep_fs == pytest.approx(2.0)
    for atoms in frames:
        atoms.info["step"] += 1000
    made.write_ase(path, frames, "extxyz")
    refused(path, "give --timestep-fs", without={"timestep_fs"})
    assert judge(path).replicas[0].time_ps == 0.05
