"""The temperature that a sound replica may have, against its differential equation."""

import numpy as np
import pytest
from ase import units
from hypothesis import given
from hypothesis import strategies as st
from scipy.integrate import solve_ivp

from nequip_decorr.md import Criteria, Protocol
from nequip_decorr.md.criteria.warmth import LAG, LATE_SHARE, warmth

KELVIN = st.floats(10, 3000)


def protocol(ensemble, end_K=None, **changes):
    return Protocol(
        ensemble=ensemble,
        ramp_end_temperature_K=end_K if ensemble == "ramp" else None,
        **changes,
    )


@given(start=KELVIN, end=KELVIN, friction=st.floats(1e-4, 0.1), ps=st.floats(0.1, 20))
def test_it_solves_its_equation(start, end, friction, ps):
    """dR/dt = (T - R) / lag, or T if that is more; what is stored decays to a share."""
    how = protocol("ramp", end, friction_per_fs=friction, horizon_ps=ps)
    found = warmth(how, start)
    stored = 0.5 / (1.5 * units.kB)
    duration = 1000 * ps

    def target(t):
        return start + (end - start) * t / duration

    times = np.linspace(0, duration, 7)
    solved = solve_ivp(
        lambda t, y: [(target(t) - y[0]) * friction / LAG, -y[1] * friction / LAG],
        (0, duration),
        [start, stored],
        t_eval=times,
        rtol=1e-9,
        atol=1e-6,
    ).y
    lagging = np.maximum(solved[0], target(times))
    expected = lagging + solved[1] + LATE_SHARE * stored
    assert [found.at(t) for t in times] == pytest.approx(expected, rel=1e-5)
    wide = [found.at(t, spread=0.5) for t in times]
    assert wide == pytest.approx(expected + 0.5 * lagging, rel=1e-5)
    assert found.highest_K >= max(expected) - 1e-3


@given(kelvin=KELVIN, time_fs=st.floats(0, 1e6))
def test_without_a_thermostat_heat_stays(kelvin, time_fs):
    found = warmth(protocol("nve"), kelvin)
    assert found.at(time_fs) == pytest.approx(found.at(0.0))


@pytest.mark.parametrize("ensemble", ["langevin", "nose-hoover"])
def test_a_thermostat_removes_heat(ensemble):
    """After ten lags all but the share for late heat is gone."""
    found = warmth(protocol(ensemble), 300.0)
    late = 300.0 + LATE_SHARE * found.stored_K
    assert found.at(0.0) == pytest.approx(late + found.stored_K)
    assert found.at(10 * found.lag_fs) == pytest.approx(late, abs=0.2)


@pytest.mark.parametrize(
    ("ensemble", "changes", "lag_fs"),
    [
        ("nose-hoover", {"thermostat_time_fs": 40.0}, 200.0),
        ("langevin", {"friction_per_fs": 0.02}, 250.0),
        ("nve", {}, np.inf),
    ],
)
def test_the_reference_lags_by_five_relaxation_times(ensemble, changes, lag_fs):
    assert warmth(protocol(ensemble, **changes), 300.0).lag_fs == lag_fs


def test_nothing_stored_is_the_target():
    how = protocol("langevin", criteria=Criteria(stored_energy_eV_per_atom=0))
    assert [warmth(how, 300.0).at(t) for t in (0.0, 1e5)] == [300.0, 300.0]


def test_hot_start_velocities_add_to_it():
    how = protocol("nve")
    assert warmth(how, 300.0, start_excess_K=500.0).at(9.0) == pytest.approx(
        warmth(how, 300.0).at(9.0) + 500.0 * (1 + LATE_SHARE)
    )
