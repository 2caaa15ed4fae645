"""`md --write-lammps`, with models of the real commands, and real LAMMPS."""

import json
import re
import shlex

import ase.io
import numpy as np
import pytest
from ase import units
from nequip.scripts._compile_utils import ASE_OUTPUTS, LMP_OUTPUTS, PAIR_NEQUIP_INPUTS

from nequip_decorr.md import load_model, results
from tests.support import commands, lammps_runs
from tests.support.commands import md

pytestmark = [pytest.mark.slow, lammps_runs.needs_lammps]

SHORT = ["--horizon-ps", "0.02", "--temperature", "300", "--replicas", "1"]


def one_line(folder, *arguments):
    return md(folder, *arguments).refusal


@pytest.fixture
def written(tmp_path, for_lammps, hfo2):
    """Two structures, one replica each, with a frame every five steps."""
    (tmp_path / "p.yaml").write_text("frame_interval_steps: 5\nensemble: nve\n")
    done = md(
        tmp_path, for_lammps, hfo2, "--protocol", "p.yaml", *SHORT,
        "--write-lammps", "runs",
    )  # fmt: skip
    assert done.status == 0, done.output
    assert "2 replicas written to runs\n" in done.output
    assert "nequip-decorr judge runs\n" in done.output
    return tmp_path / "runs"


def replicas(folder):
    rows = json.loads((folder / "replicas.json").read_text())["replicas"]
    return [folder / row["folder"] for row in rows]


def test_a_checkpoint_is_to_be_compiled_as_here(tmp_path, checkpoint, hfo2):
    """The command that `md` says is that of the model in these tests."""
    write = ["--write-lammps", "runs"]
    refused = one_line(tmp_path, checkpoint, hfo2, *SHORT, *write)
    assert f"a compiled model for LAMMPS, got the checkpoint {checkpoint}" in refused
    found = re.search(r"compile it: (nequip-compile .*) \(a NequIP GNN", refused)
    assert found is not None, refused
    assert shlex.split(found[1]) == [
        "nequip-compile",
        str(checkpoint),
        "last.nequip.pt2",
        *commands.compile_options("pair_allegro"),
    ]


def test_a_nequip_model_in_lammps_takes_the_path_of_md(
    tmp_path, written, checkpoint, hfo2
):
    """Forces by `fix external`: types, order, cell, units and steps are md's."""
    for folder in replicas(written):
        lammps_runs.run_with_model(folder, checkpoint)
    done = md(
        tmp_path, checkpoint, hfo2, "--protocol", "p.yaml", *SHORT, "--out", "here"
    )  # fmt: skip
    assert done.status == 0, done.output
    model = load_model(checkpoint).loaded
    for index, folder in enumerate(replicas(written)):
        ours = ase.io.read(tmp_path / "here" / "frames" / f"{index:04d}.extxyz", ":")
        theirs = lammps_runs.frames(folder)
        assert len(ours) == len(theirs) == 5
        log = lammps_runs.thermo(folder)
        for a, b in zip(ours, theirs, strict=True):
            assert a.symbols.get_chemical_formula() == b.symbols.get_chemical_formula()
            assert (a.numbers == b.numbers).all()
            # LAMMPS turns the axes: compare distances
            np.testing.assert_allclose(
                b.get_all_distances(), a.get_all_distances(), atol=2e-4
            )
        # moved by more than the tolerance
        moved = ours[-1].get_all_distances() - ours[0].get_all_distances()
        assert np.abs(moved).max() > 0.05
        end = theirs[-1]
        end.calc = model
        assert log["PotEng"][-1] == pytest.approx(end.get_potential_energy(), abs=1e-3)
        assert log["Temp"][-1] == pytest.approx(
            2 * end.get_kinetic_energy() / ((3 * len(end) - 3) * units.kB), rel=1e-5
        )


HOT = """\
preset: nve-drift
temperatures_K: [3000]
horizon_ps: 0.03
replicas: 1
until: explosion
frame_interval_steps: 1
record_interval_steps: 1
criteria: {min_distance_ratio: 0.75}
"""


def test_judge_finds_the_events_that_md_finds(tmp_path, for_lammps, checkpoint, hfo2):
    """On the same paths, in the two engines, at the same steps."""
    (tmp_path / "hot.yaml").write_text(HOT)
    hot = ["--protocol", "hot.yaml"]
    done = md(tmp_path, for_lammps, hfo2, *hot, "--write-lammps", "runs")
    assert done.status == 0, done.output
    for folder in replicas(tmp_path / "runs"):
        lammps_runs.run_with_model(folder, checkpoint)
    done = commands.run("nequip-decorr", ["judge", "runs"], tmp_path)
    assert done.status == 0, done.output
    done = md(tmp_path, checkpoint, hfo2, *hot, "--out", "here")
    assert done.status == 0, done.output
    here = results.load(tmp_path / "here" / "result.json")
    there = results.load(tmp_path / "runs-judged" / "result.json")
    assert len(here.replicas) == 2
    for ours, theirs in zip(here.replicas, there.replicas, strict=True):
        assert ours.unphysical is not None
        assert theirs.unphysical is not None
        assert ours.unphysical.cause == theirs.unphysical.cause == "overlap"
        assert theirs.unphysical.step == ours.unphysical.step
        assert theirs.unphysical.atoms == ours.unphysical.atoms
        assert theirs.key == ours.key
    done = commands.run("nequip-decorr", ["compare", "here", "runs-judged"], tmp_path)
    assert done.status == 0, done.output


def test_the_input_names_the_model_and_its_types(written, for_lammps):
    text = (replicas(written)[0] / "in.lammps").read_text()
    lines = {" ".join(line.split()) for line in text.splitlines()}
    assert "pair_style allegro" in lines
    assert f"pair_coeff * * ../{for_lammps.name} Hf O" in lines
    assert "newton on" in lines
    copy = written / for_lammps.name
    assert copy.read_bytes() == for_lammps.read_bytes()


def compiled_for(path, model, inputs, outputs):
    """The compiled model, as if it had these inputs and outputs: NequIP's own names."""
    return commands.with_metadata(
        model,
        path,
        nequip_aoti_inputs=" ".join(inputs),
        nequip_aoti_outputs=" ".join(outputs),
    )


def test_a_model_for_pair_nequip(tmp_path, for_lammps, hfo2):
    """Its inputs tell the pair style, which wants `newton off`."""
    path = compiled_for(
        tmp_path / "gnn.nequip.pt2", for_lammps, PAIR_NEQUIP_INPUTS, LMP_OUTPUTS
    )
    done = md(tmp_path, path, hfo2, *SHORT, "--write-lammps", "runs")
    assert done.status == 0, done.output
    text = (replicas(tmp_path / "runs")[0] / "in.lammps").read_text()
    assert re.search(r"^pair_style +nequip$", text, re.MULTILINE)
    assert re.search(r"^newton +off$", text, re.MULTILINE)


def test_a_torchscript_model_says_what_it_is(tmp_path, scripted, hfo2):
    done = md(tmp_path, scripted, hfo2, *SHORT, "--write-lammps", "runs")
    assert done.status == 0, done.output
    text = (replicas(tmp_path / "runs")[0] / "in.lammps").read_text()
    assert re.search(r"^pair_style +allegro$", text, re.MULTILINE)
    assert re.search(
        r"^pair_coeff +\* \* ../script.nequip.pth Hf O$", text, re.MULTILINE
    )


def test_what_is_refused(tmp_path, for_lammps, hfo2):
    write = ["--write-lammps", "runs"]
    for_ase = compiled_for(
        tmp_path / "ase.nequip.pt2", for_lammps, PAIR_NEQUIP_INPUTS, ASE_OUTPUTS
    )
    line = one_line(tmp_path, for_ase, hfo2, *SHORT, *write)
    assert "a model compiled for LAMMPS, got" in line
    assert "--target pair_allegro" in line
    (tmp_path / "tiny.nequip.zip").write_bytes(b"")
    line = one_line(tmp_path, "tiny.nequip.zip", hfo2, *SHORT, *write)
    assert "got the package" in line
    assert "tiny.nequip.pt2 --device cpu --mode aotinductor" in line
    line = one_line(tmp_path, for_lammps, hfo2, *SHORT, *write, "--out", "here")
    assert "leave out --out" in line
    line = one_line(tmp_path, "none.nequip.pt2", hfo2, *SHORT, *write)
    assert "got none.nequip.pt2, which does not exist" in line
    (tmp_path / "broken.nequip.pt2").write_bytes(b"PK no zip")
    line = one_line(tmp_path, "broken.nequip.pt2", hfo2, *SHORT, *write)
    assert "a model written by nequip-compile, got broken.nequip.pt2" in line
    helium = tmp_path / "he.xyz"
    ase.io.write(helium, ase.Atoms("He"))
    line = one_line(tmp_path, for_lammps, helium, *SHORT, *write)
    assert "elements that the model knows (Hf, O), got He" in line
    assert not (tmp_path / "runs").exists()
