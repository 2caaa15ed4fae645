"""Nothing that a user simulates with a sound potential may be called a failure."""

from pathlib import Path

import pytest

from nequip_decorr.md import run_stability
from tests.support.systems import SYSTEMS


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


def table() -> str:
    """The systems as they stand in the documentation."""
    lines = [
        "| system | atoms | ensemble | temperature, K | start, K | step, fs | ps |",
        "|---|---|---|---|---|---|---|",
    ]
    for system in SYSTEMS:
        how = system.protocol
        kelvin = f"{how.temperatures_K[0]:g}"
        if how.ramp_end_temperature_K is not None:
            kelvin += f" to {how.ramp_end_temperature_K:g}"
        start = system.equilibrated_K
        cells = (
            system.name,
            len(system.build()[0]),
            how.ensemble,
            kelvin,
            "lattice" if start is None else f"{start:g}",
            f"{how.timestep_fs:g}",
            f"{how.horizon_ps:g}",
        )
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def test_the_documentation_shows_this_table():
    docs = Path(__file__).parents[3] / "docs" / "md_criteria.md"
    assert docs.read_text(encoding="utf-8").rstrip().endswith(table())


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
    assert replica.first is None
    assert replica.time_ps == system.protocol.horizon_ps
