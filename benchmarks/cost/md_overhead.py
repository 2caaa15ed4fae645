"""Time of a run outside the model and the integrator, step by step.

The run is that of the command, with an engine (this module is one, see
:mod:`nequip_decorr.md.dynamics.engines`) that times its calls of the model and of the
observer, which checks criteria, records, saves and shows progress. Both times come from
the same steps.
"""

from __future__ import annotations

import io
import tempfile
import time
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import ase.io
import numpy as np
from ase import Atoms
from rich.console import Console
from scipy import stats

from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, run_stability
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Engine, Frame, Job, Observer

from ..common import ROOT

STRUCTURES = ROOT / "configs" / "data" / "hfo2_train.extxyz"
TEMPERATURE_K = 300.0
#: parts of a run whose ratios are taken, and steps at its start that are not counted
BLOCKS, WARM_UP_STEPS = 25, 20


def structure(n_atoms: int) -> Atoms:
    """HfO2, 24 atoms or 96."""
    atoms: Atoms = ase.io.read(STRUCTURES, 0)
    atoms.calc = None
    return atoms if n_atoms == len(atoms) else atoms.repeat((1, 2, 2))


@dataclass
class Clock:
    """Seconds in the model and in the observer, call by call."""

    model_s: list[float] = field(default_factory=list)
    observer_s: list[float] = field(default_factory=list)


CLOCK = Clock()


class Timed:
    """An engine with a clock at both seams."""

    def __init__(self, calculator: Any, protocol: Protocol) -> None:
        self._engine = engines.build("ase", calculator, protocol)

    def run(self, jobs: Iterable[Job], observer: Observer) -> None:
        """Run; each step's time with the observer is one entry of the clock."""
        self._engine.run(jobs, _TimedObserver(observer))


class _TimedObserver:
    def __init__(self, observer: Observer) -> None:
        self._observer = observer
        self._before_s = 0.0

    def before_forces(self, replica: int, step: int, positions_A: Any) -> bool:
        start = time.perf_counter()
        going = self._observer.before_forces(replica, step, positions_A)
        self._before_s = time.perf_counter() - start
        return going

    def after_step(self, frame: Frame, snapshot: Any) -> bool:
        start = time.perf_counter()
        going = self._observer.after_step(frame, snapshot)
        CLOCK.observer_s.append(self._before_s + time.perf_counter() - start)
        return going

    def fault(self, replica: int, step: int, error: Exception) -> None:
        self._observer.fault(replica, step, error)


def load(path: Path, kind: str, device: str) -> Any:
    """A calculator whose calls are timed (part of being an engine's module)."""
    calculator = engines.loader("ase")(path, kind, device)
    calculate = calculator.calculate

    def timed(*args: Any, **options: Any) -> None:
        start = time.perf_counter()
        calculate(*args, **options)
        CLOCK.model_s.append(time.perf_counter() - start)

    calculator.calculate = timed
    return calculator


def build(calculator: Any, protocol: Protocol) -> Engine:
    """The timed engine (part of being an engine's module)."""
    return Timed(calculator, protocol)


class Share(NamedTuple):
    """A share of the model's time: median over parts of a run, 95 % interval.

    ``whole`` is that of the run as a whole, what happens rarely included.
    """

    model_ms: float
    observer_ms: float
    median: float
    low: float
    high: float
    whole: float


def overhead(model: Path, n_atoms: int, n_steps: int, device: str) -> Share:
    """Time outside model and integrator, as a share of the model's time.

    The interval is that of a median from order statistics
    (:func:`scipy.stats.quantile_test`).

    Raises:
        UserError: when the replica failed before its end.
    """
    engines.ENGINES["timed"] = engines.Kind(__name__, batched=False)
    CLOCK.model_s.clear()
    CLOCK.observer_s.clear()
    with tempfile.TemporaryDirectory() as folder:
        result = run_stability(
            model,
            structure(n_atoms),
            Protocol(
                temperatures_K=(TEMPERATURE_K,), replicas=1, horizon_ps=n_steps / 1000
            ),
            output=Path(folder) / "run",
            engine="timed",
            device=device,
            # a terminal, so that the bar is drawn
            console=Console(file=io.StringIO(), force_terminal=True),
        )
    if result.replicas[0].first:
        raise UserError(
            f"expected a model stable for {n_steps} steps at {TEMPERATURE_K:g} K, "
            f"got {result.replicas[0].first}; train it for longer"
        )
    model_s, observer_s = (
        np.array(times[WARM_UP_STEPS : n_steps + 1])
        for times in (CLOCK.model_s, CLOCK.observer_s)
    )
    ratios = [
        observer.sum() / model.sum()
        for observer, model in zip(
            np.array_split(observer_s, BLOCKS),
            np.array_split(model_s, BLOCKS),
            strict=True,
        )
    ]
    interval = stats.quantile_test(ratios, p=0.5).confidence_interval(0.95)
    return Share(
        1e3 * float(model_s.mean()),
        1e3 * float(observer_s.mean()),
        float(np.median(ratios)),
        float(interval.low),
        float(interval.high),
        float(observer_s.sum() / model_s.sum()),
    )
