"""The mean energy drift of a run, in words."""

from __future__ import annotations

import numpy as np
from scipy import stats

from nequip_decorr.md.report.quality import mean_drift
from nequip_decorr.md.statistics.drift import Drift


def drift(slope: float) -> Drift:
    return Drift(slope, 0.1, 0.0, 0.0, None, 1.0, 20)


def test_start_structures_are_the_units_of_the_interval() -> None:
    slopes = {0: (0.1, 0.3), 1: (0.5, 0.7), 2: (-0.9, -1.1)}
    fitted = [(number, drift(s)) for number, own in slopes.items() for s in own]
    means = np.array([0.2, 0.6, -1.0])
    half = stats.t.ppf(0.975, 2) * means.std(ddof=1) / np.sqrt(3)
    said = mean_drift(fitted)
    assert f"mean drift {means.mean():+.3g} ± {half:.2g} meV/atom/ps" in said
    assert said.endswith("over 3 structures), largest -1.1")


def test_replicas_of_one_structure_have_no_interval() -> None:
    assert mean_drift([(4, drift(0.1)), (4, drift(0.3))]) == (
        "mean drift +0.2 meV/atom/ps (2 replicas of one structure, no interval), "
        "largest +0.3"
    )


def test_a_single_replica_has_that_of_its_fit() -> None:
    half = stats.t.ppf(0.975, 3) * 0.1
    assert (
        mean_drift([(0, drift(0.1))]) == f"drift +0.1 ± {half:.2g} meV/atom/ps (95 %)"
    )
