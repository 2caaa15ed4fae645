"""What LAMMPS leaves of the runs that are written for it is judged as it happened."""

import re

import pytest
from ase.calculators.lj import LennardJones

from nequip_decorr.cli.main import main
from nequip_decorr.md import results, run_stability
from nequip_decorr.md.protocol import Criteria, Protocol
from nequip_decorr.md.trajectories.lammps_log import read_log
from tests.support import lammps_runs
from tests.support.lammps_runs import argon

pytestmark = [lammps_runs.needs_lammps, pytest.mark.slow]


def judged(tmp_path, name="runs", *arguments):
    out = tmp_path / "judged" / name
    given = [*map(str, arguments), "--out", str(out)]
    assert main(["judge", str(tmp_path / name), *given]) == 0
    return results.load(out / "result.json")


def test_lost_atoms_are_an_explosion_at_their_step(tmp_path, write):
    """Against the number of atoms at each step of the same run, none of it fatal.

    There LAMMPS warns and goes on; without its log, the frames alone tell.
    """
    protocol = Protocol(
        temperatures_K=(60.0,), timestep_fs=80.0, horizon_ps=80.0, replicas=1,
        record_interval_steps=2, frame_interval_steps=2, until="explosion",
        criteria=Criteria(
            runaway_sigma=None, max_temperature_K=None, max_atom_kinetic_eV=None,
            max_displacement_A=None, max_force_eV_per_A=None,
        ),
    )  # fmt: skip
    (folder,) = write(argon(), protocol)
    done = lammps_runs.run_sh(folder.parent)
    assert "ERROR: Lost atoms: original 108 current" in done.stdout
    counted = tmp_path / "counted" / folder.name
    counted.mkdir(parents=True)
    text = (folder / "in.lammps").read_text()
    text = re.sub(r"thermo .*", "thermo 1", text)
    text = text.replace("temp pe etotal", "temp pe etotal atoms")
    text = text.replace("thermo_modify ", "thermo_modify lost warn ")
    text = re.sub(r"run .* upto", "run 40 upto", text)
    (counted / "in.lammps").write_text(text)
    (counted / "data.lammps").write_bytes((folder / "data.lammps").read_bytes())
    (counted.parent / "run.sh").write_bytes((folder.parent / "run.sh").read_bytes())
    lammps_runs.run_sh(counted.parent)
    log = lammps_runs.thermo(counted)
    lost = int(log["Step"][log["Atoms"] < 108][0])

    (replica,) = judged(tmp_path).replicas
    assert replica.explosion is not None
    assert replica.explosion.cause == "blowup"
    # LAMMPS counts at each output, here every other step
    assert lost <= replica.explosion.step <= lost + 1
    assert replica.explosion.time_ps == pytest.approx(replica.explosion.step * 0.08)
    assert "Lost atoms: original 108" in replica.explosion.message
    assert replica.censored_by is None

    (tmp_path / "limits.yaml").write_text(
        "criteria: {runaway_sigma: null, max_temperature_K: null, "
        "max_atom_kinetic_eV: null, max_displacement_A: null}\n"
    )
    asked = ("--protocol", tmp_path / "limits.yaml", "--temperature", 60)
    (warned,) = judged(tmp_path, "counted", *asked).replicas
    assert (warned.explosion.cause, warned.explosion.step) == ("blowup", lost)
    assert read_log(counted / "log.lammps").lost[0] == lost
    (counted / "log.lammps").unlink()
    (alone,) = judged(tmp_path, "counted", *asked, "--timestep-fs", 80).replicas
    assert alone.explosion.cause == "blowup"
    assert lost <= alone.explosion.step <= lost + 1
    assert len(alone.explosion.atoms) > 0


def test_an_error_of_another_rank_is_an_explosion(tmp_path, write, monkeypatch):
    """It is on the screen only. Resumed, the replica would have a second chance."""
    protocol = Protocol(
        ensemble="nve", temperatures_K=(60.0,), timestep_fs=2.0, horizon_ps=0.04,
        replicas=1, record_interval_steps=1, frame_interval_steps=2,
    )  # fmt: skip
    (folder,) = write(argon(), protocol)
    text = (folder / "in.lammps").read_text()
    forces = (
        "group one id 108\n"
        "variable push atom (step>10)*1e300*1e300\n"
        "fix push one addforce v_push 0 0\n"
    )
    (folder / "in.lammps").write_text(text.replace("dump  ", f"{forces}dump  ", 1))
    mpi = f"{lammps_runs.BIN / 'mpiexec'} -n 2 {lammps_runs.LMP}"
    monkeypatch.setitem(lammps_runs.ENVIRONMENT, "LMP", mpi)
    done = lammps_runs.run_sh(folder.parent)
    assert "ERROR on proc 1: Non-numeric" in (folder / "screen.log").read_text()
    assert "ERROR on proc 1: Non-numeric" in done.stdout
    screen = (folder / "screen.log").read_text()
    assert lammps_runs.run_sh(folder.parent).stdout == done.stdout
    assert (folder / "screen.log").read_text() == screen
    (replica,) = judged(tmp_path).replicas
    assert replica.explosion.cause == "nonfinite"
    assert 10 <= replica.explosion.step <= 13


def test_frames_have_the_masses_of_the_run(tmp_path, write):
    """As of deuterium: the temperature of a frame is that in the log."""
    atoms = argon()
    atoms.set_masses([80.0] * len(atoms))
    protocol = Protocol(
        ensemble="nve", temperatures_K=(60.0,), timestep_fs=2.0, horizon_ps=0.04,
        replicas=1, record_interval_steps=10, frame_interval_steps=10,
    )  # fmt: skip
    (folder,) = write(atoms, protocol)
    lammps_runs.run_sh(folder.parent)
    expected = lammps_runs.thermo(folder)["Temp"]
    (folder / "log.lammps").unlink()
    (replica,) = judged(tmp_path).replicas
    assert replica.trace.temperature_K == pytest.approx(expected, rel=1e-5)


def test_a_stable_run_survives_and_is_paired_with_that_of_md(tmp_path, write):
    protocol = Protocol(
        ensemble="nve", temperatures_K=(60.0,), timestep_fs=2.0, horizon_ps=0.04,
        replicas=2, seed=5, record_interval_steps=10, frame_interval_steps=10,
    )  # fmt: skip
    for folder in write(argon(), protocol):
        lammps_runs.run(folder)
    result = judged(tmp_path)
    assert result.complete
    calculator = LennardJones(epsilon=0.0104, sigma=3.4, rc=8.5)
    ours = run_stability(calculator, argon(), protocol, output=tmp_path / "md")
    for here, there in zip(ours.replicas, result.replicas, strict=True):
        assert (there.unphysical, there.explosion) == (None, None)
        assert there.censored_by == "horizon"
        assert there.time_ps == pytest.approx(0.04)
        assert there.key == here.key
        assert there.structure_sha256 == here.structure_sha256
        # the same path, so the same temperatures: judge has LAMMPS' log to go by
        assert there.trace.time_ps == pytest.approx(here.trace.time_ps)
        assert there.trace.temperature_K == pytest.approx(
            here.trace.temperature_K, rel=1e-4
        )


def test_a_run_that_was_cut_off_is_censored_there(tmp_path, write):
    protocol = Protocol(
        temperatures_K=(60.0,), timestep_fs=2.0, horizon_ps=0.2, replicas=1,
        record_interval_steps=10, frame_interval_steps=10,
    )  # fmt: skip
    (folder,) = write(argon(), protocol)
    lammps_runs.run(folder)
    log, dump = folder / "log.lammps", folder / "dump.lammpstrj"
    log.write_text(log.read_text().split("\n        60 ")[0] + "\n   6")
    dump.write_bytes(dump.read_bytes()[: dump.stat().st_size // 2])
    (replica,) = judged(tmp_path).replicas
    assert (replica.unphysical, replica.explosion) == (None, None)
    assert replica.censored_by not in (None, "horizon")
    assert 0.05 < replica.time_ps < 0.15
    # resumed, it is whole again
    (folder / "restart.b").unlink()
    lammps_runs.run(folder)
    (replica,) = judged(tmp_path).replicas
    assert (replica.censored_by, replica.time_ps) == ("horizon", pytest.approx(0.2))
