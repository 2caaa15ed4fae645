"""What ``nequip-decorr md`` costs, and which way of running it is the fastest.

    python -m benchmarks.cost md CHECKPOINT

1. The time that stability criteria, records, saved states and the progress bar take at
   each step, as a share of the model's own time, at 96 atoms (``md_overhead.py``).
2. ns/day summed over replicas: one at a time with ase, in several processes, and in
   batches, for the model eager and compiled, at 24 and 96 atoms. Criteria are on.

HfO2 at 300 K, 1 fs. The model must know Hf and O; that of the quick start will do.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import tempfile
import time
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from rich import box
from rich.console import Console
from rich.table import Table

from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, load_model
from nequip_decorr.md.dynamics import engines
from nequip_decorr.md.dynamics.contract import Frame, Job, MDState
from nequip_decorr.md.running.replica import Plan, start_state, watch
from nequip_decorr.wording import named

from ..common import BIN, machine, markdown, run
from .md_overhead import TEMPERATURE_K, WARM_UP_STEPS, Share, overhead, structure

RESULT = Path(__file__).parent / "results" / "md.md"
#: largest share of the model's time that all else may take
BOUND = 0.05


class Case(NamedTuple):
    """One way of running: ``replicas`` in each of ``processes``."""

    form: str
    model: Path
    n_atoms: int
    engine: str
    replicas: int
    processes: int

    @property
    def way(self) -> str:
        """In words."""
        if self.engine == "torchsim":
            return f"torchsim, batch of {self.replicas}"
        many = "process" if self.processes == 1 else "processes"
        return f"ase, {self.processes} {many}"


class _Stopwatch:
    """Checks criteria as a run does; counts steps for a while after the warm-up."""

    def __init__(self, plans: list[Plan], how: Protocol, seconds: float, start: Any):
        self._watches = {plan.index: watch(plan, how) for plan in plans}
        self._last = plans[-1].index
        self._seconds = seconds
        self._start = start
        self._started = 0.0
        self._stopping = False
        self.steps = 0
        self.rate_per_s = 0.0

    def before_forces(self, replica: int, step: int, positions_A: Any) -> bool:
        return self._judge(self._watches[replica].before_forces(positions_A))

    def after_step(self, frame: Frame, snapshot: Any) -> bool:
        going = self._judge(self._watches[frame.replica].after_step(frame))
        if frame.step < WARM_UP_STEPS:
            return going
        if frame.step == WARM_UP_STEPS:
            if frame.replica == self._last:
                self._start.wait()
                self._started = time.perf_counter()
            return going
        self.steps += 1
        if frame.replica == self._last:
            elapsed = time.perf_counter() - self._started
            self._stopping = elapsed > self._seconds
            self.rate_per_s = self.steps / elapsed
        return not self._stopping

    def fault(self, replica: int, step: int, error: Exception) -> None:
        raise error

    def _judge(self, violation: Any) -> bool:
        if violation is not None:
            raise UserError(
                f"expected a model that is stable at {TEMPERATURE_K:g} K, got "
                f"{violation}; train it for longer"
            )
        return True


def steps_per_s(case: Case, device: str, seconds: float, start: Any) -> float:
    """Steps of all replicas together in one process."""
    torch.set_num_threads(1)
    handle = load_model(case.model, device, engines.loader(case.engine))
    how, atoms = Protocol(temperatures_K=(TEMPERATURE_K,)), structure(case.n_atoms)
    plans = [
        Plan(index, 0, "HfO2", atoms, TEMPERATURE_K, index)
        for index in range(case.replicas)
    ]
    stopwatch = _Stopwatch(plans, how, seconds, start)
    jobs = []
    for plan in plans:
        state: MDState = start_state(plan, how)
        jobs.append(Job(plan.index, atoms, TEMPERATURE_K, plan.entropy(1), state))
    engines.build(case.engine, handle.loaded, how).run(jobs, stopwatch)
    return stopwatch.rate_per_s


def _work(case: Case, device: str, seconds: float, start: Any, found: Any) -> None:
    """Put :func:`steps_per_s` into ``found``, or what went wrong."""
    try:
        found.put(steps_per_s(case, device, seconds, start))
    except Exception as error:
        found.put(UserError(f"{case.way}, {case.n_atoms} atoms: {named(error)}"))
        start.abort()  # the others wait there


def ns_per_day(case: Case, device: str, seconds: float) -> float:
    """Simulated ns of all replicas per day; the time step is 1 fs."""
    context = multiprocessing.get_context("spawn")
    start, found = context.Barrier(case.processes), context.Queue()
    workers = [
        context.Process(
            target=_work,
            args=(case, device, seconds, start, found),
            daemon=True,
        )
        for _ in range(case.processes)
    ]
    for worker in workers:
        worker.start()
    rates = [found.get(timeout=seconds + 300) for _ in workers]
    for worker in workers:
        worker.join()
    for rate in rates:
        if isinstance(rate, Exception):
            raise rate
    return sum(rates) * 1e-6 * 86400


def cases(
    models: dict[str, dict[str, Path]], processes: int, batches: list[int]
) -> list[Case]:
    """All ways of running each model at each size."""
    found = []
    for form, path in models.items():
        for n_atoms in (24, 96):
            found += [
                Case(form, path["ase"], n_atoms, "ase", 1, n)
                for n in sorted({1, processes})
            ]
            found += [
                Case(form, path["torchsim"], n_atoms, "torchsim", n, 1) for n in batches
            ]
    return found


def compiled(checkpoint: Path, target: str, folder: Path, device: str) -> Path:
    """The checkpoint compiled for a target."""
    path = folder / f"{target}.nequip.pt2"
    command = [BIN / "nequip-compile", checkpoint.resolve(), path]
    options = ["--device", device, "--mode", "aotinductor", "--target", target]
    run([*command, *options], folder / "compile.log")
    return path


def table(title: str, columns: list[str], rows: list[list[str]]) -> Table:
    """For the terminal."""
    shown = Table(
        title=title, title_justify="left", box=box.SIMPLE_HEAD, pad_edge=False
    )
    for index, column in enumerate(columns):
        justify: Any = "left" if index == 0 else "right"
        shown.add_column(column, justify=justify, no_wrap=True)
    for row in rows:
        shown.add_row(*row)
    return shown


def share_rows(shares: dict[str, Share]) -> list[list[str]]:
    """Rows of the first table; the verdict needs the whole interval, and the run."""
    rows = []
    for form, share in shares.items():
        if max(share.high, share.whole) <= BOUND:
            verdict = "yes"
        else:
            verdict = "no" if share.low > BOUND else "not shown"
        rows.append(
            [
                form,
                f"{share.model_ms:.1f}",
                f"{share.observer_ms:.2f}",
                f"{share.median:.1%} [{share.low:.1%}, {share.high:.1%}]",
                f"{share.whole:.1%}",
                verdict,
            ]
        )
    return rows


def rate_rows(rates: dict[Case, list[float]]) -> list[list[str]]:
    """Rows of the second table: medians over rounds, ratios within a round."""
    one_process = {
        (case.form, case.n_atoms): values
        for case, values in rates.items()
        if (case.engine, case.processes) == ("ase", 1)
    }
    return [
        [
            case.form,
            str(case.n_atoms),
            case.way,
            f"{np.median(values):.2f}",
            f"{min(values):.2f} to {max(values):.2f}",
            f"{np.median(np.divide(values, one_process[case.form, case.n_atoms])):.2f}",
        ]
        for case, values in rates.items()
    ]


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Those of ``python -m benchmarks.cost md``."""
    add = parser.add_argument
    add("checkpoint", type=Path, help="a model of HfO2, from nequip-train")
    add("--device", default="cpu", help="cpu or cuda")
    add("--steps", type=int, default=2000, help="length of the run for the first table")
    add("--seconds", type=float, default=10.0, help="for each measurement of ns/day")
    add("--rounds", type=int, default=3, help="measurements of each case")
    add("--processes", type=int, default=os.cpu_count() or 1)
    add("--batches", type=int, nargs="+", default=[1, 4, 16])
    add("--out", type=Path, default=RESULT)


def measure(args: argparse.Namespace) -> None:
    """Measure, print, write."""
    torch.set_num_threads(1)
    console = Console()
    with tempfile.TemporaryDirectory() as folder:
        console.print("compiling for both engines ...")
        made = {
            engine: compiled(args.checkpoint, target, Path(folder), args.device)
            for engine, target in (("ase", "ase"), ("torchsim", "batch"))
        }
        models = {
            "eager": {"ase": args.checkpoint, "torchsim": args.checkpoint},
            "compiled": made,
        }
        shares = {
            form: overhead(paths["ase"], 96, args.steps, args.device)
            for form, paths in models.items()
        }
        rates: dict[Case, list[float]] = {}
        every = cases(models, args.processes, args.batches)
        for index in range(args.rounds):
            # round by round, so that a slow phase of the machine affects all alike
            for case in every:
                rate = ns_per_day(case, args.device, args.seconds)
                rates.setdefault(case, []).append(rate)
                console.print(
                    f"round {index + 1}: {case.form}, {case.n_atoms} atoms, "
                    f"{case.way}: {rate:.2f} ns/day",
                    highlight=False,
                )

    parts = [
        (
            "Criteria, records, saved states and progress, 96 atoms",
            [
                "model",
                "model ms",
                "rest ms",
                "share [95 %]",
                "whole run",
                f"within {BOUND:.0%}",
            ],
            share_rows(shares),
        ),
        (
            "ns/day of all replicas together",
            ["model", "atoms", "engine", "ns/day", "range", "speed-up"],
            rate_rows(rates),
        ),
    ]
    text = [f"# What MD costs\n\n{machine()}."]
    for title, columns, rows in parts:
        console.print(table(title, columns, rows))
        text.append("\n".join([f"## {title}", "", *markdown(columns, rows)]))
    text.append(
        "Shares: median over parts of one run, with the 95 % interval of the median. "
        f"ns/day: HfO2 at {TEMPERATURE_K:g} K, 1 fs, {args.seconds:g} s each, median "
        f"of {args.rounds}; speed-up over one ase process. Made by "
        "`python -m benchmarks.cost md`."
    )
    args.out.write_text("\n\n".join(text) + "\n", encoding="utf-8")
    console.print(f"written: {args.out}")
