"""Remission times (weeks) of Freireich et al., Blood 21, 699 (1963).

With log white blood cell counts as printed in Kleinbaum and Klein, Survival Analysis
(3rd ed., Springer 2012), who work the Kaplan-Meier curve (ch. 2), its log-log limits
and the log-rank tests, plain (ch. 2: 16.79) and stratified by three classes of the
count (ch. 2: 10.14, expected failures 2.91, 7.36, 6.11).
"""

from __future__ import annotations

from nequip_decorr.md.results import Event, Replica

HORIZON = 35.0

#: (week, relapse, log white blood cell count)
SIX_MP = [
    (35, 0, 1.45),
    (34, 0, 1.47),
    (32, 0, 2.20),
    (32, 0, 2.53),
    (25, 0, 1.78),
    (23, 1, 2.57),
    (22, 1, 2.32),
    (20, 0, 2.01),
    (19, 0, 2.05),
    (17, 0, 2.16),
    (16, 1, 3.60),
    (13, 1, 2.88),
    (11, 0, 2.60),
    (10, 0, 2.70),
    (10, 1, 2.96),
    (9, 0, 2.80),
    (7, 1, 4.43),
    (6, 0, 3.20),
    (6, 1, 2.31),
    (6, 1, 4.06),
    (6, 1, 3.28),
]
PLACEBO = [
    (23, 1, 1.97),
    (22, 1, 2.73),
    (17, 1, 2.95),
    (15, 1, 2.30),
    (12, 1, 1.50),
    (12, 1, 3.06),
    (11, 1, 3.49),
    (11, 1, 2.12),
    (8, 1, 3.52),
    (8, 1, 3.05),
    (8, 1, 2.32),
    (8, 1, 3.26),
    (5, 1, 3.49),
    (5, 1, 3.97),
    (4, 1, 4.36),
    (4, 1, 2.42),
    (3, 1, 4.01),
    (2, 1, 4.91),
    (2, 1, 4.48),
    (1, 1, 2.80),
    (1, 1, 5.00),
]


def as_replicas(
    patients: list[tuple[int, int, float]], stratified: bool = True
) -> list[Replica]:
    """Patients as replicas; the class of the white cell count is the structure."""
    return [
        Replica(
            index=i,
            structure=int(count > 2.30) + int(count > 3.00) if stratified else 0,
            structure_name="patient",
            formula="X",
            n_atoms=1,
            temperature_K=300.0,
            seed=i,
            time_ps=float(week),
            unphysical=Event("overlap", week, float(week), "relapse")
            if relapse
            else None,
            censored_by=None if relapse else "horizon",
        )
        for i, (week, relapse, count) in enumerate(patients)
    ]
