from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.signal import lfilter

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import Event, Trace
from nequip_decorr.md.statistics.drift import fit_drift, replica_drift, run_drift
from tests.support.synthetic import replica, run

N_ATOMS = 96


def series(slope_mev, noise_mev=0.0, n=1000, end_ps=20.0, seed=0):
    """Times, total and potential energies (eV) with a known drift per atom."""
    rng = np.random.default_rng(seed)
    time = np.linspace(0, end_ps, n)
    per_atom = -9000 + slope_mev * time + noise_mev * rng.standard_normal(n)
    total = per_atom * N_ATOMS / 1000
    kinetic = N_ATOMS * (0.2 + 0.01 * np.sin(50 * time))
    return time, total, total - kinetic


@pytest.mark.parametrize("slope", [0.0, 0.37, -2.5])
def test_an_exact_line(slope):
    drift = fit_drift(*series(slope), N_ATOMS)
    assert drift.slope_meV_per_atom_ps == pytest.approx(slope, abs=1e-9)
    assert drift.standard_error_meV_per_atom_ps == pytest.approx(0, abs=1e-9)
    assert drift.residual_meV_per_atom == pytest.approx(0, abs=1e-8)
    assert drift.largest_excursion_meV_per_atom == pytest.approx(0, abs=1e-8)
    assert drift.duration_ps == pytest.approx(16.0, abs=0.05)
    assert drift.n_samples == 800


def test_slope_equals_polyfit():
    time, total, potential = series(0.4, noise_mev=3.0)
    kept = time >= 4.0
    expected = np.polyfit(time[kept], total[kept] * 1000 / N_ATOMS, 1)
    drift = fit_drift(time, total, potential, N_ATOMS)
    assert drift.slope_meV_per_atom_ps == pytest.approx(expected[0], rel=1e-6)
    residual = total[kept] * 1000 / N_ATOMS - np.polyval(expected, time[kept])
    assert drift.residual_meV_per_atom == pytest.approx(
        np.sqrt(np.mean(residual**2)), rel=1e-6
    )
    assert drift.largest_excursion_meV_per_atom == pytest.approx(
        np.abs(residual).max(), rel=1e-6
    )


def test_the_first_fifth_is_not_fitted():
    time, total, potential = series(0.0)
    disturbed = np.where(time < 0.2 * time[-1], 50.0, 0.0)
    drift = fit_drift(time, total + disturbed, potential + disturbed, N_ATOMS)
    assert drift.slope_meV_per_atom_ps == pytest.approx(0, abs=1e-9)


def test_a_float32_offset_does_not_hide_a_small_drift():
    """0.001 meV/atom/ps on -9 eV/atom is below float32's step of the total energy."""
    time, total, potential = series(0.001)
    drift = fit_drift(time, total, potential, N_ATOMS)
    assert drift.slope_meV_per_atom_ps == pytest.approx(0.001, rel=1e-6)


def test_standard_error_is_that_of_the_slopes():
    """White noise sigma: the slope's deviation is sigma / sqrt(sum (t - mean)^2)."""
    drifts = [
        fit_drift(*series(0.5, noise_mev=2.0, n=250, seed=seed), N_ATOMS)
        for seed in range(300)
    ]
    slopes = np.array([d.slope_meV_per_atom_ps for d in drifts])
    errors = np.array([d.standard_error_meV_per_atom_ps for d in drifts])
    time = series(0.5, n=250)[0]
    time = time[time >= 4.0]
    exact = 2.0 / np.sqrt(np.sum((time - time.mean()) ** 2))
    assert slopes.std() == pytest.approx(exact, rel=0.1)
    # five block means keep 24/25 of the lever arm of all samples
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(exact, rel=0.1)
    # the 95 % interval: 1.96 standard errors would cover in 86 %
    width = np.array([d.uncertainty_meV_per_atom_ps for d in drifts])
    assert 0.92 <= np.mean(np.abs(slopes - 0.5) <= width) <= 0.98
    assert np.mean(np.abs(slopes - 0.5) <= 1.96 * errors) < 0.9


def test_the_interval_is_students_on_three_degrees_of_freedom():
    drift = fit_drift(*series(0.5, noise_mev=2.0), N_ATOMS)
    # the tabulated 97.5 % quantile
    assert drift.uncertainty_meV_per_atom_ps == pytest.approx(
        3.182 * drift.standard_error_meV_per_atom_ps, rel=1e-3
    )


@pytest.mark.parametrize(
    ("blocks", "factor"), [(0.5, 1.3), (1.0, 1.6), (3.0, 2.2)], ids=str
)
def test_how_much_too_small_the_error_is_for_slow_fluctuations(blocks, factor):
    """Exponentially correlated energies; times are in blocks of a fifth of the fit."""
    rng = np.random.default_rng(3)
    time, total, potential = series(0.0, n=250)
    kept = 0.8 * 250 / 5
    decay = np.exp(-1 / (blocks * kept))
    slopes, errors = [], []
    for _ in range(300):
        kicks = rng.standard_normal(250) * np.sqrt(1 - decay**2)
        kicks[0] = rng.standard_normal()
        noise = lfilter([1.0], [1.0, -decay], kicks)
        drift = fit_drift(time, total + noise, potential, N_ATOMS)
        slopes.append(drift.slope_meV_per_atom_ps)
        errors.append(drift.standard_error_meV_per_atom_ps)
    ratio = np.std(slopes) / np.sqrt(np.mean(np.square(errors)))
    assert ratio == pytest.approx(factor, rel=0.15)


def test_standard_error_is_that_of_a_line_through_five_means():
    """The textbook formula: s^2 / Sxx, with three degrees of freedom."""
    rng = np.random.default_rng(4)
    time = np.linspace(0, 10, 301)
    energy = 0.01 * time + rng.normal(0, 0.2, 301)
    drift = fit_drift(time, energy, energy - rng.normal(1, 0.1, 301), 1)
    late = time >= 2.0
    t, e = (
        np.array([block.mean() for block in np.array_split(values[late], 5)])
        for values in (time, 1000 * energy)
    )
    t, e = t - t.mean(), e - e.mean()
    residual = e - (t @ e) / (t @ t) * t
    expected = np.sqrt(residual @ residual / 3 / (t @ t))
    assert drift.standard_error_meV_per_atom_ps == pytest.approx(expected, rel=1e-12)


def test_standard_error_sees_correlated_noise():
    """A naive fit to all samples would be sure of a slope that is not there."""
    rng = np.random.default_rng(1)
    time, total, potential = series(0.0)
    hits, naive_hits = 0, 0
    for _ in range(200):
        noise = np.convolve(rng.standard_normal(len(time) + 99), np.ones(100), "valid")
        energy = total + noise * N_ATOMS / 1000
        drift = fit_drift(time, energy, potential, N_ATOMS)
        naive = drift.residual_meV_per_atom / np.sqrt(
            drift.n_samples * drift.duration_ps**2 / 12
        )
        size = abs(drift.slope_meV_per_atom_ps)
        hits += size > 3.182 * drift.standard_error_meV_per_atom_ps
        naive_hits += size > 1.96 * naive
    assert naive_hits > 100
    assert hits < 30


def test_drift_in_units_of_the_kinetic_fluctuation():
    time = np.linspace(0, 10, 501)
    kinetic = 20 + np.where(np.arange(501) % 2, 1.0, -1.0)  # sigma = 1 eV
    total = 0.1 * time
    drift = fit_drift(time, total, total - kinetic, 10)
    # 0.1 eV/ps over 8 ps is 0.8 eV, of a sigma of 1 eV
    assert drift.drift_over_sigma_kinetic == pytest.approx(0.8, rel=5e-3)


def test_no_kinetic_fluctuation_no_ratio():
    time = np.linspace(0, 10, 101)
    drift = fit_drift(time, time, time, 10)
    assert drift.drift_over_sigma_kinetic is None


@settings(deadline=None, max_examples=40)
@given(st.floats(-5, 5), st.floats(-100, 100), st.floats(0.1, 10))
def test_offset_and_units(slope, offset_eV, stretch):
    time, total, potential = series(0.2, noise_mev=1.0, n=120)
    before = fit_drift(time, total, potential, N_ATOMS)
    moved = total + offset_eV + slope * N_ATOMS / 1000 * time
    after = fit_drift(time, moved, potential, N_ATOMS)
    assert after.slope_meV_per_atom_ps == pytest.approx(
        before.slope_meV_per_atom_ps + slope, abs=1e-6
    )
    assert after.residual_meV_per_atom == pytest.approx(
        before.residual_meV_per_atom, rel=1e-6
    )
    slower = fit_drift(time * stretch, total, potential, N_ATOMS)
    assert slower.slope_meV_per_atom_ps * stretch == pytest.approx(
        before.slope_meV_per_atom_ps, rel=1e-6, abs=1e-9
    )


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda t, e, p: (t, e[:-1], p), "one length"),
        (lambda t, e, p: (t[::-1], e, p), "increasing"),
        (lambda t, e, p: (t[:10], e[:10], p[:10]), "at least 20"),
        (lambda t, e, p: (t[:22], e[:22], p[:22]), "after the warm-up"),
        (lambda t, e, p: (t, np.where(t > 5, np.nan, e), p), "finite"),
        (lambda t, e, p: (np.where(t > 5, np.nan, t), e, p), "increasing"),
    ],
    ids=["lengths", "backwards", "short", "short-after", "nan-energy", "nan-time"],
)
def test_bad_input(change, message):
    with pytest.raises(UserError, match=message):
        fit_drift(*change(*series(0.1)), N_ATOMS)


def test_no_atoms():
    with pytest.raises(UserError, match="at least one atom"):
        fit_drift(*series(0.1), 0)


def test_a_run_gives_the_drift_of_its_replicas():
    result = run(ensemble="nve", hazard_per_ps=0.0, n_structures=2, traces=True)
    drifts = run_drift(result)
    assert sorted(drifts) == [0, 1, 2, 3]
    for drift in drifts.values():
        # the synthetic traces drift by this much
        assert drift.slope_meV_per_atom_ps == pytest.approx(0.3, abs=1e-6)


def test_only_nve_drifts():
    assert run_drift(run(hazard_per_ps=0.0, traces=True)) == {}


def test_what_follows_a_failure_is_not_fitted():
    """Nor the sample at the failure itself."""
    time, total, potential = series(0.1)
    end = float(time[750])
    exploded = np.where(time >= end, 1e6, total)
    failed = replace(
        replica(0, time_ps=end),
        explosion=Event("blowup", 15_000, end, "m"),
        trace=Trace(tuple(time), tuple(time), tuple(potential), tuple(exploded)),
    )
    drift = replica_drift(failed)
    assert drift.slope_meV_per_atom_ps == pytest.approx(0.1, abs=1e-6)


def test_a_trace_that_is_too_short_says_so():
    result = run(ensemble="nve", hazard_per_ps=0.0, n_structures=1, replicas=1)
    assert "at least 20" in run_drift(result)[0]
