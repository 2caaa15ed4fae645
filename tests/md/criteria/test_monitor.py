"""When a trajectory has failed: each cause, its limit, its order, its atoms."""

from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms, units
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.md import Criteria, Protocol, preset
from nequip_decorr.md.criteria.monitor import Watch
from nequip_decorr.md.criteria.warmth import warmth
from nequip_decorr.md.frames import Frame

OFF = Criteria(
    max_displacement_A=None,
    max_force_eV_per_A=None,
    min_distance_ratio=None,
    runaway_sigma=None,
    max_temperature_K=None,
    max_atom_kinetic_eV=None,
    isolation_ratio=None,
)
T0 = 300.0
AT_REST = Criteria(stored_energy_eV_per_atom=0)


def watch(atoms, criteria, *, timestep_fs=1.0, every=1, temperature_K=T0):
    return Watch(
        atoms,
        criteria,
        timestep_fs=timestep_fs,
        degrees_of_freedom=3 * len(atoms),
        warmth=warmth(Protocol(criteria=criteria), temperature_K),
        check_interval_steps=every,
    )


def frame(atoms, step=0, *, positions=None, momenta=None, forces=None, energy=-1.0):
    zero = np.zeros((len(atoms), 3))
    return Frame(
        replica=0,
        step=step,
        positions_A=atoms.positions if positions is None else positions,
        momenta=zero if momenta is None else momenta,
        forces_eV_per_A=zero if forces is None else forces,
        energy_eV=energy,
    )


def momenta_at(atoms, temperature_K):
    """Momenta of exactly this temperature, shared evenly by all atoms."""
    per_atom = np.sqrt(3 * units.kB * temperature_K * atoms.get_masses())
    return per_atom[:, None] * np.array([[1.0, 0.0, 0.0]])


@pytest.fixture
def copper():
    return bulk("Cu", cubic=True) * (2, 2, 2)


@pytest.mark.parametrize("criteria", [OFF, Criteria()])
@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("what", ["energy", "forces", "momenta"])
def test_what_is_no_number_fails(copper, criteria, bad, what):
    values = np.zeros((len(copper), 3))
    values[7, 1] = bad
    given = {what: bad if what == "energy" else values}
    violation = watch(copper, criteria).after_step(frame(copper, **given))
    assert violation.cause == "nonfinite"
    assert violation.atoms == (() if what == "energy" else (7,))


@pytest.mark.parametrize("criteria", [OFF, Criteria()])
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_positions_that_are_no_numbers_fail_before_the_model(copper, criteria, bad):
    watching = watch(copper, criteria)
    assert watching.before_forces(copper.positions) is None
    positions = copper.positions.copy()
    positions[3, 2] = bad
    violation = watching.before_forces(positions)
    assert (violation.cause, violation.atoms) == ("nonfinite", (3,))


@given(st.floats(0.01, 3.0), st.integers(0, 31), st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=40)
def test_a_step_too_long(way, index, seed):
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    direction = np.random.default_rng(seed).normal(size=3)
    positions = copper.positions.copy()
    positions[index] += way * direction / np.linalg.norm(direction)
    watching = watch(copper, Criteria())
    assert watching.before_forces(copper.positions) is None
    violation = watching.before_forces(positions)
    if way < 0.4999:
        assert violation is None
    elif way > 0.5001:
        assert (violation.cause, violation.atoms) == ("blowup", (index,))
        assert violation.value == pytest.approx(way)


def test_many_short_steps_are_no_blowup(copper):
    watching = watch(copper, Criteria())
    for step in range(20):
        assert watching.before_forces(copper.positions + 0.28 * step) is None


@pytest.mark.parametrize(("force", "fails"), [(99.9, False), (100.1, True)])
def test_force(copper, force, fails):
    forces = np.zeros((len(copper), 3))
    forces[5] = force * np.array([0.6, 0.0, -0.8])
    violation = watch(copper, Criteria()).after_step(frame(copper, forces=forces))
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, violation.atoms) == ("blowup", (5,))
        assert violation.value == pytest.approx(force)
        assert "Cu5" in violation.message


@pytest.mark.parametrize(("distance", "fails"), [(1.59, False), (1.58, True)])
def test_overlap(copper, distance, fails):
    """Copper's covalent radius is 1.32 A: 0.6 x 2.64 A is 1.584 A."""
    positions = copper.positions.copy()
    positions[1] = positions[0] + [0, 0, distance]
    violation = watch(copper, Criteria()).after_step(frame(copper, positions=positions))
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, sorted(violation.atoms)) == ("overlap", [0, 1])
        assert violation.limit == pytest.approx(1.584)


@given(st.lists(st.booleans(), min_size=1, max_size=60))
@settings(deadline=None, max_examples=50)
def test_hot_for_50_fs(hot):
    """10 sigma for 3 x 32 degrees of freedom is T0 (1 + 10 sqrt(2 / 96))."""
    copper = bulk("Cu", cubic=True) * (2, 2, 2)
    limit = T0 * (1 + 10 * np.sqrt(2 / 96))
    watching = watch(copper, AT_REST, timestep_fs=5.0)
    for step, is_hot in enumerate(hot):
        momenta = momenta_at(copper, limit * (1.001 if is_hot else 0.999))
        violation = watching.after_step(frame(copper, step, momenta=momenta))
        # 50 fs lie between the first and the last of 11 frames, 5 fs apart
        fails = step >= 10 and all(hot[step - 10 : step + 1])
        assert bool(violation) is fails
        assert watching.calm is not is_hot
        if fails:
            assert violation.cause == "runaway"
            assert violation.value == pytest.approx(1.001 * limit)
            return


@pytest.mark.parametrize(("temperature_K", "fails"), [(9_990, False), (10_010, True)])
def test_too_hot_for_any_time(copper, temperature_K, fails):
    criteria = replace(OFF, max_temperature_K=10_000.0)
    momenta = momenta_at(copper, temperature_K)
    violation = watch(copper, criteria).after_step(frame(copper, momenta=momenta))
    assert bool(violation) is fails


@pytest.mark.parametrize(
    ("temperature_K", "limit_eV"),
    [(300.0, 10.0), (9000.0, 40 * units.kB * 9000.0)],
    ids=["more than a bond holds", "more than 40 kT"],
)
@pytest.mark.parametrize("share", [0.999, 1.001])
def test_one_hot_atom(copper, temperature_K, limit_eV, share):
    momenta = np.zeros((len(copper), 3))
    momenta[9, 2] = np.sqrt(2 * copper.get_masses()[9] * share * limit_eV)
    watching = watch(copper, AT_REST, temperature_K=temperature_K)
    violation = watching.after_step(frame(copper, momenta=momenta))
    assert bool(violation) is (share > 1)
    if violation:
        assert (violation.cause, violation.atoms) == ("runaway", (9,))
        assert violation.value == pytest.approx(share * limit_eV)
        assert violation.limit == pytest.approx(limit_eV)


@pytest.mark.parametrize(("temperature_K", "fails"), [(4500, False), (5000, True)])
def test_a_start_may_hold_heat(copper, temperature_K, fails):
    """10 sigma of 96 degrees of freedom is 432 K at 300 K; 0.5 eV/atom is 3868 K."""
    watching = watch(copper, replace(OFF, runaway_sigma=10.0), timestep_fs=25.0)
    momenta = momenta_at(copper, temperature_K)
    found = [
        watching.after_step(frame(copper, step, momenta=momenta)) for step in range(3)
    ]
    assert [bool(violation) for violation in found] == [False, False, fails]


@pytest.mark.parametrize(("timestep_fs", "fails"), [(1.0, True), (2.0, False)])
def test_a_light_atom_may_leap(timestep_fs, fails):
    """14 eV (40 k 4168 K) moves hydrogen by 0.53 A in 1 fs, by 1.05 A in 2 fs."""
    hydrogen = molecule("H2")
    watching = watch(hydrogen, Criteria(), timestep_fs=timestep_fs)
    assert watching.before_forces(hydrogen.positions) is None
    moved = hydrogen.positions + np.array([0.6, 0, 0])
    assert bool(watching.before_forces(moved)) is fails


MOLECULE = preset("molecule").criteria


@given(st.lists(st.sampled_from([0.0, 0.45, 0.55, -0.55]), min_size=1, max_size=40))
@settings(deadline=None, max_examples=50)
def test_a_bond_off_for_10_fs(off):
    """H2 is 0.74 A long; a bond 0.55 A off at the frames of 10 fs has broken."""
    hydrogen = molecule("H2")
    start = hydrogen.get_distance(0, 1)
    criteria = replace(OFF, max_bond_deviation_A=0.5)
    watching = watch(hydrogen, criteria, timestep_fs=2.0)
    direction = (hydrogen.positions[1] - hydrogen.positions[0]) / start
    for step, by in enumerate(off):
        positions = hydrogen.positions.copy()
        positions[1] += by * direction
        violation = watching.after_step(frame(hydrogen, step, positions=positions))
        fails = step >= 5 and all(abs(o) > 0.5 for o in off[step - 5 : step + 1])
        assert bool(violation) is fails
        if fails:
            assert (violation.cause, sorted(violation.atoms)) == (
                "dissociation",
                [0, 1],
            )
            first = (step - 5) * 2 / 1000
            assert f"first crossed at {first:.4g} ps" in violation.message
            return


def test_a_piece_comes_off():
    ethanol = molecule("CH3CH2OH")
    watching = watch(ethanol, replace(MOLECULE, max_bond_deviation_A=None))
    assert watching.after_step(frame(ethanol)) is None
    torn = ethanol.positions.copy()
    torn[3] += torn[3] - torn[2]  # the hydroxyl hydrogen, twice as far from its oxygen
    hydroxyl = np.linalg.norm(torn[3] - torn[2])
    assert hydroxyl > 1.5 * (0.31 + 0.66)
    violation = watching.after_step(frame(ethanol, positions=torn))
    assert (violation.cause, violation.atoms) == ("dissociation", (3,))
    assert (violation.value, violation.limit) == (2.0, 1.0)


def test_an_atom_leaves_a_solid(copper):
    del copper[0]  # room for it
    copper.center(vacuum=6.0)
    copper.pbc = False
    watching = watch(copper, Criteria())
    assert watching.after_step(frame(copper)) is None
    positions = copper.positions.copy()
    positions[4] = positions.min(axis=0) - 4.0
    violation = watching.after_step(frame(copper, positions=positions))
    assert (violation.cause, violation.atoms) == ("dissociation", (4,))


@pytest.mark.parametrize("temperature_K", [900.0, 1100.0])
@pytest.mark.parametrize("vacuum_A", [0.0, 8.0])
def test_an_atom_evaporates(temperature_K, vacuum_A):
    """From a hot surface it may; where there is no surface it may not."""
    atoms = bulk("Cu", cubic=True) * (3, 3, 3)
    if vacuum_A:
        atoms.center(vacuum=vacuum_A, axis=2)
    criteria = replace(Criteria(), min_distance_ratio=None)
    watching = watch(atoms, criteria, temperature_K=temperature_K)
    middle = atoms.positions.mean(axis=0)
    away = np.linalg.norm(atoms.positions - middle, axis=1)
    positions = atoms.positions.copy()
    positions[away < 5.0] += 5.4  # room for one
    alone = int(np.argmin(away))
    positions[alone] = middle
    violation = watching.after_step(frame(atoms, positions=positions))
    fails = not (vacuum_A and temperature_K > 1000)
    assert bool(violation) is fails
    if fails:
        assert (violation.cause, violation.atoms) == ("dissociation", (alone,))


def test_what_has_no_bonds_is_not_isolated():
    xenon = bulk("Xe", cubic=True, a=6.2) * (2, 2, 2)
    positions = xenon.positions * 1.0
    positions[5] += 3.0
    assert (
        watch(xenon, Criteria()).after_step(frame(xenon, positions=positions)) is None
    )


def test_molecules_that_touch_at_the_start_may_part():
    """Iodine atoms of two molecules, 3.6 A apart: less than 1.5 x 2 x 1.39 A."""
    iodine = Atoms("I4", [[0, 0, z] for z in (0, 2.67, 6.27, 8.94)])
    watching = watch(iodine, MOLECULE)
    apart = iodine.positions.copy()
    apart[2:, 2] += 3.0
    assert watching.after_step(frame(iodine, positions=apart)) is None
    torn = apart.copy()
    torn[3, 2] += 4.0
    violation = watching.after_step(frame(iodine, positions=torn))
    assert violation.cause == "dissociation"


def test_dissociation_is_tested_at_its_interval(copper):
    copper.pbc = False
    watching = watch(copper, Criteria(), every=4)
    positions = copper.positions.copy()
    positions[4] -= 50.0
    found = [
        bool(watching.after_step(frame(copper, step, positions=positions)))
        for step in range(1, 5)
    ]
    assert found == [False, False, False, True]


def test_the_first_of_several_causes_is_told(copper):
    """Overlap and runaway and no number at once: the order is that of CAUSES."""
    positions = copper.positions.copy()
    positions[1] = positions[0] + 0.1
    hot = momenta_at(copper, 50_000.0)
    forces = np.full((len(copper), 3), 1e9)

    def cause(**given):
        return watch(copper, Criteria()).after_step(frame(copper, **given)).cause

    assert cause(positions=positions, momenta=hot, forces=forces, energy=np.nan) == (
        "nonfinite"
    )
    assert cause(positions=positions, momenta=hot, forces=forces) == "blowup"
    assert cause(positions=positions, momenta=hot) == "overlap"
    assert cause(momenta=hot) == "runaway"


def test_state_goes_on_where_it_was(copper):
    """A watch restored in the middle of a hot spell fails at the same step."""
    momenta = momenta_at(copper, 2.0 * T0 * (1 + 10 * np.sqrt(2 / 96)))
    first, second = (watch(copper, AT_REST, timestep_fs=5.0) for _ in range(2))
    for step in range(7):
        assert first.after_step(frame(copper, step, momenta=momenta)) is None
    second.restore(first.state(), copper.positions)
    assert not second.calm
    steps = range(7, 12)
    found = [
        [bool(w.after_step(frame(copper, s, momenta=momenta))) for s in steps]
        for w in (first, second)
    ]
    assert found[0] == found[1] == [False, False, False, True, True]
