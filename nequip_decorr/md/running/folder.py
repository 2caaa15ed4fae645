"""The folder of a run: settings, finished replicas and saved states.

::

    run.json              model, protocol and structures
    fingerprint.json      energy and forces that identify a calculator
    result.json           the result file, rewritten as replicas end
    result.traces/0000.npz  temperature and energies that a replica recorded
    result.traces/0000_extremes.npz  extreme values seen by its tests, for rejudging
    replicas/0000.json    a replica that has ended
    state/0000.npz        saved state of a replica that has not ended
    state/0000_trace.f8   what that replica has recorded so far, and others like it
    frames/0000.extxyz    its recorded positions
    frames/0000_last_good_unphysical.extxyz   the last frame before that event
    frames/0000_last_good_explosion.extxyz

Files that grow with a run are appended to, and cut to where the saved state has them
on resume. Each other file is written beside and moved into place, so that a process may
be killed at any moment. A state that cannot be read, or lacks what it counts on (after
a power cut), is discarded: that replica starts again and takes the same path.
"""

from __future__ import annotations

import io
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ase.io
import numpy as np
from ase import Atoms
from filelock import FileLock, Timeout

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.arrays import read_arrays, write_arrays
from nequip_decorr.md.dynamics.contract import MDState
from nequip_decorr.md.files import append, write_atomic
from nequip_decorr.md.frames import Array
from nequip_decorr.md.running.series import Series
from nequip_decorr.nested import differences

#: Fingerprints closer than this belong to one model: in single precision, and on a
#: GPU, the same model does not give exactly the same numbers twice.
FINGERPRINT_RTOL = 1e-4
FINGERPRINT_ATOL = 1e-6


@dataclass(frozen=True)
class Saved:
    """The saved state of a replica.

    Attributes:
        state: the engine's part: positions, momenta, random numbers.
        trace: (n, 4): time, temperature, potential and total energy.
        last_good: positions and momenta of the last good frame, (2, N, 3).
        extremes: arrays of :class:`nequip_decorr.md.criteria.extremes.Extremes`.
        record: the rest, in types that JSON can store.
    """

    state: MDState
    trace: Array
    last_good: Array
    extremes: dict[str, Any]
    record: dict[str, Any]

    @property
    def events(self) -> dict[str, results.Event]:
        """Events so far, by kind."""
        found = self.record["events"]
        return {kind: results.event_from_dict(event) for kind, event in found.items()}


class RunFolder:
    """Reads and writes the folder of one run."""

    def __init__(self, path: str | Path) -> None:
        self.path = Path(path)

    @property
    def result_path(self) -> Path:
        """The result file."""
        return self.path / results.RESULT_NAME

    @contextmanager
    def held(self, identity: Mapping[str, Any]) -> Iterator[None]:
        """Lock the folder for this run.

        Raises:
            UserError: if it contains another run (the message says what differs),
                another process uses it, or it cannot be written.
        """
        manifest = self.path / "run.json"
        self._make()
        lock = self._taken()
        try:
            if manifest.exists():
                self._compare(
                    json.loads(manifest.read_text(encoding="utf-8")), identity
                )
            else:
                write_atomic(manifest, json.dumps(identity, indent=1))
            yield
        finally:
            lock.release()

    def _make(self) -> None:
        """Create the folder and its subfolders, unless it has another use."""
        # a run killed as it began has left some of these and no manifest
        ours = {"replicas", "state", "frames", "lock", "run.json", "run.json.part"}
        try:
            made = self.path.exists()
            there = {p.name for p in self.path.iterdir()} if made else set()
            if "run.json" not in there and there - ours:
                raise UserError(
                    f"expected a new folder or one of `nequip-decorr md`, got "
                    f"{self.path} with other files in it; choose another --out"
                )
            for name in ("replicas", "state", "frames"):
                (self.path / name).mkdir(parents=True, exist_ok=True)
        except OSError as error:
            raise self._unwritable(error) from error

    def _unwritable(self, error: OSError) -> UserError:
        return UserError(
            f"expected a writable folder for the run, got {self.path} "
            f"({error.strerror or error}); choose another --out"
        )

    def _taken(self) -> FileLock:
        """The folder's lock; the system releases it when the process dies."""
        lock = FileLock(self.path / "lock")
        try:
            lock.acquire(timeout=0)
        except Timeout as error:
            raise UserError(
                f"another process is running in {self.path}; wait for it or choose "
                "another --out"
            ) from error
        except OSError as error:
            raise self._unwritable(error) from error
        return lock

    def recognise(self, fingerprint: Mapping[str, float]) -> None:
        """Store the fingerprint of the model, or compare it with the stored one.

        Raises:
            UserError: if the run in this folder has another model.
        """
        path = self.path / "fingerprint.json"
        if not path.exists():
            write_atomic(path, json.dumps(fingerprint, indent=1))
            return
        before = json.loads(path.read_text(encoding="utf-8"))
        self._refuse(
            [
                f"model.{name} was {before[name]:.6g}, is {now:.6g}"
                for name, now in fingerprint.items()
                if not math.isclose(
                    before[name],
                    now,
                    rel_tol=FINGERPRINT_RTOL,
                    abs_tol=FINGERPRINT_ATOL,
                )
            ]
        )

    def finished(self, index: int) -> results.Replica | None:
        """The replica, if it has ended."""
        path = self._replica(index)
        if not path.exists():
            return None
        data = json.loads(path.read_text(encoding="utf-8"))
        return results.replica_from_dict(data, self.path)

    def finish(self, replica: results.Replica, extremes: Mapping[str, Any]) -> None:
        """Write a replica that has ended; its saved state is removed.

        What it refers to is on the disk before it is said to have ended.
        """
        results.save_trace(replica.trace, self.result_path, replica.index)
        self.save_extremes(replica.index, extremes)
        data = results.replica_to_dict(replica, self.result_path)
        write_atomic(self._replica(replica.index), json.dumps(data, allow_nan=False))
        self.discard(replica.index)

    def save_extremes(self, index: int, extremes: Mapping[str, Any]) -> None:
        """Write the extreme values of a replica."""
        path = extremes_path(self.result_path, index)
        path.parent.mkdir(exist_ok=True)
        write_arrays(path, extremes, final=True)

    def save(
        self,
        index: int,
        state: MDState,
        *,
        last_good: Array,
        records: Mapping[str, Any],
        record: Mapping[str, Any],
    ) -> None:
        """Save the state of a replica; its series are in their files already.

        Not flushed to the disk: a killed process loses nothing, and after a power cut
        the replica starts again.

        Args:
            index: which one.
            state: the engine's part.
            last_good: as in :class:`Saved`.
            records: of its extremes, what does not grow.
            record: the rest; ``series`` and ``frames_size`` tell how far files that
                grow are part of the state.
        """
        arrays: dict[str, Any] = {
            **{f"extra_{name}": values for name, values in state.extra.items()},
            **{f"seen_{name}": values for name, values in records.items()},
        }
        text = {
            "step": state.step,
            "energy": state.energy_eV,
            "rng_state": state.rng_state,
            "record": record,
        }
        arrays |= {
            "positions": state.positions_A,
            "momenta": state.momenta,
            "forces": np.asarray(state.forces_eV_per_A),
            "last_good": last_good,
            "text": np.array(json.dumps(text)),
        }
        write_arrays(self._state(index), arrays)

    def saved(self, index: int) -> Saved | None:
        """The saved state of a replica; None if there is no readable one."""
        arrays = read_arrays(self._state(index))
        if arrays is None:
            return None
        text = json.loads(str(arrays["text"]))
        record = text["record"]
        series = self.series(index, record["series"]).read()
        if series is None or self._recorded(index) < record["frames_size"]:
            return None
        state = MDState(
            step=text["step"],
            positions_A=arrays["positions"],
            momenta=arrays["momenta"],
            forces_eV_per_A=arrays["forces"],
            energy_eV=text["energy"],
            rng_state=text["rng_state"],
            extra=_named(arrays, "extra_"),
        )
        trace = series.pop("trace")
        seen = _named(arrays, "seen_") | series
        return Saved(state, trace, arrays["last_good"], seen, record)

    def discard(self, index: int) -> None:
        """Remove the saved state of a replica, if there is one."""
        self._state(index).unlink(missing_ok=True)
        self.series(index).remove()

    def series(
        self, index: int, marks: Mapping[str, Sequence[int]] | None = None
    ) -> Series:
        """The series of a replica, as far as a state with these marks has them."""
        return Series(self._state(index).with_suffix(""), marks)

    def trajectory(self, index: int) -> Path:
        """File of a replica's recorded positions."""
        return self.path / "frames" / f"{index:04d}.extxyz"

    def cut_trajectory(self, index: int, size: int) -> None:
        """Truncate the trajectory to a previous size."""
        path = self.trajectory(index)
        if path.exists():
            with path.open("r+b") as handle:
                handle.truncate(size)

    def extend_trajectory(self, index: int, text: str) -> int:
        """Append recorded positions; the file's new size."""
        return append(self.trajectory(index), text.encode())

    def keep_frame(self, index: int, kind: str, atoms: Atoms) -> str:
        """Write an event's last good frame; its path relative to the result file."""
        path = self.path / "frames" / f"{index:04d}_last_good_{kind}.extxyz"
        write_atomic(path, frame_text(atoms))
        return str(path.relative_to(self.path))

    def _recorded(self, index: int) -> int:
        path = self.trajectory(index)
        return path.stat().st_size if path.exists() else 0

    def _replica(self, index: int) -> Path:
        return self.path / "replicas" / f"{index:04d}.json"

    def _state(self, index: int) -> Path:
        return self.path / "state" / f"{index:04d}.npz"

    def _compare(self, before: Any, identity: Mapping[str, Any]) -> None:
        self._refuse(differences(before, json.loads(json.dumps(identity))))

    def _refuse(self, changes: Sequence[str]) -> None:
        if changes:
            raise UserError(
                f"{self.path} contains another run ({'; '.join(changes)}); choose "
                "another --out, or repeat the settings of that run"
            )


def extremes_path(result_path: Path, index: int) -> Path:
    """File with the extreme values of a replica."""
    trace = results.trace_path(result_path, index)
    return trace.with_name(f"{trace.stem}_extremes.npz")


def _named(arrays: Mapping[str, Any], prefix: str) -> dict[str, Any]:
    """Arrays whose names start with a prefix, by the rest of their names."""
    return {
        name.removeprefix(prefix): values
        for name, values in arrays.items()
        if name.startswith(prefix)
    }


def frame_text(atoms: Atoms) -> str:
    """A frame in extended XYZ."""
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="extxyz")
    return buffer.getvalue()
