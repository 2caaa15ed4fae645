"""Errors of a model's pair distributions relative to a reference."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from nequip_decorr.errors import UserError
from nequip_decorr.md.frames import Array
from nequip_decorr.md.statistics.blocks import N_BLOCKS, block_error
from nequip_decorr.md.statistics.rdf import PairDistributions

#: Mean of the standard deviation of five normal values, in units of their sigma.
C4_OF_FIVE = 0.94


@dataclass(frozen=True)
class PairError:
    """Error of the distribution of one element pair relative to the reference.

    Attributes:
        error: integral of the absolute difference over r, up to 6 A; in A for
            g(r), dimensionless and at most 2 for h(r). The definition is that of Fu et
            al., "Forces are not enough" (TMLR 2023, arXiv:2210.07237).
        standard_error: standard error of ``error``, by the jackknife over five blocks
            of frames; None with fewer than five frames.
        reference_error: the same integral between the two halves of the reference.
            None for a table or a single frame.
        floor: average error of a perfect model with the same number of frames
            (:func:`error_floor`); an error near it shows no difference. None with fewer
            than five frames on either side.
        r_A: bin centres, A.
        model: the model's distribution.
        reference: the reference's.
    """

    error: float
    standard_error: float | None
    reference_error: float | None
    floor: float | None
    r_A: tuple[float, ...]
    model: tuple[float, ...]
    reference: tuple[float, ...]


def distribution_error(
    model: Array,
    reference: Array,
    width_A: float,
) -> tuple[float, float | None]:
    """Integral of |model - reference| over r and its jackknife standard error.

    Args:
        model: values per frame, shape (n_frames, n_bins).
        reference: values, shape (n_bins,); NaN where the reference has none.
        width_A: width of a bin, A.

    Raises:
        UserError: if the reference has no values at all.
    """
    if not np.isfinite(reference).any():
        raise UserError(
            f"expected a reference with values in some of the {len(reference)} bins, "
            "got none; give one that covers them"
        )

    def integral(values: Array) -> float:
        return float(np.nansum(np.abs(values - reference)) * width_A)

    error = integral(model.mean(axis=0))
    if len(model) < N_BLOCKS:
        return error, None
    blocks = np.array_split(np.arange(len(model)), N_BLOCKS)
    left_out = np.array(
        [integral(np.delete(model, block, axis=0).mean(axis=0)) for block in blocks]
    )
    spread = np.sum((left_out - left_out.mean()) ** 2)
    return error, float(np.sqrt((N_BLOCKS - 1) / N_BLOCKS * spread))


def error_floor(model: Array, reference: Array | None, width_A: float) -> float | None:
    """Expected error between two samples of the same distribution.

    The error is an integral of absolute differences, so noise adds to it, the more so
    the fewer frames there are. For a perfect model, the difference in each bin is
    normal with the summed variance of both means, and the expected integral is
    ``sqrt(2/pi) sum_r sqrt(se_model^2 + se_reference^2) dr``, with standard errors from
    five blocks, divided by 0.94 because that of five values is too small on average.

    Args:
        model: values per frame, shape (n_frames, n_bins).
        reference: values per frame; None for a table, taken as exact.
        width_A: width of a bin, A.

    Returns:
        The floor, in the unit of the error; None with fewer than five frames.
    """
    samples = [model] if reference is None else [model, reference]
    if min(map(len, samples)) < N_BLOCKS:
        return None
    variance = sum(block_error(values) ** 2 for values in samples)
    noise = np.sqrt(2 / np.pi) / C4_OF_FIVE * np.sqrt(variance)
    return float(noise.sum() * width_A)


def compare_distributions(
    model: PairDistributions, reference: PairDistributions | Mapping[str, Array]
) -> dict[str, PairError]:
    """Error of each element pair present on both sides.

    Args:
        model: distributions of the model's trajectory.
        reference: distributions of a reference trajectory with the same bins, or a
            table at the model's bin centres
            (:func:`~nequip_decorr.md.statistics.rdf.read_table`).

    Raises:
        UserError: if there are no common pairs, g(r) is compared with h(r), bins
            differ, or the reference has no value in any of them.
    """
    halves: dict[str, Array] = {}
    samples: Mapping[str, Array] = {}
    if isinstance(reference, PairDistributions):
        if not (
            reference.kind == model.kind and np.array_equal(reference.r_A, model.r_A)
        ):
            raise UserError(
                f"expected a reference with {model.kind} at the same distances, got "
                f"{reference.kind}; is one of them not periodic?"
            )
        samples = reference.pairs
        means = {name: values.mean(axis=0) for name, values in samples.items()}
        if reference.n_frames > 1:
            middle = reference.n_frames // 2
            halves = {
                name: np.abs(v[:middle].mean(axis=0) - v[middle:].mean(axis=0))
                for name, v in samples.items()
            }
    else:
        means = dict(reference)
    common = [name for name in model.pairs if name in means]
    if not common:
        raise UserError(
            f"expected a reference with some of the pairs {', '.join(model.pairs)}, "
            f"got {', '.join(means) or 'none'}"
        )
    width = float(model.r_A[1] - model.r_A[0])
    errors = {}
    for name in common:
        error, standard_error = distribution_error(
            model.pairs[name], means[name], width
        )
        known = np.isfinite(means[name])
        errors[name] = PairError(
            error=error,
            standard_error=standard_error,
            reference_error=float(halves[name].sum() * width) if halves else None,
            floor=error_floor(model.pairs[name][:, known], samples.get(name), width),
            r_A=tuple(model.r_A[known].tolist()),
            model=tuple(model.pairs[name].mean(axis=0)[known].tolist()),
            reference=tuple(means[name][known].tolist()),
        )
    return errors


def partial_cover(
    model: PairDistributions, errors: Mapping[str, PairError]
) -> list[str]:
    """Notes on pairs whose reference covers only some of the bins."""
    return [
        f"{name}: the reference covers {len(error.r_A)} of {len(model.r_A)} bins "
        f"(from {error.r_A[0]:.3g} to {error.r_A[-1]:.3g} A), so the error covers only "
        "these"
        for name, error in errors.items()
        if len(error.r_A) < len(model.r_A)
    ]
