"""One scripted trajectory in each format: events at exactly the planted frames."""

from dataclasses import replace

import numpy as np
import pytest
from ase.build import molecule
from scipy import constants

from nequip_decorr.md import Protocol, preset
from nequip_decorr.md.trajectories.judge import judge_trajectories
from nequip_decorr.md.trajectories.opening import Reading
from nequip_decorr.md.trajectories.settings import Request
from tests.support import trajectories as made

TYPES = {"1": "Hf", "2": "O"}


def dump(**how):
    def write(folder, frames, interval):
        return made.write_dump(
            folder / "dump.lammpstrj", frames, interval=interval, **how
        )

    return write


def compressed(folder, frames, interval):
    return made.write_dump(folder / "dump.lammpstrj.gz", frames, interval=interval)


def by_ase(name, format_):
    return lambda folder, frames, _: made.write_ase(folder / name, frames, format_)


def vasprun(folder, frames, interval):
    # each step is in it: those between are copies of the frame before
    each = [atoms for atoms in frames for _ in range(interval)]
    return made.write_vasprun(folder / "vasprun.xml", each)


#: writer, and what Reading needs
FORMATS = {
    "dump x": (dump(coordinates="x"), {}),
    "dump xu": (dump(coordinates="xu"), {}),
    "dump xs": (dump(coordinates="xs"), {}),
    "dump xsu": (dump(coordinates="xsu"), {}),
    "dump of types, shuffled": (dump(labels="type", shuffle=3), {"types": TYPES}),
    "dump real": (dump(units="real"), {"units": "real"}),
    "dump with masses": (dump(labels="element mass"), {}),
    "dump.gz": (compressed, {}),
    "traj": (by_ase("md.traj", "traj"), {"interval_steps": 10}),
    "extxyz": (by_ase("md.extxyz", "extxyz"), {"interval_steps": 10}),
    "XDATCAR": (
        lambda folder, frames, _: made.write_xdatcar(folder / "XDATCAR", frames),
        {"interval_steps": 10},
    ),
    "vasprun.xml": (vasprun, {}),
}
#: What each can tell of beside positions.
FORCES = [name for name in FORMATS if name != "XDATCAR"]
VELOCITIES = [name for name in FORCES if name != "vasprun.xml"]

HELD = {"temperatures_K", "timestep_fs"}


def judge(folder, *, protocol=None, given=(), without=(), warned=None, **reading):
    """Judge a file at 300 K and 1 fs."""
    said = [] if warned is None else warned
    request = Request(
        paths=(folder,),
        reading=Reading(**reading),
        protocol=protocol or Protocol(),
        given=frozenset((HELD | set(given)) - set(without)),
    )
    result = judge_trajectories(
        request,
        folder.parent / f"{folder.name}-judged",
        machine={},
        warn=said.append,
    )
    if warned is None:  # of one replica that explodes the length is not known
        assert not [line for line in said if "--horizon-ps" not in line]
    return result


def interval_of(name, steps):
    """Copies of frames are written at each step of a vasprun.xml."""
    return 1 if name == "vasprun.xml" else steps


@pytest.mark.parametrize("skew", [0.0, 0.9], ids=["orthogonal", "triclinic"])
@pytest.mark.parametrize("name", FORMATS)
def test_atoms_that_come_too_near(tmp_path, name, skew):
    """From frame 7 on; the crystal drifts out of its cell."""
    write, reading = FORMATS[name]
    frames = made.script(made.oxide(skew))
    pair = made.approach(frames, 7, 1.40)
    criteria = replace(Protocol().criteria, max_displacement_A=None)
    path = write(tmp_path, frames, 10)
    result = judge(path, protocol=Protocol(criteria=criteria), **reading)
    (replica,) = result.replicas
    assert replica.explosion is None
    event = replica.unphysical
    assert (event.cause, event.step, event.time_ps) == ("overlap", 70, 0.07)
    assert sorted(event.atoms) == sorted(pair)
    assert event.value == pytest.approx(1.40, abs=1e-5)
    # Hf 1.75 A, O 0.66 A
    assert event.limit == pytest.approx(0.6 * 2.41)
    last = 119 if name == "vasprun.xml" else 110
    assert (replica.time_ps, replica.censored_by) == (last / 1000, "horizon")


@pytest.mark.parametrize("name", FORCES)
def test_a_strong_force(tmp_path, name):
    """120 eV/A on atom 5 in frame 4: then the trajectory is read no further."""
    write, reading = FORMATS[name]
    frames = made.script(made.oxide())
    made.give(frames)
    frames[4].calc.results["forces"][5] = [72.0, 0.0, -96.0]
    path = write(tmp_path, frames, 10)
    criteria = replace(Protocol().criteria, max_displacement_A=None)
    (replica,) = judge(path, protocol=Protocol(criteria=criteria), **reading).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.atoms) == ("blowup", 40, (5,))
    assert event.value == pytest.approx(120.0, rel=1e-6)
    assert (replica.time_ps, replica.censored_by) == (0.04, None)
    assert replica.unphysical is None


@pytest.mark.parametrize("name", VELOCITIES)
def test_a_hot_atom(tmp_path, name):
    """20 eV in atom 9 of frame 6; all frames are at 300 K before."""
    write, reading = FORMATS[name]
    frames = made.script(made.oxide())
    made.give(frames)
    momenta = frames[6].get_momenta()
    joule = 20.0 * constants.eV
    mass = frames[6].get_masses()[9] * constants.atomic_mass
    speed = np.sqrt(2 * joule / mass) / made.ANGSTROM * made.ASE_SECOND
    momenta[9] = frames[6].get_masses()[9] * np.array([0.0, speed, 0.0])
    frames[6].set_momenta(momenta)
    (replica,) = judge(write(tmp_path, frames, 10), **reading).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.atoms) == ("runaway", 60, (9,))
    assert event.value == pytest.approx(20.0, rel=1e-6)
    assert replica.trace.temperature_K[:6] == pytest.approx([300.0] * 6, rel=1e-6)


def test_a_hot_step_of_vasp(tmp_path):
    """Of velocities, vasprun.xml has the kinetic energy alone."""
    frames = made.script(made.oxide(), drift_A=0.01)
    made.give(frames)
    made.give(frames[8:], temperature_K=10_100.0)
    (replica,) = judge(made.write_vasprun(tmp_path / "vasprun.xml", frames)).replicas
    assert (replica.explosion.cause, replica.explosion.step) == ("runaway", 8)
    assert replica.explosion.value == pytest.approx(10_100.0, rel=1e-6)
    assert replica.trace.temperature_K[:8] == pytest.approx([300.0] * 8, rel=1e-6)


@pytest.mark.parametrize("name", FORMATS)
def test_a_leap_in_one_step(tmp_path, name):
    """0.6 A between frames that are one step apart."""
    write, reading = FORMATS[name]
    if "interval_steps" in reading:
        reading = reading | {"interval_steps": 1}
    frames = made.script(made.oxide(), drift_A=0.1)
    for atoms in frames:
        atoms.positions[11] = frames[0].positions[11]
    frames[5].positions[11] += [0.0, 0.36, 0.48]
    (replica,) = judge(write(tmp_path, frames, 1), **reading).replicas
    event = replica.explosion
    assert (event.cause, event.step, event.atoms) == ("blowup", 5, (11,))
    assert event.value == pytest.approx(0.6, abs=1e-4)


@pytest.mark.parametrize("name", FORMATS)
def test_a_bond_breaks(tmp_path, name):
    """Hydrogen in a periodic box that it drifts out of; from frame 6 on it is torn."""
    write, reading = FORMATS[name]
    if "types" in reading:
        reading = {"types": {"1": "H"}}
    start = molecule("H2", cell=[6.0, 6.5, 7.0], pbc=True)
    frames = made.script(start, 12, drift_A=0.9)
    for atoms in frames:
        atoms.positions[1] = atoms.positions[0] + [0.0, 0.0, 0.74]
    for atoms in frames[6:]:
        atoms.positions[1] += [0.0, 0.3, 0.9]
    protocol = preset("molecule")
    criteria = replace(protocol.criteria, max_displacement_A=None)
    protocol = replace(
        protocol, temperatures_K=(300.0,), timestep_fs=1.0, criteria=criteria
    )
    (replica,) = judge(
        write(tmp_path, frames, 10), protocol=protocol, **reading
    ).replicas
    # fragments: 1.67 A is more than 1.5 x 0.62 A; the bond is off by more than 0.5 A
    # for 10 fs one frame later
    assert (replica.unphysical.cause, replica.unphysical.step) == ("dissociation", 60)
    only_bonds = replace(criteria, fragment_ratio=None)
    protocol = replace(protocol, criteria=only_bonds)
    path = write(tmp_path, frames, 10)
    (replica,) = judge(path, protocol=protocol, **reading).replicas
    assert replica.unphysical.step == 70
    assert "first crossed at 0.06 ps" in replica.unphysical.message


@pytest.mark.parametrize("first", [95, 99])
def test_a_bond_breaks_between_steps_that_md_tests(tmp_path, first):
    """`dump_modify first yes`: steps 99, 100, 200, ... after a minimisation.

    Counted from the first one, none of the others is a multiple of five.
    """
    start = molecule("H2", cell=[6.0, 6.5, 7.0], pbc=True)
    frames = made.script(start, 12, drift_A=0.0)
    for atoms in frames[6:]:
        atoms.positions[1] = atoms.positions[0] + [0.0, 0.3, 1.64]
    steps = [first, *range(100, 1200, 100)]
    path = tmp_path / "dump.lammpstrj"
    texts = map(made.dump_text, frames, steps)
    path.write_text("".join(texts))
    protocol = replace(preset("molecule"), temperatures_K=(300.0,), timestep_fs=1.0)
    (replica,) = judge(path, protocol=protocol).replicas
    assert (replica.unphysical.cause, replica.unphysical.step) == (
        "dissociation",
        600 - first,
    )


def test_what_a_format_does_not_tell_is_not_passed(tmp_path):
    frames = made.script(made.oxide())
    path = made.write_xdatcar(tmp_path / "XDATCAR", frames)
    result = judge(path, interval_steps=10)
    assert {item["test"] for item in result.source["not_tested"]} == {
        "temperature",
        "kinetic energy of single atoms",
        "forces",
        "displacement in one step",
    }
    made.give(frames)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, interval=1)
    criteria = replace(Protocol().criteria, max_displacement_A=3.0)
    result = judge(path, protocol=Protocol(criteria=criteria))
    assert [item["test"] for item in result.source["not_tested"]] == [
        "how the run ended"
    ]
    path = made.write_vasprun(tmp_path / "vasprun.xml", frames)
    result = judge(path, protocol=Protocol(criteria=criteria))
    assert [item["test"] for item in result.source["not_tested"]] == [
        "kinetic energy of single atoms"
    ]


def test_a_slab_that_loses_an_atom(tmp_path):
    """Not periodic along z; boundaries that are shrink-wrapped move with the atoms."""
    start = made.oxide()
    start.pbc = [True, True, False]
    frames = made.script(start, 8, drift_A=0.0)
    top = int(np.argmax(start.positions[:, 2]))
    for number, atoms in enumerate(frames):
        atoms.positions[top, 2] += 1.2 * number
        atoms.cell[2, 2] = atoms.positions[:, 2].max() + 1.0
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames, coordinates="xu")
    (replica,) = judge(path).replicas
    event = replica.unphysical
    # Hf is alone beyond 1.5 x 3.5 A = 5.25 A of other Hf, which are 3.39 A beside it:
    # 4.94 A away when it is 3.6 A up, 5.88 A when it is 4.8 A up
    assert start.symbols[top] == "Hf"
    assert (event.cause, event.step, event.atoms) == ("dissociation", 40, (top,))


@pytest.mark.parametrize("logged", [False, True], ids=["frames", "log"])
def test_a_long_trace_is_thinned_evenly(tmp_path, monkeypatch, logged):
    """Every so many points from the first one on, at most as many as are wanted."""
    frames = made.script(made.oxide(), 65, drift_A=0.0)
    made.give(frames)
    path = made.write_dump(tmp_path / "dump.lammpstrj", frames)
    if logged:
        rows = "".join(f"{10 * n} {300 + n} -5.0 -4.0\n" for n in range(65))
        head = "units metal\ntimestep 0.001\n   Step Temp PotEng TotEng\n"
        (tmp_path / "log.lammps").write_text(f"{head}{rows}Loop time of 1 on 1 procs\n")
    whole = judge(path, warned=[]).replicas[0].trace.time_ps
    assert len(whole) == 65
    monkeypatch.setattr("nequip_decorr.md.trajectories.replica.MOST_POINTS", 10)
    thinned = judge(path, warned=[]).replicas[0].trace.time_ps
    assert 5 <= len(thinned) <= 10
    assert thinned == whole[:: whole.index(thinned[1])]
