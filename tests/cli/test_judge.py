"""What the options of ``nequip-decorr judge`` mean."""

import argparse
from pathlib import Path

import ase.io
import pytest

from nequip_decorr import UserError
from nequip_decorr.cli import judge
from nequip_decorr.cli.main import main
from nequip_decorr.md import Protocol, preset, results
from tests.support import trajectories as made


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    judge.add_arguments(parser)
    return parser.parse_args(["runs", *map(str, arguments)])


def test_only_what_was_said_is_given(tmp_path):
    protocol, given = judge.protocol_of(parsed())
    assert (protocol, given) == (Protocol(), frozenset())
    protocol, given = judge.protocol_of(
        parsed("--temperature", 600, "--preset", "molecule", "--timestep-fs", 0.25)
    )
    assert protocol.criteria == preset("molecule").criteria
    assert (protocol.temperatures_K, protocol.timestep_fs) == ((600.0,), 0.25)
    # not the preset's own horizon of 100 ps
    assert given == {"criteria", "temperatures_K", "timestep_fs"}
    path = tmp_path / "protocol.yaml"
    path.write_text("preset: nve-drift\nhorizon_ps: 4\ntemperatures_K: 500\n")
    protocol, given = judge.protocol_of(parsed("--protocol", path, "--horizon-ps", 2))
    assert (protocol.ensemble, protocol.horizon_ps) == ("nve", 2.0)
    # the preset's ensemble is not one that the user has named
    assert given == {"criteria", "horizon_ps", "temperatures_K"}
    with pytest.raises(UserError, match="got both"):
        judge.protocol_of(parsed("--protocol", path, "--preset", "solid"))


def test_atom_types():
    assert judge.parse_atom_types(["1=Hf", "2=O"]) == {"1": "Hf", "2": "O"}
    with pytest.raises(UserError, match=r"expected TYPE=ELEMENT .* got 'Hf'"):
        judge.parse_atom_types(["1=O", "Hf"])
    with pytest.raises(UserError, match="got 1 as O and as Hf"):
        judge.parse_atom_types(["1=O", "1=Hf"])


def test_what_the_files_do_not_say_is_an_option(tmp_path, monkeypatch, capsys):
    """A dump in real units, of types without elements, and no log."""
    monkeypatch.chdir(tmp_path)
    start = made.oxide()
    ase.io.write("start.extxyz", start)
    for name in ("r0", "r1"):
        frames = made.script(start)
        made.give(frames, temperature_K=300.0, forces=False)
        Path("runs", name).mkdir(parents=True)
        path = Path("runs", name, "dump.lammpstrj")
        made.write_dump(path, frames, units="real", labels="type")
    flags = ["--units", "real", "--atom-types", "1=Hf", "2=O", "--start",
             "start.extxyz", "--structures", "1", "--temperature", "300",
             "--timestep-fs", "1"]  # fmt: skip
    assert main(["judge", "runs", *flags, "--out", "out"]) == 0
    found = results.load("out/result.json")
    assert [r.formula for r in found.replicas] == ["Hf32O32"] * 2
    assert [r.structure for r in found.replicas] == [0, 0]
    # velocities in A/fs: in other units it would be a million times as hot
    assert not any(r.first for r in found.replicas)
    ase.io.write("other.extxyz", start[::-1])
    others = [name.replace("start.", "other.") for name in flags]
    capsys.readouterr()
    assert main(["judge", "runs", *others, "--out", "other"]) == 2
    assert "in the same order in --start" in capsys.readouterr().err
    ase.io.write("two.extxyz", [start, start])
    flags[flags.index("start.extxyz")] = "two.extxyz"
    assert main(["judge", "runs", *flags, "--out", "other"]) == 2
    assert "got 2 in two.extxyz; pick one: two.extxyz@0" in capsys.readouterr().err


def test_steps_between_frames_are_an_option(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    frames = made.script(made.oxide(), 11)
    ase.io.write("run.traj", frames)
    given = ["--temperature", "300", "--timestep-fs", "2"]
    assert main(["judge", "run.traj", *given, "--frame-interval-steps", "5"]) == 0
    assert results.load("run-judged/result.json").horizon_ps == pytest.approx(0.1)


def test_results_of_other_trajectories_are_not_overwritten(tmp_path, monkeypatch):
    """Of runs at two temperatures, or of one name in two places."""
    monkeypatch.chdir(tmp_path)
    for folder in ("T1.5", "T1.8", "a/runs/r0", "b/runs/r0"):
        (tmp_path / folder).mkdir(parents=True)
        made.write_dump(tmp_path / folder / "dump.lammpstrj", made.script(made.oxide()))
    given = ("--temperature", "300", "--timestep-fs", "1")
    for folder in ("T1.5", "T1.8", "a/runs"):
        assert main(["judge", folder, *given]) == 0
        assert main(["judge", folder, *given]) == 0  # the same again
    found = sorted(path.name for path in tmp_path.glob("*-judged"))
    assert found == ["T1.5-judged", "T1.8-judged", "runs-judged"]
    before = (tmp_path / "runs-judged" / "result.json").read_bytes()
    assert main(["judge", "b/runs", *given]) == 2
    assert (tmp_path / "runs-judged" / "result.json").read_bytes() == before


@pytest.mark.parametrize(
    ("path", "out"),
    [
        ("some/runs", "runs-judged"),
        ("runs/", "runs-judged"),
        ("a/hot.1.extxyz", "hot.1-judged"),
        ("a/dump.lammpstrj.gz", "dump-judged"),
        ("XDATCAR", "XDATCAR-judged"),
    ],
)
def test_where_results_go(path, out):
    assert judge.default_output(Path(path)) == Path(out)
