from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import matplotlib
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from matplotlib.patches import Circle

from nequip_decorr.errors import UserError
from nequip_decorr.md.report.figures import (
    at_risk,
    distribution_figure,
    survival_figure,
    traces_figure,
)
from nequip_decorr.md.report.snapshot import neighbourhood, neighbourhood_figure
from nequip_decorr.md.results import Trace
from nequip_decorr.md.statistics.survival import estimate_survival
from tests.support.synthetic import replica, run


def survival_of(**options):
    result = run(**options)
    return estimate_survival(result.replicas, result.horizon_ps, "unphysical")


def texts(figure):
    return [t.get_text() for axis in figure.axes for t in axis.texts]


# --- survival curves -----------------------------------------------------------------


def test_curves_are_the_estimates():
    survivals = {"a": survival_of(seed=1), "b": survival_of(seed=2)}
    axis = survival_figure(survivals).axes[0]
    for line, survival in zip(axis.lines, survivals.values(), strict=True):
        np.testing.assert_allclose(line.get_xdata(), survival.curve.time_ps)
        np.testing.assert_allclose(line.get_ydata(), survival.curve.survival)
        assert line.get_drawstyle() == "steps-post"
    assert axis.get_xlim() == (0, 10)
    # told apart without colours too
    assert len({line.get_linestyle() for line in axis.lines}) == 2


def test_replicas_at_risk():
    survival = estimate_survival(
        [
            replica(0, time_ps=2.0, cause="overlap"),
            replica(1, time_ps=4.0, censored_by="interrupt"),
            replica(2, time_ps=10.0),
        ],
        10.0,
        "unphysical",
    )
    times = (0.0, 2.0, 2.1, 4.0, 4.1, 10.0)
    assert [at_risk(survival, t) for t in times] == [3, 3, 2, 2, 1, 1]
    # written under the ticks 0, 2, 4, 6, 8 and 10 ps
    shown = texts(survival_figure({"a": survival}))
    assert shown == ["still followed", "3", "3", "2", "1", "1", "1"]


def test_labels_are_taken_literally(tmp_path):
    figure = survival_figure({"_a$b": survival_of(), "$x": survival_of(seed=3)})
    figure.savefig(tmp_path / "a.png")
    shown = [t.get_text() for t in figure.axes[0].get_legend().get_texts()]
    assert shown[0].endswith(r": _a\$b")


# --- traces --------------------------------------------------------------------------


def test_an_explosion_does_not_flatten_the_rest():
    result = run(traces=True)
    exploded = tuple(
        replace(
            r,
            trace=replace(r.trace, temperature_K=(*r.trace.temperature_K[:-1], 1e9)),
        )
        if r.first
        else r
        for r in result.replicas
    )
    upper = traces_figure(replace(result, replicas=exploded)).axes[0]
    low, high = upper.get_ylim()
    assert 0 < low < 1500 < 2100 < high < 4000
    assert "cut off" in upper.get_ylabel()


def test_nothing_is_cut_off_without_explosions():
    upper, lower = traces_figure(run(traces=True, hazard_per_ps=0.0)).axes
    assert upper.get_ylabel() == "temperature / K"
    assert "potential" in lower.get_ylabel()


def test_nve_shows_total_energy():
    result = run(traces=True, hazard_per_ps=0.0, ensemble="nve")
    lower = traces_figure(result).axes[1]
    assert "total" in lower.get_ylabel()
    # the synthetic drift: 0.3 meV/atom/ps
    line = lower.lines[0]
    np.testing.assert_allclose(line.get_ydata(), 0.3 * line.get_xdata(), atol=1e-6)


def test_traces_that_are_missing_or_of_one_sample(tmp_path):
    result = run(hazard_per_ps=0.0, n_structures=1, replicas=2)
    one = replace(result.replicas[0], trace=Trace((0.0,), (300.0,), (-1.0,), (-1.0,)))
    for replicas in (result.replicas, (one, result.replicas[1])):
        figure = traces_figure(replace(result, replicas=replicas))
        figure.savefig(tmp_path / "a.png")


# --- the neighbourhood of a failure --------------------------------------------------


def test_neighbours_of_rock_salt():
    a = 5.64
    atoms = bulk("NaCl", "rocksalt", a=a, cubic=True).repeat(2)
    around = neighbourhood(atoms, [0], radius_A=4.0)
    # itself, six unlike at a/2 and twelve like at a/sqrt(2)
    assert len(around.indices) == 19
    distance = np.linalg.norm(around.positions_A, axis=1)
    assert sorted(distance)[1:7] == pytest.approx([a / 2] * 6)
    assert sorted(distance)[7:] == pytest.approx([a / 2**0.5] * 12)
    assert around.failing.tolist() == [True] + [False] * 18
    assert np.all(around.numbers == atoms.numbers[around.indices])


def test_a_pair_across_the_boundary_is_drawn_in_one_piece():
    atoms = Atoms("HO", positions=[[0.1, 0, 0], [9.5, 0, 0]], cell=[10] * 3, pbc=True)
    around = neighbourhood(atoms, [0, 1])
    assert around.indices.tolist() == [0, 1]
    np.testing.assert_allclose(around.positions_A[1], [-0.6, 0, 0], atol=1e-12)


def test_images_of_an_atom_in_a_small_cell():
    around = neighbourhood(bulk("Cu", "fcc", a=4.0), [0], radius_A=3.0)
    assert around.indices.tolist() == [0] * 13
    assert around.failing.sum() == 1


def test_molecules_have_no_images():
    water = molecule("H2O")
    around = neighbourhood(water, [1])
    assert sorted(around.indices) == [0, 1, 2]
    for k, index in enumerate(around.indices):
        assert np.linalg.norm(around.positions_A[k]) == pytest.approx(
            water.get_distance(1, index)
        )


def test_every_atom_is_drawn_and_the_failing_are_named(tmp_path):
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    axis = (figure := neighbourhood_figure(atoms, [0, 1])).axes[0]
    around = neighbourhood(atoms, [0, 1])
    circles = [p for p in axis.patches if isinstance(p, Circle)]
    assert len(circles) == len(around.indices)
    assert sum(c.get_linewidth() == 3 for c in circles) == 2
    assert texts(figure) == ["Na0", "Cl1", "2.82 Å"]
    # the labelled pair lies in the page: drawn at its full length
    dashed = next(line for line in axis.lines if line.get_linestyle() == "--")
    ends = np.transpose([dashed.get_xdata(), dashed.get_ydata()])
    assert np.linalg.norm(ends[1] - ends[0]) == pytest.approx(2.82)
    figure.savefig(tmp_path / "a.png")


def test_one_failing_atom_shows_its_nearest_neighbours():
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(2)
    assert texts(neighbourhood_figure(atoms, [3]))[1:] == ["2.82 Å"] * 3


def test_few_atoms_of_a_cell_that_has_collapsed():
    """A sphere of 4 A would have 23000 copper atoms in it."""
    atoms = bulk("Cu", cubic=True) * (2, 2, 2)
    atoms.set_cell(0.1 * atoms.cell.array, scale_atoms=True)
    around = neighbourhood(atoms, [0])
    assert 50 < len(around.indices) < 200


@pytest.mark.parametrize(
    "atoms",
    [
        Atoms("Ar", cell=[20] * 3, pbc=True),
        Atoms("Ar"),
        Atoms("ArAr", positions=[[0, 0, 0], [0, 0, 0]]),
    ],
    ids=["alone", "no-cell", "on-top"],
)
def test_hardly_any_neighbourhood(tmp_path, atoms):
    figure = neighbourhood_figure(atoms, range(len(atoms)))
    figure.savefig(tmp_path / "a.png")
    assert "Ar0" in texts(figure)


@pytest.mark.parametrize("failing", [[], [4], [-1], [0, 4]])
def test_failing_atoms_must_be_there(failing):
    with pytest.raises(UserError, match="between 0 and 3"):
        neighbourhood(bulk("Cu", cubic=True), failing)


# --- pair distributions --------------------------------------------------------------


@pytest.mark.parametrize("n", [1, 2, 3, 4, 6])
def test_a_panel_for_each_pair(tmp_path, n):
    pair = {"r_A": (1.0, 2.0), "model": (0.0, 1.0), "reference": (0.0, 2.0)}
    figure = distribution_figure({f"A-{i}": pair for i in range(n)}, "g(r)")
    assert sum(axis.axison for axis in figure.axes) == n
    figure.savefig(tmp_path / "a.png")


# --- no global state -----------------------------------------------------------------


def test_rc_params_are_untouched_and_pyplot_unloaded():
    before = dict(matplotlib.rcParams)
    survival_figure({"a": survival_of()})
    traces_figure(run(traces=True))
    assert dict(matplotlib.rcParams) == before
    code = (
        "import sys; from nequip_decorr.plotting import new_figure; new_figure(1, 1); "
        "assert 'matplotlib.pyplot' not in sys.modules"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
