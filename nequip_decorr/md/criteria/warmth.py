"""Reference temperature: how hot a sound replica may be.

A temperature far above the thermostat's target is not in itself a failure. A snapshot
of a hotter run, a strained cell or a fresh surface turns potential energy into heat; a
thermostat removes it at its own pace and lags behind a falling target; without a
thermostat, the heat stays. The reference is the target, plus the heat that the start
structure may release, minus what the thermostat has had time to remove.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ase import units

from nequip_decorr.md.protocol import Protocol, ramped_K

#: How many relaxation times of the thermostat the reference takes to follow the target.
#: Heat sits in potential and kinetic energy alike and a thermostat acts on the kinetic
#: half; Nose-Hoover chains overshoot several times before they settle.
LAG = 5.0

#: Share of the allowance that stays for ever: a crystallisation or a reaction may
#: release heat late, and a weak thermostat takes time to remove it.
LATE_SHARE = 0.1


@dataclass(frozen=True)
class Warmth:
    """Reference temperature as a function of time.

    This is the target T (or, if the target falls, R with ``dR/dt = (T - R) / lag``)
    plus the stored heat, which decays to a tenth with the same lag.

    Attributes:
        start_K: target at the start.
        end_K: target at the end of the ramp, else ``start_K``.
        ramp_fs: duration of the ramp.
        lag_fs: relaxation time of the reference; infinite without a thermostat.
        stored_K: rise in temperature if all of the start structure's stored energy
            became kinetic energy.
    """

    start_K: float
    end_K: float
    ramp_fs: float
    lag_fs: float
    stored_K: float

    def at(self, time_fs: float, spread: float = 0.0) -> float:
        """Reference temperature at a time since the start, K.

        Args:
            time_fs: the time.
            spread: relative fluctuation to allow for, excluding the stored heat.
        """
        rate = (self.end_K - self.start_K) / self.ramp_fs
        target = self.target_K(time_fs)
        left = math.exp(-time_fs / self.lag_fs)
        behind = rate * self.lag_fs * (1 - left) if rate else 0.0
        stored = self.stored_K * (left + LATE_SHARE)
        return max(target, target - behind) * (1 + spread) + stored

    def target_K(self, time_fs: float) -> float:
        """Target temperature at a time since the start, K."""
        return ramped_K(self.start_K, self.end_K, time_fs / self.ramp_fs)

    @property
    def hottest_target_K(self) -> float:
        """The highest target temperature."""
        return max(self.start_K, self.end_K)

    @property
    def highest_K(self) -> float:
        """The highest reference temperature between start and end."""
        return max(self.at(0.0), self.at(self.ramp_fs))


def warmth(
    protocol: Protocol, temperature_K: float, start_excess_K: float = 0.0
) -> Warmth:
    """The reference temperature of a replica.

    Args:
        protocol: ensemble, thermostat and the allowance for stored energy.
        temperature_K: target (``nve``: start) temperature of the replica.
        start_excess_K: start temperature minus target temperature.
    """
    times_fs = {
        "nve": math.inf,
        "nose-hoover": protocol.thermostat_time_fs,
        "langevin": 1 / protocol.friction_per_fs,
        "ramp": 1 / protocol.friction_per_fs,
    }
    end_K = protocol.ramp_end_temperature_K
    stored_eV = protocol.criteria.stored_energy_eV_per_atom
    return Warmth(
        start_K=temperature_K,
        end_K=temperature_K if end_K is None else end_K,
        ramp_fs=protocol.horizon_ps * 1000,
        lag_fs=LAG * times_fs[protocol.ensemble],
        stored_K=start_excess_K + stored_eV / (1.5 * units.kB),
    )
