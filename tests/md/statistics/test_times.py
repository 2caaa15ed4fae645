from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md.statistics.times import (
    Times,
    event_table,
    follow_up,
    not_followed,
)
from tests.support.synthetic import replica

TAU = 10.0


def table(*replicas, kind="unphysical"):
    return event_table(replicas, TAU, kind)


def test_the_last_step_may_end_a_hair_from_the_horizon():
    time, failed = table(
        replica(0, time_ps=10.002), replica(1, time_ps=TAU * (1 - 1e-12))
    )
    assert time.tolist() == [TAU, TAU]
    assert not failed.any()


def test_an_event_after_the_horizon_is_none():
    time, failed = table(
        replica(0, time_ps=10.002, cause="overlap"),
        replica(1, time_ps=TAU * (1 + 1e-12), cause="overlap"),
        replica(2, time_ps=9.998, cause="overlap"),
    )
    assert time.tolist() == [TAU, TAU, 9.998]
    assert failed.tolist() == [False, True, True]


def test_each_kind_has_its_own_times():
    both = replace(
        replica(0, time_ps=4.0, cause="blowup"),
        unphysical=replica(0, time_ps=1.0, cause="overlap").unphysical,
    )
    exploded = replica(1, time_ps=3.0, cause="runaway")
    survived = replica(2, time_ps=TAU)
    lost = replica(3, time_ps=2.0, censored_by="interrupt")
    wider = replica(4, time_ps=2.0, censored_by="not_followed")
    replicas = [both, exploded, survived, lost, wider]
    time, failed = table(*replicas)
    assert time.tolist() == [1, 3, TAU, 2, 2]
    assert failed.tolist() == [True, False, False, False, False]
    assert not_followed(replicas, TAU, "unphysical").tolist() == [0, 1, 0, 0, 1]
    # one that was followed to the horizon ended there
    assert not_followed(replicas, 3.0, "unphysical").tolist() == [0, 0, 0, 0, 1]
    time, failed = table(*replicas, kind="explosion")
    assert time.tolist() == [4, 3, TAU, 2, 2]
    assert failed.tolist() == [True, True, False, False, False]
    assert not_followed(replicas, TAU, "explosion").tolist() == [0, 0, 0, 0, 1]


@pytest.mark.parametrize(
    ("time", "failed", "until"),
    [
        ([1, 4], [True, False], 4),
        ([1, 4], [False, True], TAU),
        ([4, 4], [True, False], 4),
        ([0, 0], [False, False], TAU),
        ([1, TAU], [True, False], TAU),
    ],
    ids=["censored-last", "failed-last", "tie", "nothing", "horizon"],
)
def test_how_long_the_curve_is_known(time, failed, until):
    assert follow_up(Times(np.array(time, dtype=float), np.array(failed)), TAU) == until


@pytest.mark.parametrize("horizon", [0.0, -1.0, float("nan"), float("inf")])
def test_horizon_must_be_a_time(horizon):
    with pytest.raises(UserError, match="horizon > 0"):
        event_table([replica(0, time_ps=1.0)], horizon, "unphysical")


@pytest.mark.parametrize("time", [-1.0, float("nan"), float("inf")])
def test_times_must_be_times(time):
    with pytest.raises(UserError, match="times >= 0"):
        table(replace(replica(0, time_ps=1.0), time_ps=time))


def test_no_replicas():
    with pytest.raises(UserError, match="at least one replica"):
        table()
