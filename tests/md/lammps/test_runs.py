"""What LAMMPS does with the runs that are written for it."""

import os
import signal
import subprocess
import time
from dataclasses import replace

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.calculators.lj import LennardJones

from nequip_decorr.md import run_stability
from nequip_decorr.md.protocol import Protocol
from tests.support import lammps_runs
from tests.support.lammps_runs import argon

pytestmark = lammps_runs.needs_lammps

SHORT = Protocol(
    ensemble="nve",
    temperatures_K=(60.0,),
    timestep_fs=2.0,
    horizon_ps=0.4,
    replicas=1,
    record_interval_steps=10,
    frame_interval_steps=50,
)


def gas(n_atoms):
    """Atoms that do not meet: each is a Langevin process of its own."""
    rng = np.random.default_rng(3)
    return Atoms(
        ["Ar"] * n_atoms, rng.uniform(0, 90, (n_atoms, 3)), cell=[90] * 3, pbc=True
    )


# --- dynamics ------------------------------------------------------------------------


@pytest.mark.slow
@pytest.mark.parametrize("ensemble", ["nve", "langevin"])
def test_the_first_output_is_the_start_of_md(tmp_path, write, ensemble):
    """The same temperature, of as many degrees of freedom, and the same energies."""
    asked = replace(SHORT, ensemble=ensemble, horizon_ps=0.02)
    (folder,) = write(argon(), asked)
    lammps_runs.run(folder)
    log = lammps_runs.thermo(folder)
    atoms = argon()
    calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5)
    trace = (
        run_stability(calculator, atoms, asked, output=tmp_path / "md")
        .replicas[0]
        .trace
    )
    # in the sixth digit LAMMPS has other constants
    assert log["Temp"][0] == pytest.approx(trace.temperature_K[0], rel=3e-6)
    kinetic = [
        total - potential
        for total, potential in zip(
            trace.total_energy_eV, trace.potential_energy_eV, strict=True
        )
    ]
    assert log["TotEng"][0] - log["PotEng"][0] == pytest.approx(kinetic[0], rel=3e-6)


@pytest.mark.slow
def test_without_a_thermostat_lammps_takes_the_path_of_md(tmp_path, write):
    """Velocities, masses and units are the same: so is where atoms go."""
    asked = replace(SHORT, horizon_ps=0.12, frame_interval_steps=15)
    (folder,) = write(argon(), asked)
    lammps_runs.run(folder)
    calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5)
    run_stability(calculator, argon(), asked, output=tmp_path / "md")
    ours = ase.io.read(tmp_path / "md" / "frames" / "0000.extxyz", ":")
    theirs = lammps_runs.frames(folder)
    assert len(ours) == len(theirs) == 5
    moved = np.linalg.norm(ours[-1].positions - ours[0].positions, axis=1)
    assert moved.max() > 0.1
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(b.positions, a.positions, atol=1e-5)


@pytest.mark.slow
def test_friction_and_temperature_of_the_thermostat(write):
    """Free atoms four times as hot as it cool as exp(-2 t / damping) says."""
    atoms = gas(2000)
    hot = np.random.default_rng(1).normal(size=(2000, 3))
    atoms.set_momenta(
        hot * np.sqrt(atoms.get_masses()[:, None] * 4 * 300 * 8.617330e-5)
    )
    asked = replace(SHORT,
        ensemble="langevin", temperatures_K=(300.0,), friction_per_fs=0.005,
        keep_velocities=True, horizon_ps=0.5, timestep_fs=1.0,
    )  # fmt: skip
    (folder,) = write(atoms, asked, lammps_runs.FREE)
    lammps_runs.run(folder)
    log = lammps_runs.thermo(folder)
    expected = 300 + (log["Temp"][0] - 300) * np.exp(-2 * 0.005 * log["Step"])
    # five standard deviations of the temperature of 6000 degrees of freedom
    assert np.abs(log["Temp"] / expected - 1).max() < 5 * np.sqrt(2 / 6000)
    assert log["Temp"][0] > 1150
    assert log["Temp"][-1] < 330


def lagging(step, start_K, rate_K_per_fs, friction_per_fs):
    """Temperature of free atoms whose thermostat warms at a rate."""
    lag = (1 - np.exp(-2 * friction_per_fs * step)) / (2 * friction_per_fs)
    return start_K + rate_K_per_fs * (step - lag)


@pytest.mark.slow
def test_a_ramp_is_that_of_the_whole_run_also_when_resumed(write):
    asked = replace(SHORT,
        ensemble="ramp", temperatures_K=(100.0,), ramp_end_temperature_K=1100.0,
        friction_per_fs=0.05, horizon_ps=0.5, timestep_fs=1.0,
    )  # fmt: skip
    (folder,) = write(gas(2000), asked, lammps_runs.FREE)
    lammps_runs.run(folder)
    whole = lammps_runs.thermo(folder)
    limit = 5 * np.sqrt(2 / 6000)
    expected = lagging(whole["Step"], 100.0, 2.0, 0.05)
    assert np.abs(whole["Temp"] / expected - 1).max() < limit
    # as if it had been killed after the restart file of step 450 was written
    log = folder / "log.lammps"
    log.write_text(log.read_text().split("nequip-decorr: complete")[0])
    (folder / "restart.b").unlink()
    before = lammps_runs.dumped_steps(folder)
    lammps_runs.run(folder)
    (start,) = {int(lammps_runs.dumped_steps(folder)[len(before)])}
    assert start == 450
    resumed = lammps_runs.thermo(folder)
    again = resumed["Step"][len(whole["Step"]) :]
    assert again.tolist() == [450, 460, 470, 480, 490, 500]
    hot = resumed["Temp"][-6:]
    assert np.abs(hot / lagging(again, 100.0, 2.0, 0.05) - 1).max() < limit
    # the noise is not that of the first run over again
    assert hot[0] == pytest.approx(whole["Temp"][-6])
    assert abs(hot[-1] - whole["Temp"][-1]) > 1e-3


@pytest.mark.slow
def test_nose_hoover_keeps_the_temperature_and_its_state(write):
    asked = replace(SHORT, ensemble="nose-hoover", horizon_ps=4.0)
    (folder,) = write(argon(), asked)
    lammps_runs.run(folder)
    log = lammps_runs.thermo(folder)
    late = log["Temp"][log["Step"] > 1000]
    # canonical: T sqrt(2 / 321), here of some ten independent samples
    assert late.mean() == pytest.approx(60.0, abs=4 * 60 * np.sqrt(2 / 321 / 10))
    # resumed it takes the very same path
    text = folder / "log.lammps"
    text.write_text(text.read_text().split("nequip-decorr: complete")[0])
    (folder / "restart.b").unlink()
    lammps_runs.run(folder)
    assert lammps_runs.thermo(folder)["PotEng"][-1] == pytest.approx(
        log["PotEng"][-1], abs=1e-6
    )


# --- starting, stopping, resuming ----------------------------------------------------


def step_or_last(restart):
    """Of a restart file; one that was cut off as it was written is the newest."""
    try:
        return lammps_runs.step_of(restart)
    except (subprocess.CalledProcessError, AssertionError):
        return np.inf


@pytest.mark.slow
def test_a_killed_run_is_resumed_from_the_newest_restart_that_is_whole(write):
    (folder,) = write(argon(), replace(SHORT, ensemble="langevin", horizon_ps=60.0))
    process = subprocess.Popen(
        ["sh", str(folder.parent / "run.sh")],
        env=lammps_runs.ENVIRONMENT,
        stdout=subprocess.DEVNULL,
        start_new_session=True,
    )
    restarts = [folder / "restart.a", folder / "restart.b"]
    while not all(path.exists() for path in restarts):
        assert process.poll() is None
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    # cut off in the middle of a line, and of a file
    dump = folder / "dump.lammpstrj"
    dump.write_bytes(dump.read_bytes()[:-30])
    steps = lammps_runs.dumped_steps(folder)
    assert steps[-1] < 30_000
    older, newer = sorted(restarts, key=step_or_last)
    newer.write_bytes(newer.read_bytes()[:1000])
    start = lammps_runs.step_of(older)
    assert 0 < start < steps[-1]
    # the rest would take a while: end it after three more frames
    text = (folder / "in.lammps").read_text()
    (folder / "in.lammps").write_text(text.replace("30000", str(start + 150)))
    done = lammps_runs.run_sh(folder.parent)
    assert done.returncode == 0
    assert done.stdout == f"{folder.name}: complete\n"
    added = [start, start + 50, start + 100, start + 150]
    assert lammps_runs.dumped_steps(folder) == [*steps, *added]
    content = {path: path.read_bytes() for path in folder.iterdir()}
    assert lammps_runs.run_sh(folder.parent).stdout == f"{folder.name}: complete\n"
    assert {path: path.read_bytes() for path in folder.iterdir()} == content


@pytest.mark.slow
def test_an_explosion_is_final(write):
    asked = replace(
        SHORT,
        ensemble="langevin",
        timestep_fs=80.0,
        horizon_ps=80.0,
        friction_per_fs=0.001,
    )
    (folder,) = write(argon(), asked)
    done = lammps_runs.run_sh(folder.parent)
    assert done.returncode == 0
    assert done.stdout.startswith(
        f"{folder.name}: ERROR: Lost atoms: original 108 current"
    )
    size = (folder / "log.lammps").stat().st_size
    assert lammps_runs.run_sh(folder.parent).stdout == done.stdout
    assert (folder / "log.lammps").stat().st_size == size


@pytest.mark.slow
def test_a_run_that_cannot_start_is_started_again(write):
    (folder,) = write(argon(), replace(SHORT, horizon_ps=0.02))
    text = (folder / "in.lammps").read_text()
    lammps_runs.use_pair_style(folder, ("allegro", "* * ../model Ar"))
    done = lammps_runs.run_sh(folder.parent)
    assert done.returncode == 1
    assert done.stdout == f"{folder.name}: stopped, see {folder.name}/screen.log\n"
    assert "pair style 'allegro'" in (folder / "screen.log").read_text()
    (folder / "in.lammps").write_text(text)
    assert lammps_runs.run_sh(folder.parent).stdout == f"{folder.name}: complete\n"


@pytest.mark.slow
def test_a_task_of_the_array_runs_one_replica(write):
    folders = write(argon(), replace(SHORT, horizon_ps=0.02, replicas=3))
    done = subprocess.run(
        ["sh", "job.slurm"],
        cwd=folders[0].parent,
        env={**lammps_runs.ENVIRONMENT, "SLURM_ARRAY_TASK_ID": "2"},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout == f"{folders[2].name}: complete\n"
    assert [(f / "log.lammps").exists() for f in folders] == [False, False, True]
    text = (folders[0].parent / "job.slurm").read_text()
    assert "#SBATCH --array=0-2\n" in text
