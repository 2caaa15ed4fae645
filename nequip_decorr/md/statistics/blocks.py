"""Block averages: the error of the mean of a time series that is correlated in time."""

from __future__ import annotations

import numpy as np

from nequip_decorr.md.frames import Array

N_BLOCKS = 5


def block_means(values: Array) -> Array:
    """Means of five nearly equal, consecutive blocks, shape (5, ...).

    Args:
        values: at least five, along the first axis.
    """
    return np.array([block.mean(axis=0) for block in np.array_split(values, N_BLOCKS)])


def block_error(values: Array) -> Array:
    """Standard error of the mean over the first axis, from five blocks.

    Correct if values are correlated over less than a block; too small otherwise.
    """
    error: Array = block_means(values).std(axis=0, ddof=1) / np.sqrt(N_BLOCKS)
    return error
