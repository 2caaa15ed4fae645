"""The batched engine with NequIP models, as trained and as compiled."""

import multiprocessing
import os
import signal
from dataclasses import replace

import ase.io
import numpy as np
import pytest
import torch
from ase import Atoms
from nequip.integrations.ase import NequIPCalculator

from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, load_model, run_stability
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import System
from nequip_decorr.md.dynamics.torchsim_model import BatchedModel, NequIPTorchSimCalc
from nequip_decorr.md.running.folder import RunFolder
from tests.support import commands
from tests.support.batched import (
    Recorder,
    job,
    protocol,
    run,
    same,
)

pytestmark = pytest.mark.usefixtures("one_thread")


@pytest.fixture(scope="module")
def reference(checkpoint) -> NequIPCalculator:
    """NequIP's own ase calculator, eager."""
    return NequIPCalculator._from_saved_model(
        checkpoint, chemical_species_to_atom_type_map=True
    )


def opened(path):
    return load_model(path, loader=engines.loader("torchsim")).loaded


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
@pytest.mark.parametrize("form", ["checkpoint", "batched"])
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
def test_a_compiled_model_moves_a_replica_the_same_in_any_batch(batched):
    how, model = protocol(), opened(batched)
    jobs = [job(index, atoms, how) for index, atoms in enumerate(structures())]
    together = run(model, how, jobs, Recorder(8, until={1: 2, 3: 5}))
    by_itself = run(model, how, jobs[4:], Recorder(8))
    same(together.frames[4], by_itself.frames[4])


@pytest.mark.slow
def test_forces_that_are_not_ases_are_refused(batched):
    class Off(NequIPTorchSimCalc):
        def forward(self, state):
            found = super().forward(state)
            found["forces"] = found["forces"] * 1.01
            return found

    how, model = protocol(), opened(batched)
    model.__class__ = Off
    with pytest.raises(UserError, match=r"same forces .* got a difference of \S+ eV"):
        run(model, how, [job(0, structures()[0], how)], Recorder(3))


@pytest.mark.slow
def test_a_run_fails_when_and_how_it_does_with_ase(tmp_path, checkpoint, batched, hfo2):
    """A barely trained model, hot: failures, with time, cause and atoms."""
    how = protocol(
        temperatures_K=(3000.0,), horizon_ps=0.06, replicas=3, record_interval_steps=5
    )
    batch = run_stability(
        batched, hfo2, how, output=tmp_path / "batch", engine="torchsim"
    )
    alone = run_stability(checkpoint, hfo2, how, output=tmp_path / "ase")
    assert sum(bool(replica.first) for replica in alone.replicas) >= 1
    for one, other in zip(batch.replicas, alone.replicas, strict=True):
        assert one.key == other.key
        assert one.time_ps == other.time_ps
        assert one.censored_by == other.censored_by
        if one.first is not None:
            assert one.first.cause == other.first.cause
            assert one.first.atoms == other.first.atoms
            assert (tmp_path / "batch" / one.first.last_good_frame).exists()
        np.testing.assert_allclose(
            one.trace.temperature_K, other.trace.temperature_K, rtol=1e-3
        )


KILLED = protocol(temperatures_K=(1500.0,), horizon_ps=0.08, replicas=2)


def run_to_be_killed(model, structures, output):
    """Saves at every step, and is killed after some; runs in a process of its own."""
    torch.set_num_threads(1)
    save, saves = RunFolder.save, []

    def save_some(folder, *arguments, **options):
        save(folder, *arguments, **options)
        saves.append(1)
        if len(saves) == 20:
            os.kill(os.getpid(), signal.SIGKILL)

    RunFolder.save = save_some
    run_stability(
        model, structures, KILLED, output=output, engine="torchsim", save_every_s=0.0
    )


def without_energies(replica):
    trace = replica.trace
    trace = replace(trace, potential_energy_eV=(), total_energy_eV=())
    return replace(replica, trace=trace)


@pytest.mark.slow
def test_killed_and_started_again_it_ends_as_if_nothing_had_been(
    tmp_path, batched, hfo2
):
    process = multiprocessing.get_context("spawn").Process(
        target=run_to_be_killed, args=(batched, hfo2, tmp_path / "killed")
    )
    process.start()
    process.join()
    assert process.exitcode == -signal.SIGKILL
    states = tmp_path / "killed" / "state"
    assert len(list(states.glob("*.npz"))) >= 3
    assert not list((tmp_path / "killed" / "replicas").iterdir())
    killed, whole = (
        run_stability(batched, hfo2, KILLED, output=tmp_path / name, engine="torchsim")
        for name in ("killed", "whole")
    )
    assert killed.complete
    # Forces have the same bits in every batch, and so has the path; the model's sum
    # over the atoms of a replica does not (one energy in ten differs in its last bits).
    for one, other in zip(killed.replicas, whole.replicas, strict=True):
        assert without_energies(one) == without_energies(other)
        np.testing.assert_allclose(
            one.trace.potential_energy_eV, other.trace.potential_energy_eV, rtol=1e-10
        )


@pytest.mark.slow
def test_a_model_compiled_for_ase_is_refused(tmp_path, compiled, hfo2):
    with pytest.raises(UserError, match="`batch` for --engine torchsim"):
        run_stability(
            compiled, hfo2, Protocol(), output=tmp_path / "run", engine="torchsim"
        )
