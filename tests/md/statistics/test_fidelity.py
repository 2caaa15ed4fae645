"""The temperature of a run, and how true its structure is to a reference."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import ase.io
import numpy as np
import pytest
from ase.build import bulk

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import degrees_of_freedom
from nequip_decorr.md.results import Event, Trace, load
from nequip_decorr.md.statistics.fidelity import (
    add_fidelity,
    frames_between,
    measure_fidelity,
    stable_window,
    temperature_check,
)
from tests.support.rattled import rattled
from tests.support.synthetic import replica, run

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


def test_error_of_the_mean_temperature_is_over_replicas():
    """Replicas that differ in their mean, as slow ones do, and in their length."""
    rng = np.random.default_rng(9)
    means, errors = [], []
    for _ in range(200):
        replicas = []
        for i, end in enumerate([2.0, 5.0, 10.0, 10.0, 10.0, 10.0, 7.0, 3.0]):
            time = np.arange(0, end, 0.1)
            kelvin = 300 + 5 * rng.standard_normal() + rng.standard_normal(len(time))
            trace = Trace(tuple(time), tuple(kelvin), tuple(time), tuple(time))
            replicas.append(replica(i, time_ps=end, temperature_K=300.0, trace=trace))
        check = temperature_check(replicas, 300.0, "langevin")
        means.append(check.mean_K)
        errors.append(check.mean_error_K)
    assert np.sqrt(np.mean(np.square(errors))) == pytest.approx(np.std(means), rel=0.15)


def test_error_of_the_mean_temperature_of_one_replica_is_from_blocks():
    rng = np.random.default_rng(9)
    time = np.arange(0, 10, 0.1)
    kelvin = 300 + rng.standard_normal(100)
    trace = Trace(tuple(time), tuple(kelvin), tuple(time), tuple(time))
    made = replica(0, time_ps=10.0, temperature_K=300.0, trace=trace)
    check = temperature_check([made], 300.0, "langevin")
    blocks = kelvin[20:].reshape(5, 16).mean(axis=1)
    assert check.mean_error_K == pytest.approx(blocks.std(ddof=1) / np.sqrt(5))


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
    frames = frames_between(folder / failed.trajectory, *stable_window(failed))
    times = [atoms.info["time_ps"] for atoms in frames]
    assert times == pytest.approx(np.arange(4, 20) * 0.1)


def test_what_is_measured_is_json(recorded):
    result, folder, reference = recorded
    found = measure_fidelity(result, folder, reference)
    assert json.loads(json.dumps(found, allow_nan=False))["notes"] == []
    (group,) = found["distributions"]
    assert group["formula"] == "Cl32Na32"
    assert group["n_frames"] == 16
    assert group["window_ps"] == pytest.approx([0.4, 1.9])
    for pair in group["pairs"].values():
        assert 0 < pair["error"] < 2 * pair["reference_error"]
        assert pair["error"] == pytest.approx(pair["floor"], rel=0.5)
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
        "0.575 A), so the error covers only these"
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
        result.replicas[0], time_ps=0.0, unphysical=Event("overlap", 0, 0.0, "m")
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
