from __future__ import annotations

from dataclasses import replace

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md.statistics.pairing import pair_replicas
from tests.support.synthetic import run


def pairs_of(first, second):
    return pair_replicas(first, second, ("A", "B"))


def test_pairs_have_one_key():
    first = run(n_structures=8, replicas=3, temperatures_K=(300.0, 600.0))
    second = run(n_structures=8, replicas=2, temperatures_K=(600.0, 900.0), seed=1)
    shuffled = replace(second, replicas=second.replicas[::-1])
    pairs = pairs_of(first, shuffled)
    assert len(pairs) == 16
    assert all(a.key == b.key for a, b in pairs)


def test_a_run_that_went_on_after_an_unphysical_geometry_can_be_compared():
    first = run()
    second = replace(first, protocol={**first.protocol, "until": "explosion"})
    assert len(pairs_of(first, second)) == 16


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"horizon_ps": 20.0}, "horizon_ps: 10.0 in A, 20.0 in B"),
        ({"timestep_fs": 2.0}, "timestep_fs: 1.0 in A, 2.0 in B"),
        ({"ensemble": "nve"}, "ensemble: langevin in A, nve in B"),
    ],
    ids=["horizon", "timestep", "ensemble"],
)
def test_another_protocol_is_refused(change, message):
    other = replace(run(), protocol={**run().protocol, **change})
    with pytest.raises(UserError, match=message):
        pairs_of(run(), other)


def test_other_criteria_are_refused():
    first = run()
    criteria = {**first.protocol["criteria"], "max_force_eV_per_A": 50.0}
    second = replace(first, protocol={**first.protocol, "criteria": criteria})
    with pytest.raises(
        ValueError, match=r"criteria.max_force_eV_per_A: 100.0 in A, 50.0 in B"
    ):
        pairs_of(first, second)


def test_what_is_recorded_may_differ():
    first = run()
    protocol = {**first.protocol, "record_interval_steps": 1, "replicas": 99}
    assert len(pairs_of(first, replace(first, protocol=protocol))) == 16


def test_a_setting_that_only_one_has_is_refused():
    first = run()
    second = replace(first, protocol={**first.protocol, "new_setting": 1})
    with pytest.raises(UserError, match="new_setting: nothing in A, 1 in B"):
        pairs_of(first, second)


def test_other_structures_are_refused():
    first = run()
    others = tuple(replace(r, formula="Zr32O64") for r in first.replicas)
    with pytest.raises(UserError, match="Hf32O64 in A and Zr32O64 in B"):
        pairs_of(first, replace(first, replicas=others))


def test_nothing_in_common_is_refused():
    first = run(temperatures_K=(300.0,))
    with pytest.raises(UserError, match="got none"):
        pairs_of(first, run(temperatures_K=(600.0,)))


def test_a_replica_that_is_there_twice_is_refused():
    first = run()
    twice = replace(first, replicas=(*first.replicas, first.replicas[0]))
    with pytest.raises(UserError, match="twice in B"):
        pairs_of(first, twice)
