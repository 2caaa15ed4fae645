"""Runs replicas in several processes, with the same results as in one."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from functools import partial
from multiprocessing.process import BaseProcess
from multiprocessing.synchronize import Event
from pathlib import Path
from typing import Any

from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.running.batch import Stop, Work, run_replicas
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.replica import Plan
from nequip_decorr.wording import named

#: How often the parent checks for signals, s.
POLL_EVERY_S = 0.2

#: How long workers may take to save their replicas once one of them was killed, s.
PATIENCE_S = 5.0


def shared(n_replicas: int) -> Any:
    """A list of integers shared by all processes, one per replica."""
    return multiprocessing.get_context("spawn").RawArray(ctypes.c_int64, n_replicas)


def run_in_processes(
    batches: Sequence[Sequence[Plan]],
    work: Work,
    open_model: Callable[[], Any],
    processes: int,
    on_batch: Callable[[], None],
) -> Stop | None:
    """Run batches of replicas, each in one of several worker processes.

    Args:
        batches: batches of replicas, each run by one process.
        work: as for :func:`run_replicas`; ``steps`` and ``events`` from
            :func:`shared`; ``poll`` is called here, the model and folder are opened
            anew there.
        open_model: function that opens the model; sent to the processes.
        processes: number of processes.
        on_batch: called here after each batch.
    """
    context = multiprocessing.get_context("spawn")
    stopping = context.Event()
    others = set(multiprocessing.active_children())
    pool = ProcessPoolExecutor(
        max_workers=min(processes, len(batches)),
        mp_context=context,
        initializer=partial(
            _start,
            open_model=open_model,
            engine=work.engine,
            protocol=work.protocol,
            folder=work.folder.path,
            save_every_s=work.save_every_s,
            steps=work.steps,
            events=work.events,
            stopping=stopping,
        ),
    )
    stop = None
    with pool:
        waiting = {pool.submit(_run_batch, list(batch)) for batch in batches}
        try:
            while waiting:
                done, waiting = wait(
                    waiting, timeout=POLL_EVERY_S, return_when=FIRST_COMPLETED
                )
                for future in done:
                    ended = future.result()
                    # the first gives the reason; the others stop because of it
                    stop = stop or ended
                    on_batch()
                if work.poll() or stop:
                    stopping.set()
        except BrokenProcessPool:
            stopping.set()
            _end(set(multiprocessing.active_children()) - others)
            return Stop(
                "worker_died",
                "a worker process was killed (often because memory ran out); "
                "use fewer processes, and rerun the same command to resume",
            )
        finally:
            stopping.set()
    return stop


def _end(workers: Iterable[BaseProcess]) -> None:
    """End the workers of a broken pool; Python 3.12 would wait for them forever.

    What they have not saved by then is run again.
    """
    end = time.monotonic() + PATIENCE_S
    for worker in workers:
        worker.join(max(0.0, end - time.monotonic()))
        worker.kill()


def threads() -> int:
    """Number of torch threads in each process: OMP_NUM_THREADS, or one.

    Sums depend on the number of threads, so it must not depend on the number of
    processes: one process and several then agree bit for bit.
    """
    asked = os.environ.get("OMP_NUM_THREADS", "").partition(",")[0]
    return int(asked) if asked.isdigit() and int(asked) else 1


def use_threads(number: int) -> int:
    """Set torch's threads if torch is loaded; returns the previous number."""
    torch = sys.modules.get("torch")
    if torch is None:
        return number
    before: int = torch.get_num_threads()
    torch.set_num_threads(number)
    return before


#: What a worker process works with, or why it cannot.
_work: Work | Stop


def _start(
    *,
    open_model: Callable[[], Any],
    engine: str,
    protocol: Protocol,
    folder: Path,
    save_every_s: float,
    steps: Any,
    events: Any,
    stopping: Event,
) -> None:
    """Set a worker process up."""
    global _work  # noqa: PLW0603
    # the parent, which gets the same signals, says when to stop
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, daemon=True).start()
    try:
        model = open_model()
    except Exception as error:
        # what an initializer raises never reaches the parent
        _work = Stop(
            "model_broken",
            f"a worker process cannot open the model ({named(error)}); fix this or "
            "use fewer processes, and run the same command again",
        )
        return
    use_threads(threads())
    _work = Work(
        model=model,
        engine=engine,
        protocol=protocol,
        folder=RunFolder(folder),
        save_every_s=save_every_s,
        steps=steps,
        events=events,
        poll=stopping.is_set,
    )


def _end_with_parent() -> None:
    """End this process if its parent was killed: another run may take the folder."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
    os._exit(1)


def _run_batch(plans: list[Plan]) -> Stop | None:
    if isinstance(_work, Stop):
        return _work
    if _work.poll():
        return Stop("interrupt", "interrupted; rerun the same command to resume")
    return run_replicas(plans, _work)
