"""What is known of a run so far: which replicas have ended, where the others are."""

from __future__ import annotations

import time
from collections.abc import Sequence
from typing import Any

from nequip_decorr.md import results
from nequip_decorr.md.models import ModelHandle
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.pool import shared_steps
from nequip_decorr.md.running.replica import Plan, describe

#: Wall time between two writings of the result file while replicas run, s.
RESULT_EVERY_S = 20.0


class Record:
    """Gathers the replicas of a run into its result; reads each but once.

    Args:
        handle: the model.
        protocol: of the run.
        plans: all replicas.
        folder: where they are kept.
        machine: for the result file.
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

    def steps(self) -> Any:
        """The step of each replica, as :class:`~.batch.Work` has them."""
        steps = shared_steps(len(self.plans))
        for plan in self.plans:
            ended = self._end(plan)
            saved = None if ended else self._folder.saved(plan.index)
            if ended is not None:
                last = ended.failure.step if ended.failure else self._protocol.n_steps
                steps[plan.index] = ~last
            elif saved is not None:
                steps[plan.index] = saved.state.step
        return steps

    def result(self, reason: str = "interrupt") -> results.RunResult:
        """The run as it stands; replicas that have not ended are censored."""
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
        """Write the result file; the traces of what has ended are there already.

        Raises:
            OSError: when the disk is full.
        """
        for replica in result.replicas:
            if replica.index not in self._ended:
                results.save_trace(
                    replica.trace, self._folder.result_path, replica.index
                )
        results.save(result, self._folder.result_path, traces=False)
        self._written_at = time.monotonic()

    def write_sometimes(self) -> None:
        """Write the result file when the last time is long ago."""
        if time.monotonic() - self._written_at > RESULT_EVERY_S:
            self.write(self.result())

    def written(self) -> results.RunResult | None:
        """The result file of a run that has ended, None when it is not (all) there."""
        try:
            found = results.load(self._folder.result_path)
        except ValueError:
            return None
        return found if found.complete else None

    def _end(self, plan: Plan) -> results.Replica | None:
        if plan.index not in self._ended:
            ended = self._folder.finished(plan.index)
            if ended is None:
                return None
            self._ended[plan.index] = ended
        return self._ended[plan.index]

    def _unfinished(self, plan: Plan, reason: str) -> results.Replica | None:
        """A replica as far as it came; None when it never began."""
        saved = self._folder.saved(plan.index)
        if saved is None:
            return None
        return describe(
            plan,
            time_ps=self._protocol.time_ps(saved.state.step),
            trace=saved.trace,
            censored_by=reason,
        )
