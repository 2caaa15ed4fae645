"""Protocols to start from, by kind of question."""

from __future__ import annotations

from nequip_decorr.errors import UserError
from nequip_decorr.md.protocol import Criteria, Protocol, nearest_name

#: ``solid``: is a crystal or a glass held together at T? ``molecule``: do bonds hold
#: far above the training temperature? ``nve-drift``: is energy conserved (a
#: thermostat would hide it)? ``ramp``: heating from 300 to 3000 K, as MLIP Arena does.
PRESETS = {
    "solid": Protocol(),
    "molecule": Protocol(
        temperatures_K=(300.0, 600.0, 1200.0),
        timestep_fs=0.5,
        horizon_ps=100.0,
        record_interval_steps=100,
        frame_interval_steps=1000,
        criteria=Criteria(
            max_bond_deviation_A=0.5, fragment_ratio=1.5, isolation_ratio=None
        ),
    ),
    "nve-drift": Protocol(ensemble="nve"),
    "ramp": Protocol(ensemble="ramp", ramp_end_temperature_K=3000.0),
}


def preset(name: str) -> Protocol:
    """The protocol called ``name``.

    Raises:
        UserError: when there is none of that name.
    """
    if name not in PRESETS:
        raise UserError(
            f"expected a preset of {', '.join(PRESETS)}, "
            f"got {name!r}{nearest_name(name, PRESETS)}"
        )
    return PRESETS[name]
