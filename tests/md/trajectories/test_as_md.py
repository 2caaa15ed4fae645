"""`judge` of the frames that `md` itself recorded gives `md`'s events."""

from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.md import Protocol, run_stability
from nequip_decorr.md.trajectories.judge import judge_trajectories
from nequip_decorr.md.trajectories.opening import Reading
from nequip_decorr.md.trajectories.settings import Request
from tests.support.potentials import crystal, einstein
from tests.support.watching import OFF

#: All tests that positions alone can tell.
GEOMETRY = replace(
    OFF, min_distance_ratio=0.65, max_bond_deviation_A=0.7, isolation_ratio=1.3
)


def run(folder, criteria):
    protocol = Protocol(
        temperatures_K=(4000.0,),
        timestep_fs=2.0,
        horizon_ps=0.3,
        replicas=2,
        friction_per_fs=0.05,
        frame_interval_steps=1,
        record_interval_steps=100,
        criteria=criteria,
    )
    return run_stability(einstein, crystal(), protocol, output=folder)


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    """Each step of replicas that no test stops."""
    folder = tmp_path_factory.mktemp("recorded") / "run"
    return tuple(folder / r.trajectory for r in run(folder, OFF).replicas)


@pytest.mark.slow
@pytest.mark.parametrize(
    "criteria",
    [
        replace(GEOMETRY, max_bond_deviation_A=None, isolation_ratio=None),
        replace(GEOMETRY, min_distance_ratio=None, isolation_ratio=None),
        GEOMETRY,
    ],
    ids=["overlap", "bonds", "all"],
)
def test_the_same_events(tmp_path, criteria, recorded):
    expected = run(tmp_path / "judged-by-md", criteria)
    request = Request(
        paths=recorded,
        reading=Reading(),
        protocol=replace(expected_protocol(expected), criteria=criteria),
        given=frozenset({"temperatures_K", "horizon_ps", "timestep_fs", "until"}),
    )
    found = judge_trajectories(
        request, tmp_path / "judged", machine={}, warn=lambda _: None
    )
    assert any(r.unphysical for r in expected.replicas)
    for ours, theirs in zip(found.replicas, expected.replicas, strict=True):
        assert ours.time_ps == theirs.time_ps
        assert ours.censored_by == theirs.censored_by
        if theirs.unphysical is None:
            assert ours.unphysical is None
            continue
        for name in ("cause", "step", "time_ps", "atoms"):
            assert getattr(ours.unphysical, name) == getattr(theirs.unphysical, name)
        # extended XYZ has eight decimals
        value = theirs.unphysical.value
        assert np.isclose(ours.unphysical.value or 0, value or 0, atol=1e-6)


def expected_protocol(result):
    return Protocol.from_dict(result.protocol)
