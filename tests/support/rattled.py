"""Frames of rock salt whose atoms are shifted at random."""

from __future__ import annotations

import numpy as np
from ase.build import bulk


def rattled(n_frames, seed, amplitude=0.1, cells=(3, 3, 3)):
    rng = np.random.default_rng(seed)
    atoms = bulk("NaCl", "rocksalt", a=5.64, cubic=True).repeat(cells)
    frames = []
    for i in range(n_frames):
        frame = atoms.copy()
        frame.positions += amplitude * rng.standard_normal(frame.positions.shape)
        frame.info["time_ps"] = 0.1 * i
        frames.append(frame)
    return frames
