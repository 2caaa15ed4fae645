"""Nothing that a user simulates with a sound potential may be called a failure."""

import pytest

from nequip_decorr.md import run_stability
from tests.unit.md.systems import SYSTEMS


def test_the_table_covers_what_it_claims():
    assert len(SYSTEMS) >= 40
    assert {s.protocol.ensemble for s in SYSTEMS} == {
        "langevin",
        "nose-hoover",
        "nve",
        "ramp",
    }
    temperatures = [t for s in SYSTEMS for t in s.protocol.temperatures_K]
    assert min(temperatures) <= 10
    assert max(temperatures) >= 3000


@pytest.mark.filterwarnings("ignore:the cell of")
@pytest.mark.parametrize(
    "system",
    [
        pytest.param(
            system,
            id=f"{number}-{system.name}-{system.protocol.ensemble}",
            marks=[pytest.mark.slow] if system.slow else [],
        )
        for number, system in enumerate(SYSTEMS)
    ],
)
def test_a_sound_system_survives(system, tmp_path):
    atoms, potential = system.start()
    result = run_stability(potential, atoms, system.protocol, output=tmp_path)
    (replica,) = result.replicas
    assert replica.failure is None
    assert replica.time_ps == system.protocol.horizon_ps
