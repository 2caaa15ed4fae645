"""Protocol of a stability run: ensemble, replicas, criteria and recording."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field, fields, replace
from typing import Any

from nequip_decorr.checks import (
    check_choice,
    check_keys,
    check_mapping,
    check_number,
    check_switch,
    check_whole,
    names_of,
)
from nequip_decorr.errors import UserError

ENSEMBLES = ("langevin", "nose-hoover", "nve", "ramp")

#: What ends a replica before its horizon.
UNTIL = ("first", "explosion")


@dataclass(frozen=True)
class Criteria:
    """Limits of a stable trajectory; None switches a test off.

    Non-finite numbers always count as a failure. If a limit must be exceeded for some
    time, the failure is dated to the end of that time; its message says when the limit
    was first exceeded.

    Attributes:
        max_displacement_A: largest displacement of an atom in one step; light atoms may
            move as far as ``max_atom_kinetic_eV`` would take them.
        max_force_eV_per_A: largest force on one atom.
        min_distance_ratio: shortest distance of a pair, relative to the sum of its
            covalent radii.
        runaway_sigma: the temperature may exceed its reference by this many canonical
            standard deviations, ``T sqrt(2 / Ndof)``, ...
        runaway_time_fs: ... for less than this time. The reference is the thermostat's
            target plus the heat that the start structure may still release; see
            :mod:`nequip_decorr.md.criteria.warmth`.
        stored_energy_eV_per_atom: potential energy of the start structure that may
            become heat; 0 for a start in equilibrium. A snapshot of a run at T stores
            3/2 kT (0.16 eV at 1200 K).
        max_temperature_K: temperature that must not be exceeded, even for one step.
        max_atom_kinetic_eV: largest kinetic energy of an atom, more than any bond can
            withstand; 40 kT of the reference if that is larger.
        max_bond_deviation_A: largest deviation of a bond from its length in the start
            structure (molecules).
        bond_confirm_fs: how long that deviation must last to count.
        fragment_ratio: having more fragments than the start structure has molecules is
            a failure. Pairs closer than this times the sum of their covalent radii
            belong to one fragment; in the start structure, pairs closer than 1.25 times
            that sum are bonded and belong to one molecule.
        isolation_ratio: a bonded atom of the start structure without any neighbour
            within this times its bond length (or the sum of the covalent radii, if that
            is longer) is a failure. Not tested above 1000 K if there is a void into
            which atoms can evaporate.
    """

    max_displacement_A: float | None = 0.5
    max_force_eV_per_A: float | None = 100.0
    min_distance_ratio: float | None = 0.6
    runaway_sigma: float | None = 10.0
    runaway_time_fs: float = 50.0
    stored_energy_eV_per_atom: float = 0.5
    max_temperature_K: float | None = 10_000.0
    max_atom_kinetic_eV: float | None = 10.0
    max_bond_deviation_A: float | None = None
    bond_confirm_fs: float = 10.0
    fragment_ratio: float | None = None
    isolation_ratio: float | None = 1.5

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if value is None and item.default is not None and item.type == "float":
                raise UserError(
                    f"expected a number for criteria.{item.name}, got null; to switch "
                    "the test off, set its limit to null instead"
                )
            if item.name == "stored_energy_eV_per_atom":
                check_number(f"criteria.{item.name}", value)
            elif value is not None:
                check_number(f"criteria.{item.name}", value, above=0)


@dataclass(frozen=True)
class Protocol:
    """How replicas are started, integrated, tested and recorded.

    Attributes:
        ensemble: one of :data:`ENSEMBLES`. ``langevin`` is BAOAB at constant T,
            ``nose-hoover`` a chain of three, ``ramp`` is Langevin with T rising (or
            falling) linearly from ``temperatures_K`` to ``ramp_end_temperature_K``
            over the horizon, ``nve`` has no thermostat.
        temperatures_K: target temperatures (for ``nve``, of the start velocities).
        ramp_end_temperature_K: final temperature of a ``ramp``.
        timestep_fs: MD time step.
        horizon_ps: simulated time per replica.
        friction_per_fs: Langevin friction (``langevin``, ``ramp``).
        thermostat_time_fs: time constant of the chain (``nose-hoover``).
        replicas: replicas per structure and temperature.
        seed: replica ``k`` of each has seed ``seed + k``.
        check_interval_steps: how often bonds, fragments and isolated atoms are tested;
            all other tests run at every step.
        record_interval_steps: how often temperature and energies are recorded.
        frame_interval_steps: how often positions are recorded; None for never.
        until: ``first`` ends a replica at its first event of either kind; ``explosion``
            records the first unphysical geometry and continues until the replica
            explodes.
        half_step_repeat: rerun each event from its last good frame at half the time
            step.
        keep_velocities: start from the velocities in the structure file, minus the
            centre-of-mass motion if the ensemble conserves it; replicas of a structure
            then differ only in the noise of their thermostat.
        drop_constraints: free atoms that are fixed in the structure file.
        structures: file of start structures, if the protocol names one.
        criteria: the limits.
    """

    ensemble: str = "langevin"
    temperatures_K: tuple[float, ...] = (300.0,)
    ramp_end_temperature_K: float | None = None
    timestep_fs: float = 1.0
    horizon_ps: float = 10.0
    friction_per_fs: float = 0.01
    thermostat_time_fs: float = 100.0
    replicas: int = 16
    seed: int = 0
    check_interval_steps: int = 5
    record_interval_steps: int = 10
    frame_interval_steps: int | None = 100
    until: str = "first"
    half_step_repeat: bool = False
    keep_velocities: bool = False
    drop_constraints: bool = False
    structures: str | None = None
    criteria: Criteria = field(default_factory=Criteria)

    def __post_init__(self) -> None:
        check_choice("ensemble", self.ensemble, ENSEMBLES)
        check_choice("until", self.until, UNTIL)
        _temperatures(self.temperatures_K)
        for name in (
            "timestep_fs",
            "horizon_ps",
            "friction_per_fs",
            "thermostat_time_fs",
        ):
            check_number(name, getattr(self, name), above=0)
        for name in ("replicas", "check_interval_steps", "record_interval_steps"):
            check_whole(name, getattr(self, name), least=1)
        check_whole(
            "frame_interval_steps", self.frame_interval_steps, least=1, null=True
        )
        check_whole("seed", self.seed, least=0)
        for name in ("half_step_repeat", "keep_velocities", "drop_constraints"):
            check_switch(name, getattr(self, name))
        _not_twice(self)
        if not self.horizon_ps * 1000 >= self.timestep_fs:
            raise UserError(
                f"expected a horizon of at least one step of {self.timestep_fs} fs, "
                f"got horizon_ps {self.horizon_ps}; lengthen it"
            )
        if (self.ensemble == "ramp") != (self.ramp_end_temperature_K is not None):
            raise UserError(
                "expected ramp_end_temperature_K with ensemble 'ramp' and only there, "
                f"got {self.ramp_end_temperature_K} with {self.ensemble!r}; "
                "give both or neither"
            )
        if self.ramp_end_temperature_K is not None:
            check_number("ramp_end_temperature_K", self.ramp_end_temperature_K, above=0)
        hottest = max([*self.temperatures_K, self.ramp_end_temperature_K or 0.0])
        limit = self.criteria.max_temperature_K
        if limit is not None and not hottest < limit:
            raise UserError(
                f"expected temperatures below criteria.max_temperature_K, got "
                f"{hottest:g} K with a limit of {limit:g} K; raise the limit"
            )

    @property
    def n_steps(self) -> int:
        """Steps to the horizon."""
        return math.ceil(round(self.horizon_ps * 1000 / self.timestep_fs, 6))

    def time_ps(self, step: int) -> float:
        """Time of a step in ps."""
        return step * self.timestep_fs / 1000

    def target_temperature_K(self, start_K: float, step: int) -> float:
        """Target temperature at a step of a replica that started at ``start_K``."""
        if self.ramp_end_temperature_K is None:
            return start_K
        return ramped_K(start_K, self.ramp_end_temperature_K, step / self.n_steps)

    def to_dict(self) -> dict[str, Any]:
        """Plain types, as written to YAML and to the result file."""
        data = asdict(self)
        data["temperatures_K"] = list(self.temperatures_K)
        return data

    @classmethod
    def from_dict(
        cls, data: Mapping[str, Any], base: Protocol | None = None
    ) -> Protocol:
        """A protocol from plain types; missing settings are taken from ``base``.

        Raises:
            UserError: for an unknown name (with the nearest known one) or an invalid
                value.
        """
        base = base or cls()
        data = dict(check_mapping("a protocol", data))
        check_keys("protocol", data, names_of(cls))
        if "criteria" in data:
            limits = dict(check_mapping("criteria", data["criteria"]))
            check_keys("criteria", limits, names_of(Criteria))
            data["criteria"] = replace(base.criteria, **limits)
        if "temperatures_K" in data:
            value = data["temperatures_K"]
            data["temperatures_K"] = (
                tuple(value) if isinstance(value, list | tuple) else (value,)
            )
        return replace(base, **data)


def ramped_K(start_K: float, end_K: float, share: float) -> float:
    """Target temperature after this fraction of a ramp (1 or more: the end)."""
    return start_K + min(share, 1.0) * (end_K - start_K)


def conserves_momentum(n_atoms: int, ensemble: str) -> bool:
    """Whether the total momentum is conserved, and thus removed at the start.

    Langevin noise moves the centre of mass as it does any other coordinate. A single
    atom keeps its momentum: it has no other.
    """
    return ensemble in ("nose-hoover", "nve") and n_atoms > 1


def degrees_of_freedom(n_atoms: int, ensemble: str) -> int:
    """Kinetic degrees of freedom: 3N, or 3N - 3 where total momentum is conserved."""
    return 3 * n_atoms - 3 * conserves_momentum(n_atoms, ensemble)


def _not_twice(protocol: Protocol) -> None:
    """Refuse replicas that would be identical."""
    noise = protocol.ensemble in ("langevin", "ramp")
    if not protocol.keep_velocities or noise:
        return
    if protocol.replicas > 1:
        raise UserError(
            f"expected one replica of each structure for keep_velocities with "
            f"{protocol.ensemble!r}, which has no noise, got {protocol.replicas} that "
            "would be the same; use replicas: 1 (--replicas 1)"
        )
    if protocol.ensemble == "nve" and len(protocol.temperatures_K) > 1:
        raise UserError(
            f"expected one of temperatures_K for keep_velocities with 'nve', which has "
            f"no thermostat, got {list(protocol.temperatures_K)}; give one"
        )


def _temperatures(values: object) -> None:
    if not isinstance(values, tuple) or not values:
        raise UserError(
            f"expected at least one temperature in temperatures_K, got {values!r}"
        )
    for value in values:
        check_number("temperatures_K", value, above=0)
    if len(set(values)) != len(values):
        raise UserError(
            f"expected different temperatures in temperatures_K, got {list(values)}; "
            "to run more replicas, raise `replicas`"
        )
