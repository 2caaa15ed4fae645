"""The batched engine: the ase engine's paths, whoever shares the batch."""

import multiprocessing
import os
import signal
import time
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms, units
from ase.build import bulk
from ase.calculators.lj import LennardJones
from nequip.integrations.ase import NequIPCalculator
from scipy import stats

from nequip_decorr.md import (
    Criteria,
    Protocol,
    RunStoppedError,
    engine_ase,
    engine_torchsim,
    run_stability,
)
from nequip_decorr.md.engine import Job, MDState, ModelBrokenError, OutOfMemoryError
from nequip_decorr.md.models import ModelHandle
from nequip_decorr.md.replica import Plan, watch
from nequip_decorr.md.structures import start_momenta
from nequip_decorr.md.torchsim_model import (
    MAX_ATOMS_ON_CPU,
    BatchedModel,
    ModelInterface,
    NequIPTorchSimCalc,
    System,
)
from tests.integration import commands

ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]
SIGMA_A, EPSILON_EV, CUTOFF_A = 3.4, 0.0104, 5.0
K = 3.0


@pytest.fixture(autouse=True)
def one_thread():
    """As a run has it: sums depend on how many threads share them."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


# --- models whose motion is known, native to torch-sim -------------------------------


def argon(repeat=(2, 2, 2), seed=0):
    """Argon on its lattice, disturbed."""
    atoms = bulk("Ar", cubic=True, a=5.3) * repeat
    atoms.rattle(0.1, seed=seed)
    return atoms


class Native(ModelInterface):
    """What torch-sim wants of a model."""

    def __init__(self):
        super().__init__()
        self._device, self._dtype = torch.device("cpu"), torch.float64
        self._compute_forces, self._compute_stress = True, False


class Argon(Native):
    """Lennard-Jones pairs to their nearest images, in boxes with right angles.

    (The forces of ``torch_sim.models.LennardJonesModel`` 0.3.0 are twice the negative
    gradient of its energy.)
    """

    def forward(self, state):
        found = [self.one(state[i]) for i in range(state.n_systems)]
        energies, forces = zip(*found, strict=True)
        return {"energy": torch.stack(energies), "forces": torch.cat(forces)}

    def one(self, state):
        apart = state.positions[:, None] - state.positions[None]
        if state.pbc:
            lengths = state.cell[0].diagonal()
            apart = apart - lengths * torch.round(apart / lengths)
        square = (apart**2).sum(-1)
        near = (square > 0) & (square < CUTOFF_A**2)
        six = torch.where(near, (SIGMA_A**2 / square) ** 3, 0.0)
        energy = 2 * EPSILON_EV * (six**2 - six).sum()
        strength = torch.where(near, 24 * EPSILON_EV * (2 * six**2 - six) / square, 0.0)
        return energy, (strength[..., None] * apart).sum(1)


class Springs(Native):
    """Each atom on a spring of its own; all structures have the same sites.

    Args:
        sites_A: (N, 3).
        at_batch: called with each state, to look on or to raise.
    """

    def __init__(self, sites_A, at_batch=lambda state: None):
        super().__init__()
        self.sites = torch.as_tensor(sites_A)
        self.at_batch = at_batch

    def forward(self, state):
        self.at_batch(state)
        away = state.positions - self.sites.repeat(state.n_systems, 1)
        energy = torch.zeros(state.n_systems, dtype=torch.float64)
        energy.index_add_(0, state.system_idx, 0.5 * K * (away**2).sum(1))
        return {"energy": energy, "forces": -K * away}


class Hole(Springs):
    """Springs until an atom is past x = ``x_A``: then the whole batch is ``what``."""

    def __init__(self, sites_A, x_A, what):
        super().__init__(sites_A)
        self.x_A, self.what = x_A, what

    def forward(self, state):
        results = super().forward(state)
        if (state.positions[:, 0] > self.x_A).any():
            if self.what == "raise":
                raise ArithmeticError("no such place")
            results["forces"] = results["forces"] * np.nan
        return results


def crystal():
    """32 copper atoms on fcc sites."""
    return bulk("Cu", cubic=True) * (2, 2, 2)


# --- driving the engine --------------------------------------------------------------


class Recorder:
    """Keeps all frames to a step; lets go of some replicas earlier."""

    def __init__(self, last_step, *, keep=None, until=None):
        self.last_step, self.keep, self.until = last_step, keep, until or {}
        self.frames, self.kept, self.faults = {}, {}, {}

    def before_forces(self, replica, step, positions_A):
        return True

    def after_step(self, frame, snapshot):
        self.frames.setdefault(frame.replica, []).append(frame)
        if frame.step == self.keep:
            self.kept[frame.replica] = snapshot()
        return frame.step < self.until.get(frame.replica, self.last_step)

    def fault(self, replica, step, error):
        self.faults[replica] = (step, error)


class Watched(Recorder):
    """Lets the criteria decide, as a run does."""

    def __init__(self, jobs, how, last_step):
        super().__init__(last_step)
        self.watches = {
            job.replica: watch(
                Plan(job.replica, 0, "", job.atoms, job.temperature_K, 0), how
            )
            for job in jobs
        }
        self.failed = {}

    def before_forces(self, replica, step, positions_A):
        violation = self.watches[replica].before_forces(positions_A)
        return self.judge(replica, step, violation)

    def after_step(self, frame, snapshot):
        going = super().after_step(frame, snapshot)
        violation = self.watches[frame.replica].after_step(frame)
        return self.judge(frame.replica, frame.step, violation) and going

    def judge(self, replica, step, violation):
        if violation is not None:
            self.failed[replica] = (step, violation.cause)
        return violation is None


def protocol(ensemble="langevin", **changes):
    if ensemble == "ramp":
        changes["ramp_end_temperature_K"] = 900.0
    return Protocol(ensemble=ensemble, **{"timestep_fs": 2.0, **changes})


def job(index, atoms, how, temperature_K=300.0):
    momenta = start_momenta(
        atoms,
        temperature_K,
        np.random.default_rng(index),
        conserve_total=how.ensemble in ("nve", "nose-hoover"),
    )
    state = MDState(0, atoms.get_positions(), momenta)
    return Job(index, atoms, temperature_K, (7, index), state)


def run(model, how, jobs, observer):
    engine_torchsim.build(model, how).run(jobs, observer)
    return observer


def same(one, other):
    """Two lists of frames are equal to the bit."""
    assert [f.step for f in one] == [f.step for f in other]
    for a, b in zip(one, other, strict=True):
        assert a.energy_eV == b.energy_eV
        np.testing.assert_array_equal(a.positions_A, b.positions_A)
        np.testing.assert_array_equal(a.momenta, b.momenta)
        np.testing.assert_array_equal(a.forces_eV_per_A, b.forces_eV_per_A)


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
    alone = Recorder(100)
    reference = LennardJones(sigma=SIGMA_A, epsilon=EPSILON_EV, rc=CUTOFF_A)
    engine_ase.AseEngine(reference, how).run(jobs, alone)
    for index in range(3):
        assert len(batch[index]) == 101
        for one, other in zip(batch[index], alone.frames[index], strict=True):
            for name in ("positions_A", "momenta", "forces_eV_per_A"):
                np.testing.assert_allclose(
                    getattr(one, name), getattr(other, name), atol=1e-8, rtol=0
                )
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
    engine_ase.AseEngine(Ase(), how).run(jobs[8:], alone)
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
    how = protocol("nve", criteria=Criteria(max_atom_kinetic_kT=None))
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
    with pytest.raises(ModelBrokenError, match=r"worked before .*the card fell off"):
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


class TooLarge:
    """Memory for ``most`` structures; notes what was tried."""

    def __init__(self, most):
        self.most, self.tried = most, []

    def __call__(self, state):
        self.tried.append(state.n_systems)
        if state.n_systems > self.most:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 9 GiB")


def test_memory_that_runs_out_makes_batches_smaller():
    how, atoms, limit = protocol(), crystal(), TooLarge(3)
    jobs = [job(index, atoms, how) for index in range(8)]
    seen = run(Springs(atoms.positions, limit), how, jobs, Recorder(10))
    calm = run(Springs(atoms.positions), how, jobs, Recorder(10))
    assert not seen.faults
    for index in range(8):
        same(seen.frames[index], calm.frames[index])
    # 8 fail, and 4; then 2 at a time for good
    assert [n for n in limit.tried if n > 3] == [8, 4]
    assert limit.tried[-4:] == [2, 2, 2, 2]


def test_batches_on_the_cpu_are_no_larger_than_pays():
    atoms, sizes = crystal(), []
    model = Springs(atoms.positions, lambda state: sizes.append(state.n_atoms))
    found = BatchedModel(model)([System(atoms, atoms.positions + 0.1)] * 27)
    assert sum(sizes) == 27 * 32
    assert max(sizes) <= MAX_ATOMS_ON_CPU
    assert len(sizes) == -(-27 * 32 // MAX_ATOMS_ON_CPU)
    assert len(found) == 27


def test_no_memory_for_one_structure_is_said():
    how, atoms = protocol(), crystal()
    jobs = [job(index, atoms, how) for index in range(2)]
    with pytest.raises(OutOfMemoryError, match="9 GiB"):
        run(Springs(atoms.positions, TooLarge(0)), how, jobs, Recorder(3))


def handle(model):
    return ModelHandle("springs", "calculator", None, None, None, None, model)


def test_out_of_memory_is_censoring_and_the_run_goes_on(tmp_path):
    how = protocol(horizon_ps=0.06, replicas=3, record_interval_steps=1)
    atoms, limit = crystal(), TooLarge(3)

    def later(state):
        if len(limit.tried) == 10:
            limit.most = 0
        limit(state)

    with pytest.raises(RunStoppedError, match="ran out of memory") as stopped:
        run_stability(
            handle(Springs(atoms.positions, later)),
            atoms,
            how,
            output=tmp_path / "run",
            engine="torchsim",
            save_every_s=0.0,
        )
    assert stopped.value.reason == "out_of_memory"
    replicas = stopped.value.result.replicas
    assert [r.censored_by for r in replicas] == ["out_of_memory"] * 3
    limit.most = 3
    on, whole = (
        run_stability(
            handle(Springs(atoms.positions)),
            atoms,
            how,
            output=tmp_path / name,
            engine="torchsim",
        )
        for name in ("run", "whole")
    )
    assert on.complete
    assert on.replicas == whole.replicas


def test_an_interrupt_keeps_all_replicas_where_they_stand(tmp_path):
    how = protocol(horizon_ps=0.06, replicas=3, record_interval_steps=1)
    atoms, calls = crystal(), iter(range(10_000))

    def interrupt(state):
        if next(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunStoppedError, match="run the same command again") as stopped:
        run_stability(
            handle(Springs(atoms.positions, interrupt)),
            atoms,
            how,
            output=tmp_path / "run",
            engine="torchsim",
        )
    replicas = stopped.value.result.replicas
    assert [r.censored_by for r in replicas] == ["interrupt"] * 3
    assert all(0 < r.time_ps < how.horizon_ps for r in replicas)
    on, whole = (
        run_stability(
            handle(Springs(atoms.positions)),
            atoms,
            how,
            output=tmp_path / name,
            engine="torchsim",
        )
        for name in ("run", "whole")
    )
    assert on.replicas == whole.replicas


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
    with pytest.raises(ValueError, match=r"got LennardJones; use --engine ase") as no:
        run_stability(
            LennardJones(),
            crystal(),
            Protocol(),
            output=tmp_path / "run",
            engine="torchsim",
        )
    assert "\n" not in str(no.value)


# --- NequIP models -------------------------------------------------------------------


@pytest.fixture(scope="module")
def batch_model(checkpoint) -> Path:
    """The tiny model compiled for batches."""
    path = checkpoint.with_name("batch.nequip.pt2")
    options = ["--device", "cpu", "--mode", "aotinductor", "--target", "batch"]
    made = commands.run(
        "nequip-compile", [checkpoint.name, path.name, *options], checkpoint.parent
    )
    assert made.status == 0, made.output
    return path


@pytest.fixture(scope="module")
def reference(checkpoint) -> NequIPCalculator:
    """NequIP's own ase calculator, eager."""
    return engine_ase.load(checkpoint, "checkpoint", "cpu")


def opened(path):
    kind = "checkpoint" if path.suffix == ".ckpt" else "aotinductor"
    return engine_torchsim.load(path, kind, "cpu")


def structures():
    """A crystal, a sheared one, a slab, a cluster, a larger one: all disturbed."""
    frame = ase.io.read(commands.DATA, 0)
    frame.calc = None
    sheared = frame.copy()
    cell = sheared.cell.array
    cell[2] += 0.3 * cell[0] + 0.2 * cell[1]
    sheared.set_cell(cell, scale_atoms=True)
    slab = frame.copy()
    slab.center(vacuum=6.0, axis=2)
    slab.pbc = [True, True, False]
    cluster = Atoms(frame.numbers[:9], frame.positions[:9])
    found = [frame, sheared, slab, cluster, frame.repeat((1, 1, 2))]
    for seed, atoms in enumerate(found):
        atoms.rattle(0.03, seed=seed)
    return found


@pytest.mark.slow
@pytest.mark.parametrize("form", ["checkpoint", "batch_model"])
def test_forces_are_those_of_the_ase_calculator(form, reference, request):
    model = BatchedModel(opened(request.getfixturevalue(form)))
    found = model([System(atoms, atoms.positions) for atoms in structures()])
    assert len(found) == 5
    for atoms, (energy, forces) in zip(structures(), found, strict=True):
        atoms.calc = reference
        # the model computes in single precision
        np.testing.assert_allclose(forces, atoms.get_forces(), rtol=0, atol=2e-5)
        expected = atoms.get_potential_energy()
        assert energy == pytest.approx(expected, abs=1e-5 * len(atoms))


@pytest.mark.slow
def test_a_compiled_model_moves_a_replica_the_same_in_any_batch(batch_model):
    how, model = protocol(), opened(batch_model)
    jobs = [job(index, atoms, how) for index, atoms in enumerate(structures())]
    together = run(model, how, jobs, Recorder(8, until={1: 2, 3: 5}))
    by_itself = run(model, how, jobs[4:], Recorder(8))
    same(together.frames[4], by_itself.frames[4])


@pytest.mark.slow
def test_forces_that_are_not_ases_are_refused(batch_model):
    class Off(NequIPTorchSimCalc):
        def forward(self, state):
            found = super().forward(state)
            found["forces"] = found["forces"] * 1.01
            return found

    how, model = protocol(), opened(batch_model)
    model.__class__ = Off
    with pytest.raises(ValueError, match=r"same forces .* got a difference of \S+ eV"):
        run(model, how, [job(0, structures()[0], how)], Recorder(3))


@pytest.mark.slow
def test_a_run_fails_when_and_how_it_does_with_ase(
    tmp_path, checkpoint, batch_model, hfo2
):
    """A barely trained model, hot: failures, with time, cause and atoms."""
    how = protocol(
        temperatures_K=(3000.0,), horizon_ps=0.06, replicas=3, record_interval_steps=5
    )
    batch = run_stability(
        batch_model, hfo2, how, output=tmp_path / "batch", engine="torchsim"
    )
    alone = run_stability(checkpoint, hfo2, how, output=tmp_path / "ase")
    assert sum(replica.failed for replica in alone.replicas) >= 1
    for one, other in zip(batch.replicas, alone.replicas, strict=True):
        assert one.key == other.key
        assert one.time_ps == other.time_ps
        assert one.censored_by == other.censored_by
        if one.failure is not None:
            assert one.failure.cause == other.failure.cause
            assert one.failure.atoms == other.failure.atoms
            assert (tmp_path / "batch" / one.failure.last_good_frame).exists()
        np.testing.assert_allclose(
            one.trace.temperature_K, other.trace.temperature_K, rtol=1e-3
        )


KILLED = protocol(temperatures_K=(1500.0,), horizon_ps=0.08, replicas=2)


def run_to_be_killed(model, structures, output):
    """Saves at every step; runs in a process of its own."""
    torch.set_num_threads(1)
    run_stability(
        model, structures, KILLED, output=output, engine="torchsim", save_every_s=0.0
    )


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_nothing_had_been(
    tmp_path, batch_model, hfo2
):
    process = multiprocessing.get_context("spawn").Process(
        target=run_to_be_killed, args=(batch_model, hfo2, tmp_path / "killed")
    )
    process.start()
    states = tmp_path / "killed" / "state"
    while process.is_alive() and len(list(states.glob("*.npz"))) < 3:
        time.sleep(0.005)
    process.kill()
    process.join()
    assert len(list(states.glob("*.npz"))) >= 3
    assert not list((tmp_path / "killed" / "replicas").iterdir())
    killed, whole = (
        run_stability(
            batch_model, hfo2, KILLED, output=tmp_path / name, engine="torchsim"
        )
        for name in ("killed", "whole")
    )
    assert killed.complete
    assert killed.replicas == whole.replicas


@pytest.mark.slow
def test_a_model_compiled_for_ase_is_refused(tmp_path, compiled, hfo2):
    with pytest.raises(ValueError, match="`batch` for --engine torchsim"):
        run_stability(
            compiled, hfo2, Protocol(), output=tmp_path / "run", engine="torchsim"
        )
