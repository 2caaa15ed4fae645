"""Frames as one continuous trajectory: increasing steps, unwrapped positions."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.criteria.neighbours import in_vectors_of
from nequip_decorr.md.frames import Array
from nequip_decorr.md.trajectories.snapshot import Snapshot, Warn

#: Frames of one step of one run differ by no more than a dump rounds, A.
SAME_A = 0.01


def continuous(
    frames: Iterator[Snapshot],
    interval_steps: int | None,
    path: Path,
    warn: Warn,
    start_A: Array | None = None,
) -> Iterator[Snapshot]:
    """Frames with increasing steps and continuous positions.

    A run that was killed and restarted writes some steps twice; repeated steps are
    skipped with a warning.

    Args:
        frames: frames from a reader.
        interval_steps: MD steps between frames, if frames have no step.
        path: path of the file, for messages.
        warn: called with warnings.
        start_A: positions of the start structure, (N, 3), to whose images the first
            frame is moved; None leaves it where it is.

    Raises:
        UserError: if frames have no step and no interval is given, or if a second
            simulation begins in the file.
    """
    first: Snapshot | None = None
    last: Snapshot | None = None
    shifts = np.empty(())  # of the start, if there is one
    backwards: tuple[int, int] | None = None
    skipped = skipped_before = 0
    for number, frame in enumerate(frames):
        step = frame.step
        if step is None:
            if interval_steps is None:
                raise UserError(
                    f"expected frames with their MD step, got {path} without; give the "
                    "steps between two frames: --frame-interval-steps N"
                )
            step = number * interval_steps
        if last is not None and first is not None and step <= _step(last):
            if step == first.step:
                _check_same_start(first, frame, path)
            backwards = backwards or (_step(last), step)
            skipped += step != _step(last) or skipped > 0
            continue
        now = replace(frame, step=step, joined=skipped > skipped_before)
        skipped_before = skipped
        if last is None and start_A is not None:
            shifts = _images(start_A, now, shifted=True)
            now = replace(now, positions_A=now.positions_A - _translations(shifts, now))
        elif last is not None and now.wrapped:
            now = replace(now, positions_A=unwrapped(last.positions_A, now))
        elif last is not None and np.ndim(shifts):
            shifts = _followed(shifts, last, now)
            now = replace(now, positions_A=now.positions_A - _translations(shifts, now))
        first, last = first or now, now
        yield now
    if backwards is not None and skipped:
        warn(
            f"steps of {path} go back from {backwards[0]} to {backwards[1]} (a "
            f"restart); {skipped} frames of steps already read are skipped"
        )


def unwrapped(before_A: Array, frame: Snapshot) -> Array:
    """Positions at the images nearest to those of the previous frame, (N, 3).

    An atom that moves more than half a cell between two frames cannot be followed.

    Args:
        before_A: positions of the previous frame, (N, 3).
        frame: the frame.
    """
    return frame.positions_A - _translations(_images(before_A, frame), frame)


def _images(before_A: Array, frame: Snapshot, *, shifted: bool = False) -> Array:
    """Whole cell vectors by which atoms are away from where they were, (N, 3).

    Zero for what is not finite, which stays for the tests to find.

    Args:
        before_A: earlier positions, (N, 3).
        frame: the frame.
        shifted: whether all atoms may have been shifted together, as in a first frame.
    """
    if not np.isfinite(frame.cell_A).all():
        return np.zeros_like(frame.positions_A)
    with np.errstate(invalid="ignore", over="ignore"):
        vectors = _periodic_vectors(frame)
        fractions = (frame.positions_A - before_A) @ np.linalg.pinv(vectors)
        if shifted:
            fractions = fractions - fractions[0]
        found = np.round(fractions)
        finite = np.isfinite(found @ vectors).all(axis=1, keepdims=True)
    return np.asarray(np.where(finite, found, 0.0))


def _followed(images: Array, before: Snapshot, now: Snapshot) -> Array:
    """Whole cell vectors of a frame as those of the next, if the box has flipped."""
    cells = np.stack([before.cell_A, now.cell_A])
    if not np.isfinite(cells).all() or (np.linalg.det(cells) == 0).any():
        return images
    return in_vectors_of(now.cell_A, images, before.cell_A)


def _translations(images: Array, frame: Snapshot) -> Array:
    """Whole cell vectors as distances, (N, 3)."""
    if not np.isfinite(frame.cell_A).all():
        return np.zeros_like(images)
    return np.asarray(images @ _periodic_vectors(frame))


def _periodic_vectors(frame: Snapshot) -> Array:
    return np.asarray(np.where(frame.pbc[:, None], frame.cell_A, 0.0))


def _step(frame: Snapshot) -> int:
    if frame.step is None:
        raise AssertionError("continuous frames have a step")
    return frame.step


def _check_same_start(first: Snapshot, again: Snapshot, path: Path) -> None:
    """Refuse a second simulation; a restarted one begins with the same frames."""
    moved = np.abs(unwrapped(first.positions_A, again) - first.positions_A)
    if not moved.max() <= SAME_A:
        raise UserError(
            f"expected one simulation in {path}, got another one that begins at step "
            f"{again.step}; put each in its own file"
        )
