"""Start files as users have them: velocities, constraints, and where they lie."""

import ase.io
import numpy as np
import pytest
from ase import units
from ase.constraints import FixAtoms

from nequip_decorr.md import results
from tests.support import commands
from tests.support.commands import md

pytestmark = pytest.mark.slow

SHORT = ["--horizon-ps", "0.01", "--temperature", "300", "--replicas", "1"]


def one_line(folder, *arguments):
    return md(folder, *arguments).refusal


@pytest.fixture
def snapshot(tmp_path, hfo2):
    """A frame of a run at 1200 K, with its velocities, as a trajectory has it."""
    atoms = ase.io.read(hfo2, 0)
    rng = np.random.default_rng(5)
    spread = np.sqrt(atoms.get_masses()[:, None] * units.kB * 1200.0)
    atoms.set_momenta(rng.normal(size=(len(atoms), 3)) * spread)
    path = tmp_path / "snapshot.traj"
    ase.io.write(path, [atoms, atoms])
    return path


def test_velocities_of_a_file(tmp_path, checkpoint, snapshot):
    """Not used and said so, once; or kept: the temperature is that of the file."""
    given = ase.io.read(snapshot).get_kinetic_energy()
    arguments = [checkpoint, snapshot, *SHORT]
    random = md(tmp_path, *arguments, "--out", "random")
    assert random.status == 0, random.output
    lines = [line for line in random.output.splitlines() if "velocities" in line]
    assert len(lines) == 1
    assert (
        "warning: velocities of snapshot.traj#0 and of 1 more are not used" in lines[0]
    )
    kept = md(tmp_path, *arguments, "--keep-velocities", "--out", "kept")
    assert kept.status == 0, kept.output
    assert "velocities" not in kept.output
    traces = [
        results.load(tmp_path / name / "result.json").replicas[0].trace
        for name in ("random", "kept")
    ]
    kinetic = [t.total_energy_eV[0] - t.potential_energy_eV[0] for t in traces]
    assert kinetic[1] == pytest.approx(given)
    assert kinetic[0] < 0.5 * given
    other = md(tmp_path, *arguments, "--out", "kept")
    assert other.status == 2
    assert "protocol.keep_velocities was True, is False" in other.output


def test_velocities_that_cannot_be_kept(tmp_path, checkpoint, snapshot, hfo2):
    keep = ["--keep-velocities", "--out", "run"]
    line = one_line(tmp_path, checkpoint, hfo2, *SHORT, *keep)
    assert f"velocities in {hfo2.name}#0 to keep, got none" in line
    nve = [*SHORT[:4], "--preset", "nve-drift"]
    line = one_line(tmp_path, checkpoint, snapshot, *nve, *keep)
    assert "got 16 that would be the same" in line
    assert not (tmp_path / "run").exists()


def test_constraints_of_a_file(tmp_path, checkpoint, hfo2):
    atoms = ase.io.read(hfo2, 0)
    atoms.set_constraint(FixAtoms([0, 1]))
    ase.io.write(tmp_path / "POSCAR", atoms)
    arguments = [checkpoint, "POSCAR", *SHORT, "--out", "run"]
    assert "--drop-constraints" in one_line(tmp_path, *arguments)
    done = md(tmp_path, *arguments, "--drop-constraints")
    assert done.status == 0, done.output
    assert "constraints of POSCAR#0 are dropped: all atoms move" in done.output
    result = results.load(tmp_path / "run" / "result.json")
    assert result.protocol["drop_constraints"] is True
    page = (tmp_path / "run" / "report.html").read_text()
    assert "drop_constraints" in page


def test_paths_of_every_kind(tmp_path, checkpoint, hfo2):
    """Relative, with spaces, `@` and umlauts; the data in a folder shut for writing."""
    place = tmp_path / "T@1200K" / "größe 1"
    place.mkdir(parents=True)
    (place / "start.extxyz").write_bytes(hfo2.read_bytes())
    (place / "a model.v2.ckpt").symlink_to(checkpoint)
    place.chmod(0o555)
    arguments = ["T@1200K/größe 1/a model.v2.ckpt", "T@1200K/größe 1/start.extxyz@:1"]
    done = md(tmp_path, *arguments, *SHORT, "--processes", 2)
    place.chmod(0o755)
    assert done.status == 0, done.output
    result = results.load(tmp_path / "a model.v2-md" / "result.json")
    assert [r.structure_name for r in result.replicas] == ["start.extxyz@:1#0"]
    assert {p.name for p in place.iterdir()} == {"start.extxyz", "a model.v2.ckpt"}


def test_an_output_that_cannot_be_made(tmp_path, checkpoint, hfo2):
    (tmp_path / "file").write_text("")
    for out in ("file", "file/run"):
        line = one_line(tmp_path, checkpoint, hfo2, *SHORT, "--out", out)
        assert f"a writable folder for the run, got {out}" in line
        assert "choose another --out" in line


def test_a_protocol_names_structures_beside_itself(tmp_path, checkpoint, hfo2):
    place = tmp_path / "T@1200K"
    place.mkdir()
    (place / "start.extxyz").write_bytes(hfo2.read_bytes())
    (place / "p.yaml").write_text("structures: start.extxyz@0\nhorizon_ps: 0.01\n")
    done = md(
        tmp_path, checkpoint, "--protocol", "T@1200K/p.yaml", "--replicas", 1,
        "--reference", "T@1200K/start.extxyz@:1", "--out", "run",
    )  # fmt: skip
    assert done.status == 0, done.output
    assert len(results.load(tmp_path / "run" / "result.json").replicas) == 1


@pytest.mark.parametrize("option", ["--json", "--plot"])
def test_inspect_refuses_what_cannot_be_written_first(tmp_path, option):
    """Before anything is read: the model is not there."""
    (tmp_path / "shut.png").mkdir()
    (tmp_path / "file").write_text("")
    for name, message in (
        ("shut.png", "got the folder"),
        ("none/x.png", "no such folder"),
        ("file/x.png", "no such folder"),
    ):
        arguments = ["inspect", "none.ckpt", "none.extxyz", option, name]
        done = commands.run("nequip-decorr", arguments, tmp_path)
        assert done.status == 2
        assert message in done.output
        assert done.output.count("\n") == 1
