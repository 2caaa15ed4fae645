"""Systems whose exact potentials cannot explode, and how each is simulated.

Every row of :data:`SYSTEMS` is a situation that people simulate: none may be called a
failure. Docs show the same table.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
from ase import Atoms
from ase.build import bulk
from ase.calculators.calculator import Calculator
from ase.calculators.emt import EMT

from nequip_decorr.md import Protocol, preset
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Job, MDState
from tests.support.matter import (
    HYDROGEN,
    IODINE,
    NITROGEN,
    Built,
    cluster,
    diatomics,
    lone,
    metal,
    noble,
    noble_drop,
    salt,
    slab,
    springs,
)


@dataclass(frozen=True)
class System:
    """A row of the table.

    Attributes:
        name: for people.
        build: makes the atoms and their exact potential.
        protocol: how it is simulated.
        equilibrated_K: temperature of the run that the start is a snapshot of; None
            starts from the lattice.
        slow: takes more than two seconds.
    """

    name: str
    build: Callable[[], Built]
    protocol: Protocol
    equilibrated_K: float | None = None
    slow: bool = field(default=True)

    def start(self) -> Built:
        """The start structure and its potential."""
        atoms, potential = self.build()
        if self.equilibrated_K is not None:
            atoms.positions = snapshot(
                atoms, potential, self.equilibrated_K, self.protocol.timestep_fs
            )
        return atoms, potential


class _Last:
    """An observer that lets a run go on for a number of steps."""

    def __init__(self, steps: int) -> None:
        self.steps = steps

    def before_forces(self, *_: Any) -> bool:
        return True

    def after_step(self, frame: Any, _: Any) -> bool:
        self.positions = frame.positions_A
        return bool(frame.step < self.steps)

    def fault(self, *_: Any) -> None:
        raise AssertionError("a sound potential raised")


def snapshot(
    atoms: Atoms, potential: Calculator, temperature_K: float, timestep_fs: float
) -> np.ndarray:
    """Positions after 150 steps of strongly damped dynamics at a temperature."""
    protocol = Protocol(
        temperatures_K=(temperature_K,), timestep_fs=timestep_fs, friction_per_fs=0.05
    )
    last = _Last(150)
    state = MDState(0, atoms.get_positions(), np.zeros((len(atoms), 3)))
    job = Job(0, atoms, temperature_K, (5,), state)
    engines.build("ase", potential, protocol).run([job], last)
    return last.positions


def at(
    temperature_K: float,
    ensemble: str = "langevin",
    *,
    ps: float = 1.0,
    dt: float = 4.0,
    base: Protocol | None = None,
    **changes: Any,
) -> Protocol:
    """A protocol of one replica."""
    return replace(
        base or Protocol(),
        ensemble=ensemble,
        temperatures_K=(temperature_K,),
        timestep_fs=dt,
        horizon_ps=ps,
        replicas=1,
        frame_interval_steps=None,
        **changes,
    )


def ramp(start_K: float, end_K: float, **changes: Any) -> Protocol:
    """From one temperature to another."""
    return at(start_K, "ramp", ramp_end_temperature_K=end_K, **changes)


WEAK = {"friction_per_fs": 0.001}
MOLECULES = preset("molecule")

SYSTEMS = [
    System("copper", metal_cu := lambda: metal("Cu"), at(300), slow=False),
    System("copper, snapshot of 1200 K", metal_cu, at(300), 1200),
    System("copper, snapshot of 1200 K", metal_cu, at(300, "nve"), 1200),
    System("copper, snapshot of 1200 K", metal_cu, at(300, "nose-hoover"), 1200),
    System(
        "copper, snapshot of 1200 K, weak friction", metal_cu, at(300, **WEAK), 1200
    ),
    System("copper, snapshot of 600 K", metal_cu, at(10), 600),
    System("copper, cooled", metal_cu, ramp(1200, 20), 1200),
    System("copper, cooled, weak friction", metal_cu, ramp(1200, 20, **WEAK), 1200),
    System("copper, heated", metal_cu, ramp(20, 1500)),
    System("copper, cold", metal_cu, at(10, "nose-hoover")),
    System("aluminium", lambda: metal("Al"), at(600, "nve", dt=2.0)),
    System("nickel", lambda: metal("Ni", 3), at(1000, "nose-hoover", ps=0.4)),
    System(
        "gold, 8 atoms", lambda: (bulk("Au", cubic=True) * (1, 1, 2), EMT()), at(500)
    ),
    System("platinum, liquid", lambda: metal("Pt"), at(3000)),
    System("platinum, liquid quenched", lambda: metal("Pt"), ramp(3000, 300), 3000),
    System("Cu3Au", lambda: metal("Cu", second="Au"), at(900, "nve"), 1500),
    System("Pd3Ag, heated", lambda: metal("Pd", second="Ag"), ramp(300, 2000)),
    System("copper slab with vacuum", slab, at(300, "nve")),
    System("copper slab with vacuum, hot", slab, at(1800)),
    System("gold atom on copper", lambda: slab("Au"), at(600, "nose-hoover")),
    System("gold atom on copper, hot", lambda: slab("Au"), at(2500)),
    System("copper cluster", cluster, at(600, "nve")),
    System("copper cluster, evaporating", cluster, at(3000)),
    System("argon, liquid", lambda: noble("Ar"), at(90, dt=8.0, ps=4.0)),
    System("argon, liquid", lambda: noble("Ar"), at(90, "nve", dt=8.0, ps=4.0), 140),
    System(
        "argon, liquid quenched",
        lambda: noble("Ar"),
        ramp(300, 10, dt=8.0, ps=4.0),
        300,
    ),
    System(
        "argon, crystal",
        lambda: noble("Ar", density=1.2),
        at(10, "nose-hoover", dt=8.0, ps=4.0),
    ),
    System(
        "argon, gas", lambda: noble("Ar", density=0.02), at(3000, "nve", dt=4.0, ps=4.0)
    ),
    System("argon, gas", lambda: noble("Ar", density=0.1), at(300, dt=8.0, ps=8.0)),
    System(
        "argon slab, evaporating",
        lambda: noble_drop("Ar", True),
        at(100, dt=8.0, ps=4.0),
    ),
    System(
        "argon drop, evaporating",
        lambda: noble_drop("Ar", False),
        at(90, "nve", dt=8.0, ps=4.0),
    ),
    System(
        "krypton, liquid",
        lambda: noble("Kr"),
        at(125, "nose-hoover", dt=8.0, ps=4.0),
        slow=False,
    ),
    System(
        "xenon, liquid", lambda: noble("Xe"), at(165, dt=8.0, ps=4.0), 165, slow=False
    ),
    System(
        "xenon, liquid, 2048 atoms",
        lambda: noble("Xe", 8),
        at(165, "nve", dt=8.0, ps=1.0),
        250,
    ),
    System("xenon, heated", lambda: noble("Xe", 4), ramp(20, 600, dt=8.0, ps=4.0)),
    System("rock salt", salt, at(300, "nve", dt=2.0)),
    System("rock salt, melting", lambda: salt(6.1), at(1400, dt=2.0, ps=2.0)),
    System("molten salt", lambda: salt(6.1), at(1100, "nose-hoover", dt=2.0), 1600),
    System("molten salt", lambda: salt(6.5), at(3000, dt=2.0)),
    System("molten salt, quenched", lambda: salt(6.1), ramp(1600, 100, dt=2.0), 1600),
    System(
        "nitrogen, crystal",
        lambda: diatomics("N", 3.9, **NITROGEN),
        at(20, "nose-hoover", dt=1.0),
    ),
    System(
        "nitrogen, liquid",
        lambda: diatomics("N", 3.9, **NITROGEN),
        at(77, "nve", dt=1.0),
        150,
    ),
    System("nitrogen, gas", lambda: diatomics("N", 8.0, **NITROGEN), at(1000, dt=1.0)),
    System(
        "nitrogen, gas",
        lambda: diatomics("N", 8.0, **NITROGEN),
        at(2000, dt=0.5, base=MOLECULES),
    ),
    System(
        "iodine, crystal",
        lambda: diatomics("I", 5.6, **IODINE),
        at(150, dt=4.0, base=MOLECULES),
    ),
    System(
        "iodine, heated",
        lambda: diatomics("I", 5.6, **IODINE),
        ramp(100, 600, dt=4.0, base=MOLECULES),
    ),
    System(
        "hydrogen, gas",
        lambda: diatomics("H", 6.0, **HYDROGEN),
        at(3000, "nve", dt=0.5),
    ),
    System(
        "one nitrogen molecule",
        lambda: lone("N2", **NITROGEN),
        at(1200, dt=0.5, base=MOLECULES),
        slow=False,
    ),
    System("spring crystal", springs, at(300, "nose-hoover"), slow=False),
    System("spring crystal, snapshot of 3000 K", springs, at(300), 3000, slow=False),
    System(
        "spring crystal, cold start", springs, at(3000, "nose-hoover"), 10, slow=False
    ),
    System(
        "spring crystal of hydrogen",
        lambda: springs(1, "H"),
        at(3000, dt=2.0),
        slow=False,
    ),
]
