"""The statistics of the evidence, on records whose answers are known."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy import stats

from benchmarks.hfox import analysis as a
from benchmarks.hfox.analysis import Record

CONDITIONS = ("hfo1.56_1200K", "hfo2_2400K")
X, Y = CONDITIONS


def record(
    variant: str,
    seed: int,
    *,
    times: Any = (1.0, 2.0),
    force: float = 0.2,
    rho: float = 0.5,
    barrier: float = 2.0,
) -> Record:
    """A record that holds what the analysis reads."""
    data = {
        "grid": "g",
        "variant": variant,
        "seed": seed,
        "md": {
            c: {
                "time_ps": list(times),
                "horizon_ps": 10.0,
                "rdf": {},
                "cause": ["overlap" if t < 10 else None for t in times],
            }
            for c in CONDITIONS
        },
        "errors": {
            name: {"forces_rmse": force, "per_atom_energy_rmse": 0.01}
            for name in (a.IN_DISTRIBUTION, *CONDITIONS)
        },
        "correlation": [{"mean_abs": rho, "effective_rank": 8.0, "channels": 32.0}],
        "scale": {"horizon_ps": 10.0},
        "cpu_s": 100.0,
        "nve_drift": [0.01, -0.02],
        "commit": "abc",
        "machine": {
            "processor": "x86_64",
            "cores": 2,
            "device": "cpu",
            "python": "3.11",
            "versions": {"torch": "2.13"},
        },
        "barriers": {
            c: {"Hf-Hf": {"barrier_eV": [barrier - 1, barrier + 1]}} for c in CONDITIONS
        },
    }
    return Record("g", variant, seed, data)


def test_time_held_is_the_geometric_mean_of_replicas() -> None:
    assert np.exp(a.log_time(record("none", 1, times=(1.0, 4.0)))) == pytest.approx(2)


def test_a_replica_that_failed_at_once_counts_as_one_step() -> None:
    assert np.exp(a.log_time(record("none", 1, times=(0.0,)))) == pytest.approx(0.002)


def test_effect_is_that_within_seeds_with_students_interval() -> None:
    # seeds differ by far more than the effect
    base = {1: 0.1, 2: 1.0, 3: 5.0}
    factor = {1: 2.0, 2: 3.0, 3: 2.5}
    records = [record("none", s, times=[t]) for s, t in base.items()]
    records += [record("other", s, times=[base[s] * f]) for s, f in factor.items()]
    found = a.paired(records, "other", a.log_time)
    assert found is not None
    logs = np.log(list(factor.values()))
    half = stats.t.ppf(0.975, 2) * logs.std(ddof=1) / np.sqrt(3)
    assert found.value == pytest.approx(logs.mean())
    assert (found.low, found.high) == pytest.approx(
        (logs.mean() - half, logs.mean() + half)
    )
    assert found.exp().value == pytest.approx(np.exp(logs.mean()))


def test_the_mean_over_seeds_has_the_interval_of_a_t_test() -> None:
    values = np.random.default_rng(0).normal(0.3, 1.0, 8)
    found = a.over_seeds(values.tolist())
    expected = stats.ttest_1samp(values, 0).confidence_interval(0.95)
    assert found.value == pytest.approx(values.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected))
    # seeds that all agree, as those of the baseline with itself do
    assert a.over_seeds([0.3, 0.3, 0.3]) == a.Estimate(0.3, 0.3, 0.3, 3)


def test_an_effect_needs_a_common_seed() -> None:
    records = [record("none", 1), record("other", 2)]
    assert a.paired(records, "other", a.log_time) is None


def test_one_seed_has_no_interval() -> None:
    found = a.paired([record("none", 1), record("other", 1)], "other", a.log_time)
    assert found is not None
    assert (found.low, found.high) == (-np.inf, np.inf)


def test_rank_correlation_looks_within_seeds_only() -> None:
    # within a seed perfectly opposed, over the seeds strongly aligned
    records = [
        record(f"v{i}", s, rho=0.01 * i + s, times=[10.0**s * (6 - i)])
        for s in (1, 2)
        for i in range(6)
    ]
    found = a.rank_correlation(records, a.mean_correlation, a.log_time)
    assert found.value == pytest.approx(-0.999)
    assert found.seeds == 2


def test_partial_rank_correlation_equals_the_closed_form() -> None:
    rng = np.random.default_rng(0)
    records = [
        record(
            f"v{i}",
            1,
            rho=float(rng.random()),
            force=float(rng.random()) + 0.1,
            times=[float(rng.random()) + 0.1],
        )
        for i in range(12)
    ]
    found = a.rank_correlation(records, a.mean_correlation, a.log_time, [a.force_error])
    columns = [
        [q(r) for r in records] for q in (a.mean_correlation, a.log_time, a.force_error)
    ]
    r = stats.spearmanr(np.array(columns).T).statistic
    expected = (r[0, 1] - r[0, 2] * r[1, 2]) / np.sqrt(
        (1 - r[0, 2] ** 2) * (1 - r[1, 2] ** 2)
    )
    assert found.value == pytest.approx(expected)


def test_rank_correlation_of_too_few_models_is_refused() -> None:
    with pytest.raises(ValueError, match="four models or more"):
        a.rank_correlation([record("none", 1)], a.mean_correlation, a.log_time)


def test_beyond_error_is_the_distance_from_the_line_of_the_controls() -> None:
    # time = seed * error^3 without the term; twice that with it
    errors = {"none": 0.2, "epochs-40": 0.25, "epochs-25": 0.3, "weight-decay": 0.22}
    records = [
        record(v, s, force=e, times=[s * e**3])
        for v, e in errors.items()
        for s in (1, 2, 3)
    ]
    records += [
        record("cosine-down", s, force=0.27, times=[2 * s * 0.27**3]) for s in (1, 2, 3)
    ]
    found = a.beyond_error(records, "cosine-down")
    assert found is not None
    assert found.exp().value == pytest.approx(2.0)
    assert found.exp().low == pytest.approx(2.0)


def scattered(rng: np.random.Generator) -> list[Record]:
    """A variant twice as stable as the controls, whose line is drawn on to reach it."""
    controls = ("none", "epochs-40", "epochs-25")
    records = []
    for seed in (1, 2, 3, 4):
        for variant in (*controls, "cosine-down"):
            far = variant == "cosine-down"
            error = float(np.exp(rng.normal(-0.5 if far else -1.6, 0.05)))
            log_time = seed + 3 * np.log(error) + rng.normal(0, 0.1)
            time = float(np.exp(log_time) * (2 if far else 1))
            records.append(record(variant, seed, force=error, times=[time]))
    return records


def test_beyond_error_covers_the_slope_of_the_line_through_the_controls() -> None:
    records = scattered(np.random.default_rng(0))
    found = a.beyond_error(records, "cosine-down")
    assert found is not None

    def table(variants: tuple[str, ...]) -> np.ndarray:
        chosen = [r for r in records if r.variant in variants]
        points = [[a.log_force_error(r), a.log_time(r)] for r in chosen]
        return np.reshape(points, (4, len(variants), 2))

    known = table(("none", "epochs-40", "epochs-25"))
    means = known.mean(axis=1, keepdims=True)
    line = stats.linregress(*(known - means).reshape(-1, 2).T)
    # it has spent a degree of freedom on the mean of each of four seeds, not of one
    error_of_slope = line.stderr * np.sqrt((12 - 2) / (12 - 5))
    x, y = (table(("cosine-down",)) - means).reshape(-1, 2).T
    distances = y - line.slope * x
    half = stats.t.ppf(0.975, 3) * np.hypot(
        stats.sem(distances), x.mean() * error_of_slope
    )
    assert found.value == pytest.approx(distances.mean())
    assert found.high - found.value == pytest.approx(half)
    assert found.value - found.low == pytest.approx(half)


def test_beyond_error_covers_the_truth_as_often_as_it_says() -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        found = a.beyond_error(scattered(rng), "cosine-down")
        assert found is not None
        covered += found.low < np.log(2) < found.high
    # 95 % less three standard errors; an interval that takes the line as known: 16 %
    assert covered / 200 > 0.90


def test_beyond_error_needs_controls() -> None:
    records = [record("none", 1), record("cosine-down", 1)]
    assert a.beyond_error(records, "cosine-down") is None


def test_best_variant_holds_longest() -> None:
    records = [record(v, s) for v in ("none", "sam") for s in (1, 2)]
    records += [record("cosine-down", s, times=[2.0, 3.0]) for s in (1, 2)]
    records += [record("cosine-up", s, times=[2.0, 2.0]) for s in (1, 2)]
    assert a.best_variant(records) == "cosine-down"


def test_best_variant_needs_decorrelated_models() -> None:
    with pytest.raises(ValueError, match="decorrelated"):
        a.best_variant([record("none", 1)])


def test_quantities_average_over_layers_pairs_and_conditions() -> None:
    r = record("none", 1, rho=0.4, force=0.3)
    r.data["errors"][X]["forces_rmse"] = 1.2
    assert a.mean_correlation(r) == pytest.approx(0.4)
    assert a.effective_rank(r) == pytest.approx(0.25)
    assert a.barrier(r) == pytest.approx(2.0)
    assert a.force_error_out(r) == pytest.approx(0.6)  # sqrt(1.2 * 0.3)
    assert np.isnan(a.rdf_error(r))
    r.data["md"][X]["rdf"] = {"Hf-Hf": {"error": 1.0}, "O-O": {"error": 2.0}}
    assert a.rdf_error(r) == pytest.approx(1.5)


def test_records_are_read_back(tmp_path: Path) -> None:
    for seed in (2, 1):
        written = record("none", seed).data
        (tmp_path / f"g_none_{seed}.json").write_text(json.dumps(written))
    assert a.load_records(tmp_path) == [record("none", 1), record("none", 2)]
