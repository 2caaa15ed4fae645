"""State of a run: finished replicas, and the progress of the others."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from nequip_decorr.md import results
from nequip_decorr.md.models import ModelHandle
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.pool import shared
from nequip_decorr.md.running.progress import happened
from nequip_decorr.md.running.replica import Plan, describe

#: Wall time between two writings of the result file while replicas run, s.
RESULT_EVERY_S = 20.0


class Record:
    """Collects the replicas of a run into its result; reads each only once.

    Args:
        handle: the model.
        protocol: protocol of the run.
        plans: all replicas.
        folder: folder of the run.
        machine: description of the machine, for the result file.
    """

    def __init__(
        self,
        handle: ModelHandle,
        protocol: Protocol,
        plans: Sequence[Plan],
        folder: RunFolder,
        machine: dict[str, Any],
    ) -> None:
        self.machine = machine
        self.plans = plans
        self._handle = handle
        self._protocol = protocol
        self._folder = folder
        self._ended: dict[int, results.Replica] = {}
        self._written_at = time.monotonic()

    def pending(self) -> list[Plan]:
        """Replicas that have not ended."""
        return [plan for plan in self.plans if self._end(plan) is None]

    def progress(self) -> tuple[Any, Any]:
        """Steps and events of each replica, as :class:`~.batch.Work` has them."""
        steps, events = shared(len(self.plans)), shared(len(self.plans))
        for plan in self.plans:
            ended = self._end(plan)
            saved = None if ended else self._folder.saved(plan.index)
            if ended is not None:
                steps[plan.index] = ~self._last_step(ended)
                events[plan.index] = happened(filter(ended.event, results.KINDS))
            elif saved is not None:
                steps[plan.index] = saved.state.step
                events[plan.index] = happened(saved.events)
        return steps, events

    def result(self, reason: str = "interrupt") -> results.RunResult:
        """The result so far; replicas that have not ended are censored."""
        ends = [self._end(plan) for plan in self.plans]
        replicas = [
            self._unfinished(plan, reason) if replica is None else replica
            for plan, replica in zip(self.plans, ends, strict=True)
        ]
        return results.RunResult(
            model=self._handle.describe(),
            protocol=self._protocol.to_dict(),
            machine=self.machine,
            replicas=tuple(replica for replica in replicas if replica is not None),
            complete=None not in ends,
        )

    def write(self, result: results.RunResult) -> None:
        """Write the result file; the traces of finished replicas exist already.

        Only when no process runs: it may end a replica meanwhile, whose whole trace
        would then be replaced by what is known of it here.

        Raises:
            OSError: if the disk is full.
        """
        for replica in result.replicas:
            if replica.index not in self._ended:
                results.save_trace(
                    replica.trace, self._folder.result_path, replica.index
                )
                saved = self._folder.saved(replica.index)
                if saved is not None:
                    self._folder.save_extremes(replica.index, saved.extremes)
        self._write(result)

    def write_sometimes(self) -> None:
        """Write the result file when the last time is long ago.

        Other processes may run: without the traces of what has not ended.
        """
        if time.monotonic() - self._written_at > RESULT_EVERY_S:
            result = self.result()
            replicas = tuple(
                each
                if each.index in self._ended
                else replace(each, trace=results.Trace())
                for each in result.replicas
            )
            self._write(replace(result, replicas=replicas))

    def written(self) -> results.RunResult | None:
        """The result of a finished run; None if it is missing or incomplete."""
        try:
            found = results.load(self._folder.result_path)
        except ValueError:
            return None
        return found if found.complete else None

    def _write(self, result: results.RunResult) -> None:
        results.save(result, self._folder.result_path, traces=False)
        self._written_at = time.monotonic()

    def _last_step(self, ended: results.Replica) -> int:
        last = ended.explosion or ended.unphysical
        if ended.censored_by is not None or last is None:
            return self._protocol.n_steps
        return last.step

    def _end(self, plan: Plan) -> results.Replica | None:
        if plan.index not in self._ended:
            ended = self._folder.finished(plan.index)
            if ended is None:
                return None
            self._ended[plan.index] = ended
        return self._ended[plan.index]

    def _unfinished(self, plan: Plan, reason: str) -> results.Replica | None:
        """An unfinished replica up to its last state; None if it never started."""
        saved = self._folder.saved(plan.index)
        if saved is None:
            return None
        return describe(
            plan,
            time_ps=self._protocol.time_ps(saved.state.step),
            trace=saved.trace,
            events=saved.events,
            censored_by=reason,
        )
