"""The batched engine: the ase engine's paths, whoever shares the batch."""

from dataclasses import replace

import numpy as np
import pytest
from ase import units
from ase.calculators.lj import LennardJones
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md import Criteria, Protocol, run_stability
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import ModelBrokenError, System
from nequip_decorr.md.dynamics.torchsim_model import BatchedModel
from tests.support.batched import (
    CUTOFF_A,
    ENSEMBLES,
    EPSILON_EV,
    SIGMA_A,
    Argon,
    Hole,
    K,
    Recorder,
    Springs,
    Watched,
    agree,
    argon,
    crystal,
    job,
    protocol,
    run,
    same,
)
from tests.support.oracle import ase_path

pytestmark = pytest.mark.usefixtures("one_thread")

# --- the same physics as ase ---------------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_paths_are_those_of_ases_integrators(ensemble):
    """Three replicas of two sizes; atoms leave their cell and are not put back."""
    how = protocol(ensemble, horizon_ps=0.2)
    jobs = [
        job(0, argon(), how, 40.0),
        job(1, argon((2, 2, 3), seed=1), how, 80.0),
        job(2, argon(seed=2), how, 120.0),
    ]
    batch = run(Argon(), how, jobs, Recorder(100)).frames
    for index in range(3):
        reference = LennardJones(sigma=SIGMA_A, epsilon=EPSILON_EV, rc=CUTOFF_A)
        agree(batch[index], ase_path(reference, how, jobs[index], 100))
    first, last = (batch[2][i].positions_A for i in (0, -1))
    lengths = jobs[2].atoms.cell.lengths()
    assert (np.floor(first / lengths) != np.floor(last / lengths)).any()


def kinetic_over_kT(frames, masses, kT):
    return [(f.momenta**2 / masses[:, None]).sum() / kT for f in frames]


@pytest.mark.slow
def test_temperatures_are_distributed_as_they_must_and_as_with_ase():
    """2 Ekin / kT of 32 atoms is chi-square distributed, 96 degrees of freedom."""
    how = protocol(timestep_fs=3.0, friction_per_fs=0.02)
    atoms, kT = crystal(), units.kB * 300.0
    jobs = [job(index, atoms, how) for index in range(10)]
    batch = run(Springs(atoms.positions), how, jobs[:8], Recorder(2000)).frames

    class Ase(LennardJones):
        def calculate(self, atoms=None, properties=None, system_changes=None):
            away = atoms.positions - crystal().positions
            self.results = {"energy": 0.5 * K * (away**2).sum(), "forces": -K * away}

    alone = Recorder(4000)
    engines.build("ase", Ase(), how).run(jobs[8:], alone)
    # a sample every 90 fs, after 1.5 ps; the friction's time is 50 fs
    sampled, reference = (
        [
            value
            for frames in found.values()
            for value in kinetic_over_kT(frames[500::30], atoms.get_masses(), kT)
        ]
        for found in (batch, alone.frames)
    )
    assert len(sampled) > 350
    assert stats.kstest(sampled, stats.chi2(96).cdf).pvalue > 1e-3
    assert stats.ks_2samp(sampled, reference).pvalue > 1e-3
    potential = [2 * f.energy_eV / kT for fs in batch.values() for f in fs[500::90]]
    assert stats.kstest(potential, stats.chi2(96).cdf).pvalue > 1e-3


# --- a path is its own ---------------------------------------------------------------


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_a_path_does_not_depend_on_who_shares_the_batch(ensemble):
    how = protocol(ensemble, horizon_ps=0.1)
    jobs = [job(index, argon(seed=index), how, 60.0) for index in range(4)]
    together = run(Argon(), how, jobs, Recorder(30))
    others_leave = run(
        Argon(), how, jobs[::-1], Recorder(30, until={0: 0, 1: 7, 3: 20})
    )
    by_itself = run(Argon(), how, jobs[2:3], Recorder(30))
    same(together.frames[2], by_itself.frames[2])
    same(others_leave.frames[2], by_itself.frames[2])
    same(others_leave.frames[3], together.frames[3][:21])


@pytest.mark.parametrize("ensemble", ENSEMBLES)
def test_goes_on_bit_for_bit_from_snapshots_of_different_steps(ensemble):
    how = protocol(ensemble, horizon_ps=0.1)
    jobs = [job(index, argon(seed=index), how, 60.0) for index in range(2)]
    whole = run(Argon(), how, jobs, Recorder(40, keep=11))
    other = run(Argon(), how, jobs, Recorder(40, keep=25))
    rest = run(
        Argon(),
        how,
        [
            replace(jobs[0], state=whole.kept[0]),
            replace(jobs[1], state=other.kept[1]),
        ],
        Recorder(40),
    )
    same(rest.frames[0], whole.frames[0][12:])
    same(rest.frames[1], whole.frames[1][26:])


def test_a_frame_stays_as_it_was():
    how = protocol()
    copies = []

    class Copier(Recorder):
        def before_forces(self, replica, step, positions_A):
            copies.append((positions_A, positions_A.copy()))
            return True

        def after_step(self, frame, snapshot):
            for array in (frame.positions_A, frame.momenta, frame.forces_eV_per_A):
                copies.append((array, array.copy()))
            return super().after_step(frame, snapshot)

    jobs = [job(index, argon(), how) for index in range(2)]
    run(Argon(), how, jobs, Copier(10))
    assert len(copies) == 2 * 11 * 4
    for array, copied in copies:
        np.testing.assert_array_equal(array, copied)


# --- failures stay with the replica --------------------------------------------------


@pytest.mark.parametrize("what", ["nan", "raise"])
def test_one_bad_replica_leaves_alone_and_spoils_no_other(what):
    """One of four is thrown at a hole; the model then fails for the whole batch."""
    how = protocol("nve", criteria=Criteria(max_atom_kinetic_eV=None))
    atoms = crystal()
    hole_A = atoms.positions[:, 0].max() + 1.0
    jobs = [job(index, atoms, how, 10.0) for index in range(4)]
    thrown = jobs[1].state.momenta.copy()
    atom = int(np.argmax(atoms.positions[:, 0]))
    # v = 0.05 A/fs; x = (v / w) sin(w t), w from the spring and the mass of copper
    thrown[atom] = [atoms.get_masses()[atom] * 0.05 / units.fs, 0, 0]
    jobs[1] = replace(jobs[1], state=replace(jobs[1].state, momenta=thrown))
    omega = np.sqrt(K / atoms.get_masses()[atom]) * units.fs
    first_inside = int(np.ceil(np.arcsin(1.0 * omega / 0.05) / omega / how.timestep_fs))

    seen = run(Hole(atoms.positions, hole_A, what), how, jobs, Watched(jobs, how, 60))
    if what == "raise":
        step, error = seen.faults[1]
        assert isinstance(error, ArithmeticError)
    else:
        step, cause = seen.failed[1]
        assert cause == "nonfinite"
        assert not seen.faults
    assert abs(step - first_inside) <= 1
    assert seen.failed.keys() | seen.faults.keys() == {1}

    others = [jobs[0], *jobs[2:]]
    calm = run(Springs(atoms.positions), how, others, Watched(others, how, 60))
    for index in (0, 2, 3):
        same(seen.frames[index], calm.frames[index])


def test_the_model_never_sees_what_the_observer_refused():
    how, atoms, sizes = protocol("nve"), crystal(), []
    jobs = [job(index, atoms, how) for index in range(3)]

    class Refuses(Recorder):
        def before_forces(self, replica, step, positions_A):
            return (replica, step) != (1, 4)

    model = Springs(atoms.positions, lambda state: sizes.append(state.n_systems))
    seen = run(model, how, jobs, Refuses(6))
    assert [f.step for f in seen.frames[1]] == [0, 1, 2, 3]
    # the first is followed by the comparison with one replica of the structure
    assert sizes == [3, 1, 3, 3, 3, 2, 2, 2]


def test_a_hiccup_is_nobodys_fault():
    how, atoms = protocol(), crystal()
    calls = iter(range(10_000))

    def once(state):
        if next(calls) == 5:
            raise RuntimeError("a hiccup")

    jobs = [job(index, atoms, how) for index in range(3)]
    seen = run(Springs(atoms.positions, once), how, jobs, Recorder(20))
    calm = run(Springs(atoms.positions), how, jobs, Recorder(20))
    assert not seen.faults
    for index in range(3):
        same(seen.frames[index], calm.frames[index])


def test_a_broken_model_ends_the_run():
    how, atoms = protocol(), crystal()
    calls = iter(range(10_000))

    def broken(state):
        if next(calls) >= 5:
            raise OSError("the card fell off the bus")

    jobs = [job(index, atoms, how) for index in range(3)]
    seen = Recorder(20)
    with pytest.raises(ModelBrokenError, match=r"handled before .*the card fell off"):
        run(Springs(atoms.positions, broken), how, jobs, seen)
    assert not seen.faults


def test_a_model_that_raises_on_a_start_structure_ends_the_run():
    how, atoms = protocol(), crystal()
    with pytest.raises(ModelBrokenError, match=r"start structure \(Cu32; Arith"):
        run(
            Hole(atoms.positions, -1.0, "raise"),
            how,
            [job(0, atoms, how)],
            Recorder(3),
        )


def test_batches_hold_one_periodicity():
    """A torch-sim state has one; each structure gets its own all the same."""
    bound, free = argon(), argon()
    free.pbc = False
    model = BatchedModel(Argon())
    found = model([System(a, a.positions) for a in (bound, free, bound)])
    for atoms, (_, forces) in zip((bound, free, bound), found, strict=True):
        atoms.calc = LennardJones(sigma=SIGMA_A, epsilon=EPSILON_EV, rc=CUTOFF_A)
        np.testing.assert_allclose(forces, atoms.get_forces(), atol=1e-10)
    assert found[0].energy_eV == found[2].energy_eV != found[1].energy_eV


def test_an_ase_calculator_is_refused(tmp_path):
    with pytest.raises(UserError, match=r"got LennardJones; use --engine ase") as no:
        run_stability(
            LennardJones(),
            crystal(),
            Protocol(),
            output=tmp_path / "run",
            engine="torchsim",
        )
    assert "\n" not in str(no.value)
