"""What is told apart: models of one folder, structures of a comparison."""

import json
from dataclasses import replace

import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk
from ase.calculators.lj import LennardJones

from nequip_decorr.errors import UserError
from nequip_decorr.md import RunStoppedError, results, run_stability
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.batch import fingerprint
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.statistics.comparison import compare_runs
from nequip_decorr.md.statistics.fidelity import add_fidelity
from nequip_decorr.md.structures import structure_hash
from tests.support.potentials import AtCall, Beyond, Einstein, K, crystal, flyer
from tests.support.synthetic import run

SHORT = Protocol(timestep_fs=2.0, horizon_ps=0.06, replicas=2)


def springs(k, call=10**9, what=""):
    return AtCall(crystal().positions, k, call, what)


# --- calculators ---------------------------------------------------------------------


def test_a_calculator_of_other_parameters_is_not_mixed_in(tmp_path):
    argon = bulk("Ar", cubic=True)
    first = LennardJones(epsilon=0.01, sigma=3.4, rc=6)
    run_stability(first, argon, SHORT, output=tmp_path)
    before = (tmp_path / "result.json").read_bytes()
    second = LennardJones(epsilon=0.011, sigma=3.4, rc=6)
    with pytest.raises(UserError, match="choose another --out") as caught:
        run_stability(second, argon, SHORT, output=tmp_path)
    assert "model.energy_eV was" in str(caught.value)
    assert "model.force_norm_eV_per_A was" in str(caught.value)
    assert (tmp_path / "result.json").read_bytes() == before


def test_springs_are_told_apart_on_sites_without_forces(tmp_path):
    """Also for a run that goes on, and where symmetry makes both fields zero."""
    with pytest.raises(RunStoppedError):
        run_stability(springs(K, 20, "interrupt"), crystal(), SHORT, output=tmp_path)
    with pytest.raises(UserError, match=r"model\.energy_eV was"):
        run_stability(springs(1.01 * K), crystal(), SHORT, output=tmp_path)
    assert run_stability(springs(K), crystal(), SHORT, output=tmp_path).complete


def test_what_springs_say():
    """Energy k/2 sum u^2 and force norm k |u| of one and the same displacement."""
    said = fingerprint("ase", springs(K), SHORT, crystal())
    displaced = 2 * said["energy_eV"] / K
    assert said["force_norm_eV_per_A"] == pytest.approx(K * displaced**0.5)
    # 96 normal numbers of width 0.02 A
    assert displaced == pytest.approx(96 * 0.02**2, rel=0.5)
    assert fingerprint("ase", springs(K), SHORT, crystal()) == said


@pytest.mark.parametrize("what", ["raise", "nan-energy", "inf-forces"])
def test_a_model_without_sound_numbers_says_nothing(what):
    assert fingerprint("ase", Beyond(-1.0, what), SHORT, flyer()) is None


def test_the_noise_of_single_precision_is_one_model(tmp_path):
    folder = RunFolder(tmp_path)
    folder.recognise({"energy_eV": -900.0, "force_norm_eV_per_A": 3.0})
    folder.recognise({"energy_eV": -900.001, "force_norm_eV_per_A": 3.00003})
    with pytest.raises(UserError, match=r"norm_eV_per_A was 3, is 3\.01"):
        folder.recognise({"energy_eV": -900.0, "force_norm_eV_per_A": 3.01})


def test_a_folder_of_before_goes_on(tmp_path):
    with pytest.raises(RunStoppedError):
        run_stability(springs(K, 20, "interrupt"), crystal(), SHORT, output=tmp_path)
    (tmp_path / "fingerprint.json").unlink()
    assert run_stability(springs(K), crystal(), SHORT, output=tmp_path).complete


# --- a finished run ------------------------------------------------------------------


def test_a_finished_run_keeps_all_that_is_in_its_file(tmp_path):
    result = run_stability(springs(K), crystal(), SHORT, output=tmp_path)
    path = tmp_path / "result.json"
    add_fidelity(result, path, None)
    # as if it had been run elsewhere
    other = {"host": "cluster", "ns_per_day": 12.5}
    results.save(replace(results.load(path), machine=other), path)
    before = path.read_bytes()
    found = run_stability(springs(K), crystal(), SHORT, output=tmp_path)
    assert path.read_bytes() == before
    assert found.machine == other
    assert found.fidelity is not None


@pytest.mark.parametrize("damage", ["gone", "torn", "incomplete"])
def test_a_result_file_that_is_not_whole_is_written_again(tmp_path, damage):
    whole = run_stability(springs(K), crystal(), SHORT, output=tmp_path)
    path = tmp_path / "result.json"
    if damage == "gone":
        path.unlink()
    elif damage == "torn":
        path.write_text(path.read_text()[:100])
    else:
        results.save(replace(whole, complete=False, replicas=()), path)
    run_stability(springs(K), crystal(), SHORT, output=tmp_path)
    found = results.load(path)
    assert found.complete
    assert found.replicas == whole.replicas


# --- structures ----------------------------------------------------------------------


def pair(tmp_path, first, second):
    """Runs of two structures, as the two sides of a comparison."""
    free = Einstein(np.zeros((4, 3)), 0.0)
    return [
        run_stability(free, atoms, SHORT, output=tmp_path / name)
        for name, atoms in (("a", first), ("b", second))
    ]


def test_other_structures_of_one_formula_are_refused(tmp_path):
    chain = Atoms("Ar4", positions=[[3.4 * i, 0, 0] for i in range(4)])
    runs = pair(tmp_path, bulk("Ar", cubic=True), chain)
    with pytest.raises(UserError, match="got another Ar4 in B than in A"):
        compare_runs(*runs)


def test_a_replica_keeps_the_hash_of_its_structure(tmp_path):
    argon = bulk("Ar", cubic=True)
    runs = pair(tmp_path, argon, argon.copy())
    assert {r.structure_sha256 for side in runs for r in side.replicas} == {
        structure_hash(argon)
    }
    assert compare_runs(*runs).n_pairs == 2


def hashed(result, value, name="s"):
    return replace(
        result,
        replicas=tuple(
            replace(r, structure_sha256=value, structure_name=name)
            for r in result.replicas
        ),
    )


def test_files_of_before_are_compared(tmp_path):
    new = hashed(run(), "a" * 64)
    path = tmp_path / "old.json"
    results.save(new, path)
    data = json.loads(path.read_text())
    for replica in data["replicas"]:
        del replica["structure_sha256"]
    path.write_text(json.dumps(data))
    old = results.load(path)
    assert old.replicas[0].structure_sha256 is None
    assert compare_runs(old, new).n_pairs == compare_runs(new, old).n_pairs == 16


def test_names_matter_only_where_no_hash_tells():
    one, renamed = hashed(run(), "a" * 64), hashed(run(), "a" * 64, "other")
    assert not any("different names" in n for n in compare_runs(one, renamed).notes)
    unknown = hashed(run(), None, "other")
    assert any("different names" in n for n in compare_runs(one, unknown).notes)
