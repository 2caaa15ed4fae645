"""Distributions of distances, their errors, and references from a table."""

from __future__ import annotations

import ase.io
import numpy as np
import pytest
from ase import Atoms
from ase.build import bulk, fcc111, molecule
from hypothesis import given, settings
from hypothesis import strategies as st

from nequip_decorr.errors import UserError
from nequip_decorr.md.statistics.rdf import (
    pair_distributions,
    read_reference,
    read_table,
)
from nequip_decorr.md.statistics.rdf_error import (
    compare_distributions,
    distribution_error,
    error_floor,
)
from tests.support.rattled import rattled

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


def test_floor_is_the_expected_error_of_a_perfect_model():
    """Independent normal values around the same mean, many times over."""
    rng = np.random.default_rng(5)
    sigma = np.linspace(0.1, 1.0, 20)
    errors, floors = [], []
    for _ in range(400):
        model = sigma * rng.standard_normal((10, 20))
        reference = sigma * rng.standard_normal((50, 20))
        errors.append(distribution_error(model, reference.mean(axis=0), 0.05)[0])
        floors.append(error_floor(model, reference, 0.05))
    exact = np.sqrt(2 / np.pi) * np.sum(sigma) * np.sqrt(1 / 10 + 1 / 50) * 0.05
    assert np.mean(errors) == pytest.approx(exact, rel=0.02)
    assert np.mean(floors) == pytest.approx(exact, rel=0.04)


def test_floor_needs_five_frames_and_takes_a_table_as_exact():
    rng = np.random.default_rng(5)
    model, reference = rng.random((10, 4)), rng.random((4, 4))
    assert error_floor(model, reference, 0.1) is None
    assert error_floor(model[:4], None, 0.1) is None
    exact = np.tile(reference.mean(axis=0), (5, 1))
    assert error_floor(model, None, 0.1) == pytest.approx(
        error_floor(model, exact, 0.1)
    )


def test_same_system_is_within_the_reference_error_and_another_is_not():
    reference = pair_distributions(rattled(20, seed=1))
    same = compare_distributions(pair_distributions(rattled(20, seed=2)), reference)
    other = compare_distributions(
        pair_distributions(rattled(20, seed=3, amplitude=0.2)), reference
    )
    for pair in ("Cl-Cl", "Cl-Na", "Na-Na"):
        assert same[pair].error == pytest.approx(same[pair].floor, rel=0.3)
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


@pytest.mark.parametrize(
    ("atoms", "message"),
    [
        (fcc111("Cu", (2, 2, 3)), "three cell vectors .* got 2; give a slab"),
        (Atoms("Ar"), "two atoms or more"),
    ],
    ids=["slab", "atom"],
)
def test_bad_references(tmp_path, atoms, message):
    path = tmp_path / "reference.traj"
    ase.io.write(path, [atoms] * 2)
    with pytest.raises(UserError, match=message):
        read_reference(path)
