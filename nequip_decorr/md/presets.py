"""Ready-made protocols, and protocols read from YAML files."""

from __future__ import annotations

from pathlib import Path

from nequip_decorr.checks import check_choice, check_mapping
from nequip_decorr.md.files import read_yaml
from nequip_decorr.md.protocol import Criteria, Protocol

#: ``solid``: is a crystal or a glass stable at T? ``molecule``: do bonds survive far
#: above the training temperature? ``nve-drift``: is energy conserved (a
#: thermostat would hide a drift)? ``ramp``: heating from 300 to 3000 K, as MLIP Arena
#: does.
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
        UserError: if there is no preset of that name.
    """
    check_choice("preset", name, PRESETS)
    return PRESETS[name]


def read_protocol(path: str | Path) -> Protocol:
    """Read a protocol in YAML; a ``preset:`` key names the preset it builds on.

    Raises:
        UserError: if the file does not exist or is not YAML, or as
            :meth:`Protocol.from_dict`.
    """
    return protocol_and_keys(Path(path))[0]


def protocol_and_keys(path: Path) -> tuple[Protocol, frozenset[str]]:
    """A protocol in YAML, and the keys that are in the file.

    Raises:
        UserError: as :func:`read_protocol`.
    """
    data = check_mapping(f"a protocol in {path}", read_yaml(path, "a protocol") or {})
    name = data.get("preset")
    own = {key: value for key, value in data.items() if key != "preset"}
    base = None if name is None else preset(name)
    return Protocol.from_dict(own, base=base), frozenset(data)
