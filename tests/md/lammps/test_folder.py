"""The folder of LAMMPS runs: what is in it, and what is refused."""

import json
from dataclasses import replace

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md.lammps.model import LammpsModel
from nequip_decorr.md.lammps.write import write_lammps, write_runs
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.structures import structure_hash
from tests.support.lammps_runs import argon

SHORT = Protocol(
    ensemble="nve", temperatures_K=(60.0,), replicas=1, frame_interval_steps=50
)


def test_what_is_written_of_the_replicas(write):
    atoms = argon()
    atoms.info["name"] = "my file#3"
    asked = replace(
        SHORT, ensemble="langevin", replicas=2, seed=7, temperatures_K=(60.0, 80.5)
    )
    folders = write(atoms, asked)
    names = [folder.name for folder in folders]
    assert names == [
        "my_file_3-60K-0", "my_file_3-60K-1", "my_file_3-80.5K-0", "my_file_3-80.5K-1"
    ]  # fmt: skip
    described = json.loads((folders[0].parent / "replicas.json").read_text())
    assert Protocol.from_dict(described["protocol"]) == asked
    rows = described["replicas"]
    assert [row["folder"] for row in rows] == names
    assert [row["index"] for row in rows] == [0, 1, 2, 3]
    assert [row["seed"] for row in rows] == [7, 8, 7, 8]
    assert [row["temperature_K"] for row in rows] == [60.0, 60.0, 80.5, 80.5]
    assert {row["structure_name"] for row in rows} == {"my file#3"}
    assert {row["structure_sha256"] for row in rows} == {structure_hash(atoms)}


def test_replicas_have_seeds_of_their_own(write):
    folders = write(argon(), replace(SHORT, ensemble="langevin", replicas=5))
    seeds = set()
    for folder in folders:
        text = (folder / "in.lammps").read_text()
        (line,) = [
            li for li in text.splitlines() if li.startswith("variable        seed")
        ]
        seeds.add(int(line.split("(")[1].split()[0]))
    assert len(seeds) == 5
    assert all(0 <= seed < 900_000_000 for seed in seeds)


def test_structures_of_one_name_have_folders_of_their_own(tmp_path):
    (tmp_path / "model").write_text("")
    model = LammpsModel(tmp_path / "model", "allegro", {"Ar": "Ar"}, 8.5)
    starts = [argon(), argon()]
    for atoms in starts:
        atoms.info["name"] = "same"
    folders = write_runs(model, starts, SHORT, tmp_path / "runs")
    assert [f.name for f in folders] == ["same_0-60K-0", "same_1-60K-0"]


def test_what_is_there_is_not_overwritten(tmp_path, write):
    folders = write(argon(), SHORT)
    before = sorted(p.name for p in tmp_path.rglob("*"))
    with pytest.raises(UserError, match=r"expected a new folder .* with files in it"):
        write(argon(), SHORT)
    assert sorted(p.name for p in tmp_path.rglob("*")) == before
    assert folders[0].is_dir()


def test_what_a_killed_command_has_left_is_replaced(tmp_path, write):
    (tmp_path / ".runs.nequip-decorr-part" / "half").mkdir(parents=True)
    (folder,) = write(argon(), replace(SHORT, replicas=1))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["model", "runs"]
    assert not (folder.parent / "half").exists()


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("file", "expected a new folder for LAMMPS runs"),
        ("file/runs", "cannot write LAMMPS runs to"),
    ],
)
def test_a_folder_that_cannot_be_made(tmp_path, name, said):
    (tmp_path / "file").write_text("mine")
    (tmp_path / "model").write_text("")
    model = LammpsModel(tmp_path / "model", "allegro", {"Ar": "Ar"}, 8.5)
    with pytest.raises(UserError, match=said):
        write_runs(model, [argon()], SHORT, tmp_path / name)
    assert (tmp_path / "file").read_text() == "mine"


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"frame_interval_steps": None}, "expected frame_interval_steps for LAMMPS"),
        ({"half_step_repeat": True}, r"leave out half_step_repeat \(--half-step\)"),
    ],
)
def test_protocols_that_lammps_cannot_follow(tmp_path, change, message):
    with pytest.raises(UserError, match=message):
        asked = replace(SHORT, **change)
        write_lammps("m.nequip.pt2", argon(), asked, tmp_path / "runs")
