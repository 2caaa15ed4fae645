"""Statistics of the records, each with its interval. Pure functions.

The unit of inference is the training seed: models of one seed share initial weights,
data order, start structures and thermal noise, and differ in the variant alone. So
every effect is a difference within a seed, and its interval is Student's over seeds.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import statsmodels.formula.api as smf
from scipy import stats
from statsmodels.stats.weightstats import DescrStatsW

from nequip_decorr.errors import UserError

from .models import BORROWED, CONTROLS, DECORRELATED
from .pipeline import TIMESTEP_FS

BASELINE = "none"
IN_DISTRIBUTION = "hfo2_test"


@dataclass(frozen=True)
class Record:
    """What was measured of one model; see :func:`pipeline.measure`."""

    grid: str
    variant: str
    seed: int
    data: dict[str, Any]

    @property
    def conditions(self) -> tuple[str, ...]:
        """Compositions and temperatures that MD was run at."""
        return tuple(self.data["md"])

    def times_ps(self, condition: str) -> np.ndarray:
        """Time to failure of each replica, or the horizon; at least one step."""
        return np.maximum(self.data["md"][condition]["time_ps"], TIMESTEP_FS / 1000)


@dataclass(frozen=True)
class Estimate:
    """A mean over seeds with its 95 % interval; infinite with one seed."""

    value: float
    low: float
    high: float
    seeds: int

    def exp(self) -> Estimate:
        """Exponentiate a log-ratio and its interval."""
        low, value, high = np.exp([self.low, self.value, self.high])
        return Estimate(float(value), float(low), float(high), self.seeds)


Quantity = Callable[[Record], float]


def load_records(folder: Path) -> list[Record]:
    """All records of a folder, in order of their names."""
    records = []
    for path in sorted(folder.glob("*.json")):
        data = json.loads(path.read_text())
        records.append(Record(data["grid"], data["variant"], data["seed"], data))
    return records


def log_time(record: Record, conditions: Iterable[str] | None = None) -> float:
    """Mean over replicas, then conditions, of the logarithm of :meth:`times_ps`."""
    chosen = record.conditions if conditions is None else conditions
    return float(np.mean([np.log(record.times_ps(c)).mean() for c in chosen]))


def mean_time(record: Record, conditions: Iterable[str] | None = None) -> float:
    """Mean over replicas, then conditions, of the time to failure (ps), or the horizon.

    The score of ``nequip-decorr md`` times the horizon. The few longest-lived replicas
    dominate it, while :func:`log_time` reflects typical ones.
    """
    chosen = record.conditions if conditions is None else conditions
    return float(np.mean([record.times_ps(c).mean() for c in chosen]))


def survivors(records: Iterable[Record]) -> tuple[int, int]:
    """Replicas that reached the horizon, and all."""
    runs = [run for r in records for run in r.data["md"].values()]
    causes = [cause for run in runs for cause in run["cause"]]
    return sum(cause is None for cause in causes), len(causes)


def surviving_share(record: Record) -> float:
    """Share of replicas that reached the horizon."""
    survived, total = survivors([record])
    return survived / total


def force_error(record: Record, test_set: str = IN_DISTRIBUTION) -> float:
    """Root mean square error of forces, eV/A."""
    return float(record.data["errors"][test_set]["forces_rmse"])


def log_force_error(record: Record) -> float:
    """Logarithm of the force error in distribution."""
    return float(np.log(force_error(record)))


def energy_error(record: Record, test_set: str = IN_DISTRIBUTION) -> float:
    """Root mean square error of energies, eV/atom."""
    return float(record.data["errors"][test_set]["per_atom_energy_rmse"])


def log_energy_error(record: Record) -> float:
    """Its logarithm."""
    return float(np.log(energy_error(record)))


def force_error_out(record: Record) -> float:
    """Its geometric mean over the sets out of distribution."""
    return _out(record, force_error)


def energy_error_out(record: Record) -> float:
    """The same of energies."""
    return _out(record, energy_error)


def _out(record: Record, error: Callable[[Record, str], float]) -> float:
    logs = [np.log(error(record, c)) for c in record.conditions]
    return float(np.exp(np.mean(logs)))


def mean_correlation(record: Record) -> float:
    """Mean |rho| over layers, in distribution."""
    return float(np.mean([layer["mean_abs"] for layer in record.data["correlation"]]))


def effective_rank(record: Record) -> float:
    """Mean over layers of effective rank / channels."""
    layers = record.data["correlation"]
    return float(np.mean([x["effective_rank"] / x["channels"] for x in layers]))


def rdf_error(record: Record) -> float:
    """Mean error of g(r) over pairs and conditions, A; NaN where MD was too short."""
    found = [
        pair["error"]
        for run in record.data["md"].values()
        for pair in run["rdf"].values()
    ]
    return float(np.mean(found)) if found else float("nan")


def barrier(record: Record, pair: str = "Hf-Hf") -> float:
    """Mean energy (eV) that it costs a pair to come as close as a failure."""
    found = [scans[pair]["barrier_eV"] for scans in record.data["barriers"].values()]
    return float(np.mean(np.concatenate(found)))


def over_seeds(values: Sequence[float]) -> Estimate:
    """Mean with Student's interval."""
    if len(values) < 2:
        return Estimate(float(values[0]), float("-inf"), float("inf"), 1)
    found = DescrStatsW(values)
    low, high = found.tconfint_mean(0.05)
    return Estimate(float(found.mean), float(low), float(high), len(values))


def of_section(records: Iterable[Record], name: str) -> list[Record]:
    """Models of a section, with those that it is compared with."""
    grid, variants = BORROWED.get(name, (name, ()))
    own = [r for r in records if r.grid == name]
    seeds = {r.seed for r in own}
    borrowed = [
        r
        for r in records
        if r.grid == grid and r.variant in variants and r.seed in seeds
    ]
    return own + borrowed


def by_seed(records: Iterable[Record], variant: str) -> dict[int, Record]:
    """The models of a variant."""
    return {r.seed: r for r in records if r.variant == variant}


def paired(
    records: Sequence[Record],
    variant: str,
    quantity: Quantity,
    baseline: str = BASELINE,
) -> Estimate | None:
    """Mean difference from the baseline, within seeds; None without a common seed."""
    found = differences(records, variant, quantity, baseline)
    return over_seeds(found) if found else None


def ratio(
    records: Sequence[Record], variant: str, quantity: Quantity
) -> Estimate | None:
    """Ratio of a positive quantity to the baseline's, of geometric means."""
    found = paired(records, variant, lambda r: float(np.log(quantity(r))))
    return found.exp() if found else None


def differences(
    records: Sequence[Record],
    variant: str,
    quantity: Quantity,
    baseline: str = BASELINE,
) -> list[float]:
    """Difference from the baseline for each seed that both have."""
    models, others = by_seed(records, variant), by_seed(records, baseline)
    common = sorted(models.keys() & others.keys())
    return [quantity(models[s]) - quantity(others[s]) for s in common]


def rank_correlation(
    records: Sequence[Record],
    first: Quantity,
    second: Quantity,
    given: Sequence[Quantity] = (),
) -> Estimate:
    """Spearman's correlation within each seed, averaged over seeds (Fisher's z).

    Ranks are taken within a seed, so that what seeds differ in does not enter. With
    ``given`` it is the partial correlation: what their ranks explain linearly is taken
    out of both.
    """
    found = []
    for seed in sorted({r.seed for r in records}):
        models = [r for r in records if r.seed == seed]
        if len(models) < len(given) + 4:
            continue
        columns = [[q(r) for r in models] for q in (first, second, *given)]
        found.append(_partial(*(stats.rankdata(c) for c in columns)))
    if not found:
        raise UserError("expected a seed with four models or more, got none")
    z = over_seeds(np.arctanh(np.clip(found, -0.999, 0.999)).tolist())
    low, value, high = np.tanh([z.low, z.value, z.high])
    return Estimate(float(value), float(low), float(high), z.seeds)


def _partial(x: np.ndarray, y: np.ndarray, *given: np.ndarray) -> float:
    design = np.column_stack([np.ones(len(x)), *given])
    x, y = (v - design @ np.linalg.lstsq(design, v)[0] for v in (x, y))
    return float(x @ y / np.sqrt((x @ x) * (y @ y)))


def beyond_error(records: Sequence[Record], variant: str) -> Estimate | None:
    """Log time to failure beyond that of models of equal force error without the term.

    Least squares through the controls (no decorrelation; trained shorter, with weight
    decay, with noise), log time against log force error in distribution, with an
    intercept for each seed; the mean distance of the variant's models from that line.
    The interval is Student's over seeds, with the standard error of the line's slope
    added: one regression over all models would take the effect for the same in every
    seed, and its interval would be far too narrow. None for the controls themselves,
    and where there are too few.
    """
    if variant in CONTROLS:
        return None
    controls = [r for r in records if r.variant in (BASELINE, *CONTROLS)]
    models = by_seed(records, variant)
    seeds = sorted({r.seed for r in controls} & models.keys())
    controls = [r for r in controls if r.seed in seeds]
    if len(controls) < len(seeds) + 2:
        return None
    known, ours = _table(controls), _table([models[s] for s in seeds])
    line = smf.ols("time ~ error + C(seed)", known).fit()
    distances = over_seeds((ours["time"] - line.predict(ours)).tolist())
    if distances.seeds < 2:
        return distances
    centres = known.groupby("seed")["error"].mean().to_numpy()
    reach = (ours["error"].to_numpy() - centres).mean()
    quantile = stats.t.ppf(0.975, distances.seeds - 1)
    own = distances.high - distances.value
    half = float(np.hypot(own, quantile * reach * line.bse["error"]))
    value = distances.value
    return Estimate(value, value - half, value + half, distances.seeds)


def _table(records: Sequence[Record]) -> pd.DataFrame:
    return pd.DataFrame(
        {
            "seed": [r.seed for r in records],
            "time": [log_time(r) for r in records],
            "error": [log_force_error(r) for r in records],
        }
    )


def best_variant(records: Sequence[Record]) -> str:
    """The decorrelated variant with the longest time to failure on average."""
    found = {
        variant: estimate.value
        for variant in DECORRELATED
        if (estimate := paired(records, variant, log_time)) is not None
    }
    if not found:
        raise UserError("expected records of decorrelated models, got none")
    return max(found, key=found.__getitem__)
