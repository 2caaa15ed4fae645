"""Simulated comparisons of two models: how often the interval is right.

``python -m tests.support.comparisons 4000`` prints the table of docs/statistics.md.

log T = log median + structure + pair + model at this structure + noise; the first three
are normal with a standard deviation of 0.4 (the third only with interaction), the noise
is that of a Weibull distribution of shape 2. The first model lasts longer by a ratio.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass

import numpy as np

from nequip_decorr.md.statistics.time_ratio import unit_differences
from nequip_decorr.md.statistics.times import PairedTimes, Times
from nequip_decorr.md.statistics.units import student_t, t_limit

HORIZON, STEP, SPREAD = 1.0, 1e-4, 0.4

#: median time to failure / horizon
EARLY, MID, RARE = 0.06, 0.5, (2.0, 4.0, 8.0)


@dataclass(frozen=True)
class Design:
    """What is compared: medians (of each temperature) are in units of the horizon."""

    structures: int
    replicas: int
    medians: tuple[float, ...]
    interaction: bool = False
    lost: float = 0.0

    def draw(self, rng: np.random.Generator, ratio: float) -> tuple[Times, Times]:
        """Times of both models, structure by structure, of one comparison."""
        n = len(self.medians) * self.replicas
        shape = (self.structures, n)
        common = np.log(np.repeat(self.medians, self.replicas))
        common = common + SPREAD * rng.standard_normal((self.structures, 1))
        common = common + SPREAD * rng.standard_normal(shape)
        sides = []
        for factor in (ratio**0.5, ratio**-0.5):
            own = SPREAD * self.interaction * rng.standard_normal((self.structures, 1))
            noise = rng.weibull(2.0, shape) / np.log(2.0) ** 0.5
            time = (factor * noise * np.exp(common + own)).ravel()
            # some are interrupted at any time
            end = np.where(
                rng.random(time.shape) < self.lost, rng.random(time.shape), HORIZON
            )
            sides.append(Times(np.minimum(time, end), time <= end))
        return sides[0], sides[1]

    def rejected(self, rng: np.random.Generator, ratio: float, tested: float) -> bool:
        """Whether the interval of one comparison excludes a ratio."""
        n = len(self.medians) * self.replicas
        stratum = np.tile(
            np.repeat(np.arange(len(self.medians)), self.replicas), self.structures
        )
        unit = np.repeat(np.arange(self.structures), n)
        pairs = PairedTimes(*self.draw(rng, ratio), unit, stratum, HORIZON, STEP)
        values = unit_differences(pairs, np.log([tested]))
        return bool(abs(student_t(values)[0]) > t_limit(self.structures))


def rejections(design: Design, ratio: float, tested: float, n: int, seed: int) -> int:
    """In how many of n comparisons the interval excludes a ratio."""
    rng = np.random.default_rng(seed)
    return sum(design.rejected(rng, ratio, tested) for _ in range(n))


def main() -> None:
    """Print the share of false verdicts, of coverage at a ratio of two, and power."""
    n = int(sys.argv[1])
    print(f"{n} comparisons each: false verdicts, coverage and power at x2, in %")
    for interaction in (False, True):
        for median in (EARLY, MID, *RARE[:2]):
            for structures, replicas in ((16, 1), (8, 1), (8, 4)):
                design = Design(structures, replicas, (median,), interaction)
                alike, at_two, missed = (
                    100 * rejections(design, ratio, tested, n, seed=1) / n
                    for ratio, tested in ((1.0, 1.0), (2.0, 2.0), (2.0, 1.0))
                )
                print(
                    f"median {median:4} tau, {structures:2} x {replicas}, "
                    f"{'with' if interaction else 'no'} interaction: "
                    f"{alike:4.1f} {100 - at_two:5.1f} {missed:5.1f}",
                    flush=True,
                )


if __name__ == "__main__":
    main()
