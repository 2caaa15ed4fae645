"""What the options of ``nequip-decorr judge`` mean."""

import argparse
from pathlib import Path

import pytest

from nequip_decorr import UserError
from nequip_decorr.cli import judge
from nequip_decorr.cli.main import main
from nequip_decorr.md import Protocol, preset
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
    assert given == {"criteria", "ensemble", "horizon_ps", "temperatures_K"}
    with pytest.raises(UserError, match="got both"):
        judge.protocol_of(parsed("--protocol", path, "--preset", "solid"))


def test_atom_types():
    assert judge.parse_atom_types(["1=Hf", "2=O"]) == {"1": "Hf", "2": "O"}
    with pytest.raises(UserError, match=r"expected TYPE=ELEMENT .* got 'Hf'"):
        judge.parse_atom_types(["1=O", "Hf"])
    with pytest.raises(UserError, match="got 1 as O and as Hf"):
        judge.parse_atom_types(["1=O", "1=Hf"])


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
