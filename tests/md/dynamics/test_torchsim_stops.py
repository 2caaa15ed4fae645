"""Memory that runs out and interrupts, with the batched engine."""

import os
import signal

import pytest
import torch

from nequip_decorr.md import RunStoppedError, run_stability
from nequip_decorr.md.dynamics.contract import OutOfMemoryError, System
from nequip_decorr.md.dynamics.torchsim_model import MAX_ATOMS_ON_CPU, BatchedModel
from nequip_decorr.md.models import ModelHandle
from tests.support.batched import Recorder, Springs, crystal, job, protocol, run, same


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


def resumed_and_whole(folder, atoms, how):
    """The run in ``folder / "run"``, resumed, and one that nothing happened to."""
    return (
        run_stability(
            handle(Springs(atoms.positions)),
            atoms,
            how,
            output=folder / name,
            engine="torchsim",
        )
        for name in ("run", "whole")
    )


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
    on, whole = resumed_and_whole(tmp_path, atoms, how)
    assert on.complete
    assert on.replicas == whole.replicas


def test_an_interrupt_keeps_all_replicas_where_they_stand(tmp_path):
    how = protocol(horizon_ps=0.06, replicas=3, record_interval_steps=1)
    atoms, calls = crystal(), iter(range(10_000))

    def interrupt(state):
        if next(calls) == 10:
            os.kill(os.getpid(), signal.SIGINT)

    with pytest.raises(RunStoppedError, match="rerun the same command") as stopped:
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
    on, whole = resumed_and_whole(tmp_path, atoms, how)
    assert on.replicas == whole.replicas
