from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import degrees_of_freedom
from nequip_decorr.md.results import Failure, Trace, load
from nequip_decorr.md.statistics.fidelity import (
    add_fidelity,
    measure_fidelity,
    stable_frames,
    temperature_check,
)
from nequip_decorr.md.statistics.rdf import (
    compare_distributions,
    distribution_error,
    pair_distributions,
    read_table,
)
from tests.support.synthetic import replica, run


def rattled(n_frames, seed, amplitude=0.1, cells=(3, 3, 3)):
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(cells)
    frames = []
    for i in range(n_frames):
        frame = atoms.copy()
        frame.positions += amplitude * rng.standard_normal(frame.positions.shape)
        frame.info["time_ps"] = 0.1 * i
        frames.append(frame)
    return frames


# --- g(r) and h(r) -------------------------------------------------------------------


def test_ideal_gas_is_one_everywhere():
    rng = np.random.default_rng(0)
    n, box = 400, 15.0
    frames = [
        Atoms(f"Ar{n}", positions=rng.random((n, 3)) * box, cell=[box] * 3, pbc=True)
        for _ in range(30)
    ]
    found = pair_distributions(frames, r_max_A=7.0, bin_A=0.5)
    # n - 1 others; a bin at r holds ~ n^2 2 pi r^2 dr / V pairs a frame
    expected = (n - 1) / n
    pairs = 30 * n**2 * 2 * np.pi * found.r_A**2 * 0.5 / box**3
    assert found.kind == "g(r)"
    deviation = (found.pairs["Ar-Ar"].mean(axis=0) - expected) * np.sqrt(pairs)
    assert np.abs(deviation).max() < 4


@pytest.mark.parametrize("repeat", [1, 2, 4])
def test_fcc_shells_hold_12_6_24_also_beyond_half_the_cell(repeat):
    a = 4.0
    atoms = bulk("Cu", "fcc", a=a).repeat(repeat)
    found = pair_distributions([atoms], r_max_A=5.5, bin_A=0.05)
    # neighbours per atom: rho g 4 pi r^2 dr, summed over the shell's bins
    edges = np.linspace(0, 5.5, 111)
    shell = 4 / 3 * np.pi * np.diff(edges**3) * 4 / a**3
    neighbours = found.pairs["Cu-Cu"][0] * shell
    for radius, count in [(a / 2**0.5, 12), (a, 6), (a * 1.5**0.5, 24)]:
        near = np.abs(found.r_A - radius) < 0.1
        assert neighbours[near].sum() == pytest.approx(count)
    assert neighbours.sum() == pytest.approx(12 + 6 + 24)


def test_partial_distributions_of_rock_salt():
    a = 5.64
    atoms = bulk("NaCl", "rocksalt", a=a, cubic=True)
    found = pair_distributions([atoms], r_max_A=4.5, bin_A=0.05)
    assert list(found.pairs) == ["Cl-Cl", "Cl-Na", "Na-Na"]
    edges = np.linspace(0, 4.5, 91)
    shell = 4 / 3 * np.pi * np.diff(edges**3) * 4 / a**3
    # six unlike neighbours at a/2, twelve like ones at a/sqrt(2)
    assert (found.pairs["Cl-Na"][0] * shell).sum() == pytest.approx(6)
    for pair in ("Cl-Cl", "Na-Na"):
        assert (found.pairs[pair][0] * shell).sum() == pytest.approx(12)


def test_molecule_has_distances():
    water = molecule("H2O")
    found = pair_distributions([water], r_max_A=3.0, bin_A=0.02)
    assert found.kind == "h(r)"
    # one oxygen: no O-O
    assert list(found.pairs) == ["H-H", "H-O"]
    for pair, i, j in [("H-H", 1, 2), ("H-O", 0, 1)]:
        values = found.pairs[pair][0]
        assert values.sum() * 0.02 == pytest.approx(1)
        peak = found.r_A[values.argmax()]
        assert peak == pytest.approx(water.get_distance(i, j), abs=0.011)


@settings(deadline=None, max_examples=15)
@given(st.integers(0, 1000), st.integers(0, 10))
def test_order_translation_and_wrapping_do_not_matter(seed, shift):
    rng = np.random.default_rng(seed)
    atoms = rattled(1, seed, cells=(1, 1, 1))[0]
    moved = atoms[rng.permutation(len(atoms))]
    moved.positions += shift
    moved.wrap()
    before, after = (pair_distributions([a]).pairs for a in (atoms, moved))
    for pair in before:
        # a pair on the edge of a bin may fall on either side
        assert np.abs(np.cumsum(before[pair] - after[pair], axis=1)).max() < 0.5 * (
            before[pair].max() + 1
        )


def test_frames_must_be_alike():
    with pytest.raises(UserError, match="one formula"):
        pair_distributions([bulk("Cu"), bulk("Al")])
    with pytest.raises(UserError, match="at least one frame"):
        pair_distributions([])
    with pytest.raises(UserError, match="bin_A"):
        pair_distributions([bulk("Cu")], r_max_A=1.0, bin_A=2.0)


# --- errors --------------------------------------------------------------------------


def test_error_is_the_integral_of_the_difference():
    reference = np.array([0.0, 1.0, 2.0, np.nan])
    model = np.array([[0.5, 1.0, 1.0, 9.0], [0.5, 1.0, 2.0, 9.0]])
    error, spread = distribution_error(model, reference, 0.1)
    assert error == pytest.approx((0.5 + 0.0 + 0.5) * 0.1)
    assert spread is None


def test_no_reference_is_no_error_of_zero():
    with pytest.raises(UserError, match="in some of the 3 bins, got none"):
        distribution_error(np.ones((2, 3)), np.full(3, np.nan), 0.1)


def test_standard_error_of_a_mean_is_the_textbook_one():
    """One bin, far from the reference: the error is |mean - ref|, linear in blocks."""
    rng = np.random.default_rng(2)
    model = 10 + rng.standard_normal((50, 1))
    _, spread = distribution_error(model, np.zeros(1), 1.0)
    blocks = model.reshape(5, 10).mean(axis=1)
    assert spread == pytest.approx(blocks.std(ddof=1) / np.sqrt(5))


def test_same_system_is_within_the_reference_error_and_another_is_not():
    reference = pair_distributions(rattled(20, seed=1))
    same = compare_distributions(pair_distributions(rattled(20, seed=2)), reference)
    other = compare_distributions(
        pair_distributions(rattled(20, seed=3, amplitude=0.2)), reference
    )
    for pair in ("Cl-Cl", "Cl-Na", "Na-Na"):
        assert same[pair].error < 1.5 * same[pair].reference_error
        assert other[pair].error > 5 * same[pair].error
        assert other[pair].error > 10 * other[pair].standard_error


def test_a_distribution_is_no_error_from_itself():
    found = pair_distributions(rattled(6, seed=1))
    errors = compare_distributions(found, found)
    assert all(e.error == pytest.approx(0, abs=1e-12) for e in errors.values())


def test_periodic_against_molecule():
    with pytest.raises(UserError, match="not periodic"):
        compare_distributions(
            pair_distributions(rattled(1, 0)), pair_distributions([molecule("H2O")])
        )


def test_table_is_read_and_interpolated(tmp_path):
    table = tmp_path / "rdf.csv"
    table.write_text("r_A, Na-Cl, Cl-Cl\n1.0, 0.0, 1\n2.0, 2.0, 1\n3.0, 0.0, 1\n")
    found = read_table(table, np.array([0.5, 1.0, 1.5, 2.75, 3.5]))
    # pairs are named in alphabetical order whatever the table says
    assert list(found) == ["Cl-Na", "Cl-Cl"]
    np.testing.assert_allclose(found["Cl-Na"], [np.nan, 0.0, 1.0, 0.5, np.nan])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "first line"),
        ("r, A-B\n1 2\n", "first line"),
        ("r_A A-B\n1 2\n2 x\n", "numbers a line"),
        ("r_A A-B\n1 2\n2\n", "numbers a line"),
        ("r_A A-B\n1 2 3\n", "increasing r_A"),
        ("r_A A-B\n2 1\n1 1\n", "increasing r_A"),
        ("r_A A-B\n", "increasing r_A"),
    ],
    ids=["empty", "header", "word", "ragged", "columns", "backwards", "no-rows"],
)
def test_bad_tables(tmp_path, text, message):
    table = tmp_path / "rdf.csv"
    table.write_text(text)
    with pytest.raises(UserError, match=message):
        read_table(table, np.array([1.0]))


# --- temperature ---------------------------------------------------------------------


def gas_trace(kelvin, n_atoms, ensemble, n, seed):
    """Temperatures of Maxwell-Boltzmann momenta: chi-squared over Ndof."""
    dof = degrees_of_freedom(n_atoms, ensemble)
    rng = np.random.default_rng(seed)
    values = tuple((kelvin * rng.chisquare(dof, size=n) / dof).tolist())
    time = tuple(np.linspace(0, 10, n).tolist())
    return Trace(time, values, time, time)


@pytest.mark.parametrize("ensemble", ["langevin", "nose-hoover"])
def test_a_canonical_trace_has_the_canonical_spread(ensemble):
    replicas = [
        replica(
            i, time_ps=10.0, n_atoms=8, trace=gas_trace(1800.0, 8, ensemble, 4000, i)
        )
        for i in range(4)
    ]
    check = temperature_check(replicas, 1800.0, ensemble)
    dof = 24 if ensemble == "langevin" else 21
    assert check.sigma_canonical_K == pytest.approx(1800 * np.sqrt(2 / dof))
    assert check.sigma_K == pytest.approx(check.sigma_canonical_K, rel=0.03)
    assert check.mean_K == pytest.approx(1800, abs=5 * check.mean_error_K)
    exact = check.sigma_canonical_K / np.sqrt(check.n_samples)
    assert check.mean_error_K == pytest.approx(exact, rel=0.6)
    assert check.n_samples == pytest.approx(0.8 * 16_000, rel=0.01)


def test_warm_up_and_explosion_are_left_out():
    time = tuple(np.linspace(0, 9.9, 100).tolist())
    kelvin = tuple(5.0 if t < 1 else 1e9 if t >= 5 else 300.0 for t in time)
    failed = replica(
        0,
        time_ps=5.0,
        cause="blowup",
        temperature_K=300.0,
        trace=Trace(time, kelvin, time, time),
    )
    check = temperature_check([failed], 300.0, "langevin")
    assert check.mean_K == 300.0
    assert check.sigma_K == 0.0


def test_too_short_for_a_temperature():
    assert temperature_check([replica(0, time_ps=1.0)], 1800.0, "langevin") is None


# --- the whole -----------------------------------------------------------------------


@pytest.fixture
def recorded(tmp_path):
    """A run of one NaCl replica that failed at 2 ps, its frames, and a reference."""
    result = run(hazard_per_ps=0.0, n_structures=1, replicas=1)
    path, reference = tmp_path / "0.extxyz", tmp_path / "reference.extxyz"
    ase.io.write(path, rattled(40, seed=1, cells=(2, 2, 2)))
    ase.io.write(reference, rattled(20, seed=2, cells=(2, 2, 2)))
    failed = replica(
        0,
        time_ps=2.0,
        cause="blowup",
        formula="Cl32Na32",
        n_atoms=64,
        trajectory="0.extxyz",
    )
    return replace(result, replicas=(failed,)), tmp_path, reference


def test_frames_before_the_failure_and_after_the_warm_up(recorded):
    result, folder, _ = recorded
    (failed,) = result.replicas
    frames = stable_frames(folder / failed.trajectory, failed)
    times = [atoms.info["time_ps"] for atoms in frames]
    assert times == pytest.approx(np.arange(4, 20) * 0.1)


def test_what_is_measured_is_json(recorded):
    result, folder, reference = recorded
    found = measure_fidelity(result, folder, reference)
    assert json.loads(json.dumps(found, allow_nan=False))["notes"] == []
    (group,) = found["distributions"]
    assert group["formula"] == "Cl32Na32"
    assert group["n_frames"] == 16
    for pair in group["pairs"].values():
        assert 0 < pair["error"] < 2 * pair["reference_error"]
        assert len(pair["r_A"]) == len(pair["model"]) == len(pair["reference"])


def test_it_is_written_into_the_result_file(recorded):
    result, folder, reference = recorded
    added = add_fidelity(result, folder / "result.json", reference)
    assert load(folder / "result.json").fidelity == json.loads(
        json.dumps(added.fidelity)
    )
    assert added.fidelity["distributions"]


def test_a_table_as_reference(recorded, tmp_path):
    result, folder, _ = recorded
    table = tmp_path / "reference.csv"
    table.write_text("r_A,Na-Cl\n0,0\n8,0\n")
    found = measure_fidelity(result, folder, table)
    (pair,) = found["distributions"][0]["pairs"].values()
    # a reference of zero: the error is the integral of the model's own g(r)
    assert pair["error"] == pytest.approx(np.sum(pair["model"]) * 0.05)


def test_a_table_of_a_part_is_said(recorded, tmp_path):
    """Distances in nm: 0 to 0.6 A are 12 of 120 bins of 0.05 A."""
    result, folder, _ = recorded
    table = tmp_path / "nm.csv"
    table.write_text("r_A,Na-Cl\n0,0\n0.6,0\n")
    found = measure_fidelity(result, folder, table)
    assert found["notes"] == [
        "Cl32Na32 at 1800 K, Cl-Na: the reference covers 12 of 120 bins (from 0.025 to "
        "0.575 A), the error is of these alone"
    ]
    table.write_text("r_A,Na-Cl\n0,0\n6,0\n")
    assert measure_fidelity(result, folder, table)["notes"] == []


def test_without_reference_only_the_temperature(recorded):
    result, folder, _ = recorded
    found = measure_fidelity(result, folder, None)
    assert found["distributions"] == []
    assert "no reference" in found["notes"][0]


def test_what_cannot_be_compared_is_said(recorded, tmp_path):
    result, folder, _ = recorded
    reference = tmp_path / "cu.extxyz"
    ase.io.write(reference, bulk("Cu", cubic=True))
    found = measure_fidelity(result, folder, reference)
    assert found["distributions"] == []
    assert "Cl32Na32 at 1800 K" in found["notes"][0]
    early = replace(
        result.replicas[0], time_ps=0.0, failure=Failure("overlap", 0, 0.0, "m")
    )
    found = measure_fidelity(replace(result, replicas=(early,)), folder, reference)
    assert "no frame after the warm-up" in found["notes"][0]
    unrecorded = replace(
        result, replicas=(replace(result.replicas[0], trajectory=None),)
    )
    found = measure_fidelity(unrecorded, folder, reference)
    assert "no trajectory" in found["notes"][0]


def test_several_temperatures_and_one_reference(recorded):
    result, folder, reference = recorded
    other = replace(result.replicas[0], index=1, temperature_K=300.0)
    both = replace(result, replicas=(*result.replicas, other))
    found = measure_fidelity(both, folder, reference)
    assert [g["temperature_K"] for g in found["distributions"]] == [300.0, 1800.0]
    assert "several temperatures" in found["notes"][0]


def test_frames_without_a_time(recorded):
    result, folder, reference = recorded
    ase.io.write(folder / "0.extxyz", bulk("Cu"))
    with pytest.raises(UserError, match="time_ps"):
        measure_fidelity(result, folder, reference)


def test_temperatures_of_a_thermostatted_run():
    result = run(hazard_per_ps=0.1, n_structures=3, traces=True)
    (check,) = measure_fidelity(result, Path(), None)["temperature"]
    assert check["mean_K"] == pytest.approx(1800, rel=0.05)
    nve = replace(result, protocol={**result.protocol, "ensemble": "nve"})
    assert measure_fidelity(nve, Path(), None)["temperature"] == []
