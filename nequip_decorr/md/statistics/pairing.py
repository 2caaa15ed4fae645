"""Pairs of equivalent replicas of two runs."""

from __future__ import annotations

from collections.abc import Sequence

from nequip_decorr.errors import UserError
from nequip_decorr.md.results import Replica, RunResult
from nequip_decorr.nested import differing

#: What a protocol may differ in without changing what a replica is put through: the
#: replicas themselves (paired one by one), what is recorded of them, and how long they
#: are followed after an unphysical geometry.
NOT_COMPARED = (
    "structures",
    "temperatures_K",
    "replicas",
    "seed",
    "until",
    "record_interval_steps",
    "frame_interval_steps",
    "half_step_repeat",
)


def pair_replicas(
    first: RunResult, second: RunResult, names: tuple[str, str]
) -> list[tuple[Replica, Replica]]:
    """Replicas with the same structure, temperature and seed in both runs.

    Raises:
        UserError: if the horizon, time step, ensemble or another part of the protocol
            differs, structures differ, a replica occurs twice, or no replica is in
            both runs.
    """
    _check_same_protocol(first, second, names)
    tables = [
        _by_key(run.replicas, name)
        for run, name in zip((first, second), names, strict=True)
    ]
    pairs = [
        (replica, tables[1][key])
        for key, replica in tables[0].items()
        if key in tables[1]
    ]
    if not pairs:
        raise UserError(
            f"expected replicas of the same structure, temperature and seed in "
            f"{names[0]} and {names[1]}, got none; run both with the same protocol"
        )
    for a, b in pairs:
        if not (a.formula == b.formula and a.n_atoms == b.n_atoms):
            raise UserError(
                f"expected the same start structures, got {a.formula} in {names[0]} "
                f"and {b.formula} in {names[1]} as structure {a.structure}; run both "
                "with one file of structures"
            )
        hashes = a.structure_sha256, b.structure_sha256
        if None not in hashes and hashes[0] != hashes[1]:
            raise UserError(
                f"expected the same start structures, got another {a.formula} in "
                f"{names[1]} than in {names[0]} as structure {a.structure} (their "
                "positions, velocities, cells or masses differ); run both with one "
                "file of structures"
            )
    return pairs


def protocol_differences(
    first: RunResult, second: RunResult, names: tuple[str, str]
) -> list[str]:
    """Differences between the protocols of two runs, one phrase each."""
    one, two = (
        {k: v for k, v in run.protocol.items() if k not in NOT_COMPARED}
        for run in (first, second)
    )
    return [
        f"{key}: {a} in {names[0]}, {b} in {names[1]}"
        for key, a, b in differing(one, two, absent="nothing")
    ]


def _check_same_protocol(
    first: RunResult, second: RunResult, names: tuple[str, str]
) -> None:
    differences = protocol_differences(first, second, names)
    if differences:
        raise UserError(
            f"expected runs of one protocol, got {'; '.join(differences)}; run both "
            "with the same protocol file"
        )


def _by_key(
    replicas: Sequence[Replica], name: str
) -> dict[tuple[int | str, float, int], Replica]:
    table: dict[tuple[int | str, float, int], Replica] = {}
    for replica in replicas:
        if replica.key in table:
            raise UserError(
                f"expected every structure, temperature and seed once, got structure "
                f"{replica.structure} at {replica.temperature_K:g} K with seed "
                f"{replica.seed} twice in {name}; the result file is damaged"
            )
        table[replica.key] = replica
    return table
