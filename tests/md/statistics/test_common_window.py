"""Accuracies of two models are compared over the times at which both were stable."""

from dataclasses import replace

import ase.io
import pytest

from nequip_decorr.md.statistics.common_window import compare_common_window
from nequip_decorr.md.statistics.rdf import pair_distributions, read_reference
from nequip_decorr.md.statistics.rdf_error import compare_distributions
from tests.support.rattled import rattled
from tests.support.synthetic import replica, run

NAMES = ("a", "b")


@pytest.fixture
def recorded(tmp_path):
    """Two runs of one NaCl replica: 4 ps, and a failure at 2 ps; and their folders."""
    reference = tmp_path / "reference.extxyz"
    ase.io.write(reference, rattled(20, seed=2, cells=(2, 2, 2)))
    base = run(hazard_per_ps=0.0, n_structures=1, replicas=1, horizon_ps=4.0)
    runs = []
    for name, seed, end, cause in (("a", 1, 4.0, None), ("b", 3, 2.0, "overlap")):
        (tmp_path / name).mkdir()
        frames = rattled(40, seed=seed, cells=(2, 2, 2))
        for atoms in frames[20:]:  # wrong, but only after the other one has failed
            atoms.set_cell(1.1 * atoms.cell.array, scale_atoms=True)
        ase.io.write(tmp_path / name / "0.extxyz", frames)
        made = replica(0, time_ps=end, cause=cause, formula="Cl32Na32", n_atoms=64)
        made = replace(made, trajectory="0.extxyz", seed=0)
        fidelity = {"reference": str(reference), "distributions": []}
        runs.append(replace(base, replicas=(made,), fidelity=fidelity))
    return tuple(runs), (tmp_path / "a", tmp_path / "b")


def test_errors_of_the_common_window(recorded):
    runs, folders = recorded
    (found,), notes = compare_common_window(runs, folders, NAMES)
    assert notes == []
    assert (found.formula, found.temperature_K, found.kind) == (
        "Cl32Na32",
        1800.0,
        "g(r)",
    )
    # 20 % of 4 ps are warm-up in one, the other fails at 2 ps
    assert found.window_ps == pytest.approx((0.8, 1.9))
    assert found.n_frames == (12, 12)
    known = read_reference(folders[0].parent / "reference.extxyz")
    for index, folder in enumerate(folders):
        frames = ase.io.read(folder / "0.extxyz", index="8:20")
        expected = compare_distributions(pair_distributions(frames), known)
        assert list(found.pairs) == list(expected) == ["Cl-Cl", "Cl-Na", "Na-Na"]
        for name, errors in found.pairs.items():
            assert errors[index] == expected[name]


def test_slabs_without_a_third_cell_vector_are_not_compared(recorded):
    """NequIP completes such a cell; a density needs it."""
    runs, folders = recorded
    for folder in folders:
        frames = ase.io.read(folder / "0.extxyz", index=":")
        for atoms in frames:
            atoms.cell[2] = 0.0
            atoms.pbc = [True, True, False]
        ase.io.write(folder / "0.extxyz", frames)
    found, (note,) = compare_common_window(runs, folders, NAMES)
    assert found == []
    assert "not compared: expected three cell vectors" in note


def test_nothing_without_a_reference(recorded):
    runs, folders = recorded
    bare = tuple(replace(each, fidelity=None) for each in runs)
    assert compare_common_window(bare, folders, NAMES) == ([], [])
    bare = tuple(replace(r, fidelity={"reference": None}) for r in runs)
    assert compare_common_window(bare, folders, NAMES) == ([], [])


def test_what_cannot_be_compared_is_said(recorded):
    runs, folders = recorded

    def said(first, second, places=folders):
        found, notes = compare_common_window((first, second), places, NAMES)
        assert found == []
        (note,) = notes
        assert "\n" not in note
        return note

    other = replace(runs[1], fidelity={"reference": None})
    assert "in a and none in b" in said(runs[0], other)
    early = replace(runs[1].replicas[0].unphysical, time_ps=0.5, step=500)
    early = replace(runs[1].replicas[0], time_ps=0.5, unphysical=early)
    early = replace(runs[1], replicas=(early,))
    assert "no frame at which both" in said(runs[0], early)
    assert "no frames of both" in said(*runs, (folders[0], folders[0].parent))
    (folders[0].parent / "reference.extxyz").unlink()
    assert "expected a reference trajectory" in said(*runs)
