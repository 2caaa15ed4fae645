"""The folder of a run: what is run, what has finished, and saved states.

::

    run.json              what is run: model, protocol, structures
    fingerprint.json      energy and forces that identify a calculator
    result.json           the result file, rewritten as replicas end
    result.traces/0000.npz  temperature and energies that a replica recorded
    replicas/0000.json    a replica that has ended
    state/0000.npz        saved state of a replica that has not ended
    frames/0000.extxyz    its recorded positions
    frames/0000_last_good.extxyz

Each file is written beside and moved into place, so that a process may be killed at
any moment. A state that cannot be read (after a power cut) is discarded: that replica
starts again and takes the same path.
"""

from __future__ import annotations

import io
import json
import math
import zipfile
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
from nequip_decorr.md.dynamics.contract import MDState
from nequip_decorr.md.files import write_atomic
from nequip_decorr.md.frames import Array
from nequip_decorr.md.nested import flat

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
        record: the rest, in types that JSON can store.
    """

    state: MDState
    trace: Array
    last_good: Array
    record: dict[str, Any]


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
        """Keep other processes out of the folder while this run is in it.

        Raises:
            UserError: when another run is in it (says what differs), a live process
                works in it, or it cannot be written.
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
        """Make the folder and those in it, unless it is in use for something else."""
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
            f"expected a folder for the run that can be written, got {self.path} "
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
            UserError: when the run that is here has another model.
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

    def finish(self, replica: results.Replica) -> None:
        """Write a replica that has ended; its saved state is removed."""
        results.save_trace(replica.trace, self.result_path, replica.index)
        data = results.replica_to_dict(replica, self.result_path)
        write_atomic(self._replica(replica.index), json.dumps(data, allow_nan=False))
        self._state(replica.index).unlink(missing_ok=True)

    def save(self, index: int, saved: Saved) -> None:
        """Save the state of a replica.

        Not flushed to the disk: a killed process loses nothing, and after a power cut
        the replica starts again.
        """
        state = saved.state
        arrays: dict[str, Any] = {
            f"extra_{name}": values for name, values in state.extra.items()
        }
        text = {
            "step": state.step,
            "energy": state.energy_eV,
            "rng_state": state.rng_state,
            "record": saved.record,
        }
        arrays |= {
            "positions": state.positions_A,
            "momenta": state.momenta,
            "forces": np.asarray(state.forces_eV_per_A),
            "trace": saved.trace,
            "last_good": saved.last_good,
            "text": np.array(json.dumps(text)),
        }
        buffer = io.BytesIO()
        np.savez(buffer, allow_pickle=False, **arrays)
        write_atomic(self._state(index), buffer.getvalue(), durable=False)

    def saved(self, index: int) -> Saved | None:
        """The saved state of a replica, None when there is none (that can be read)."""
        try:
            content = io.BytesIO(self._state(index).read_bytes())
            with np.load(content, allow_pickle=False) as file:
                arrays = {name: file[name] for name in file.files}
        except (FileNotFoundError, zipfile.BadZipFile, ValueError, EOFError, KeyError):
            return None
        text = json.loads(str(arrays["text"]))
        state = MDState(
            step=text["step"],
            positions_A=arrays["positions"],
            momenta=arrays["momenta"],
            forces_eV_per_A=arrays["forces"],
            energy_eV=text["energy"],
            rng_state=text["rng_state"],
            extra={
                name.removeprefix("extra_"): values
                for name, values in arrays.items()
                if name.startswith("extra_")
            },
        )
        return Saved(state, arrays["trace"], arrays["last_good"], text["record"])

    def trajectory(self, index: int) -> Path:
        """File of a replica's recorded positions."""
        return self.path / "frames" / f"{index:04d}.extxyz"

    def cut_trajectory(self, index: int, size: int) -> None:
        """Cut off what was recorded after the file had this size."""
        path = self.trajectory(index)
        if path.exists():
            with path.open("r+b") as handle:
                handle.truncate(size)

    def extend_trajectory(self, index: int, text: str) -> int:
        """Append recorded positions; the file's new size."""
        with self.trajectory(index).open("ab") as handle:
            handle.write(text.encode())
            return handle.tell()

    def keep_frame(self, index: int, atoms: Atoms) -> str:
        """Keep the last good frame; its path, relative to the result file."""
        path = self.path / "frames" / f"{index:04d}_last_good.extxyz"
        write_atomic(path, frame_text(atoms))
        return str(path.relative_to(self.path))

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


def frame_text(atoms: Atoms) -> str:
    """A frame in extended XYZ."""
    buffer = io.StringIO()
    ase.io.write(buffer, atoms, format="extxyz")
    return buffer.getvalue()


def differences(before: dict[str, Any], now: dict[str, Any]) -> list[str]:
    """What changed between two documents of plain types, one line each."""
    old, new = flat(before), flat(now)
    lines = []
    for name in sorted(old.keys() | new.keys()):
        if old.get(name) != new.get(name):
            line = f"{name} was {old.get(name)}, is {new.get(name)}"
            lines.append(line if len(line) < 160 else f"{name} differs")
    return lines
