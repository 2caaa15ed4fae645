"""Models native to torch-sim whose motion is known, and driving the batched engine."""

import numpy as np
import torch
from ase.build import bulk

from nequip_decorr.md import Protocol
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Job, MDState
from nequip_decorr.md.dynamics.torchsim_model import (
    ModelInterface,
)
from nequip_decorr.md.running.replica import Plan, watch
from nequip_decorr.md.structures import start_momenta

ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]
SIGMA_A, EPSILON_EV, CUTOFF_A = 3.4, 0.0104, 5.0
K = 3.0


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
    engines.build("torchsim", model, how).run(jobs, observer)
    return observer


def same(one, other):
    """Two lists of frames are equal to the bit."""
    assert [f.step for f in one] == [f.step for f in other]
    for a, b in zip(one, other, strict=True):
        assert a.energy_eV == b.energy_eV
        np.testing.assert_array_equal(a.positions_A, b.positions_A)
        np.testing.assert_array_equal(a.momenta, b.momenta)
        np.testing.assert_array_equal(a.forces_eV_per_A, b.forces_eV_per_A)


def agree(frames, path):
    """A list of frames is a path of the oracle but for rounding."""
    assert len(frames) == len(path)
    for frame, point in zip(frames, path, strict=True):
        for name in ("positions_A", "momenta", "forces_eV_per_A"):
            np.testing.assert_allclose(
                getattr(frame, name), getattr(point, name), atol=1e-8, rtol=0
            )
