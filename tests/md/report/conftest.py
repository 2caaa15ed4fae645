"""Real runs whose time step of 20 fs is too long for copper at 4000 K."""

from __future__ import annotations

import pytest
from ase.build import bulk
from ase.calculators.emt import EMT

from nequip_decorr.md import Protocol, run_stability


def run_copper(folder, until):
    structures = []
    for seed in range(2):
        atoms = bulk("Cu", cubic=True).repeat(2)
        atoms.rattle(0.02, seed=seed)
        structures.append(atoms)
    protocol = Protocol(
        temperatures_K=(4000.0,),
        timestep_fs=20.0,
        horizon_ps=0.5,
        replicas=2,
        record_interval_steps=1,
        frame_interval_steps=1,
        half_step_repeat=until == "first",
        until=until,
    )
    run_stability(EMT, structures, protocol, output=folder)
    return folder


@pytest.fixture(scope="session")
def real(tmp_path_factory):
    """Ended at the first event."""
    return run_copper(tmp_path_factory.mktemp("real") / "run", "first")


@pytest.fixture(scope="session")
def followed(tmp_path_factory):
    """The same replicas, followed to their explosions."""
    return run_copper(tmp_path_factory.mktemp("followed") / "run", "explosion")
