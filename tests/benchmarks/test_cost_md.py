"""How the cost of MD is measured, with a model of a few seconds' training."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cost import md, md_overhead
from benchmarks.cost.md import Case
from benchmarks.cost.md_overhead import Share
from nequip_decorr.errors import UserError

STEPS = 60


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:the cell of structure")
def test_all_else_is_timed_at_each_step(checkpoint: Path) -> None:
    share = md_overhead.overhead(checkpoint, 24, STEPS, "cpu")
    # forces of the start too
    assert len(md_overhead.CLOCK.model_s) == STEPS + 1
    assert len(md_overhead.CLOCK.observer_s) == STEPS + 1
    assert share.model_ms > 0
    assert share.observer_ms > 0
    assert 0 < share.low <= share.median <= share.high
    assert share.whole == pytest.approx(share.observer_ms / share.model_ms)


@pytest.mark.slow
@pytest.mark.parametrize(("engine", "replicas"), [("ase", 1), ("torchsim", 2)])
def test_steps_are_counted_when_all_are_warm(
    engine: str, replicas: int, checkpoint: Path
) -> None:
    class Start:
        calls = 0

        def wait(self) -> None:
            self.calls += 1

    case, start = Case("eager", checkpoint, 24, engine, replicas, 1), Start()
    assert md.steps_per_s(case, "cpu", 0.2, start) > 0
    assert start.calls == 1


@pytest.mark.slow
def test_rates_come_from_processes_of_their_own(checkpoint: Path) -> None:
    case = Case("eager", checkpoint, 24, "ase", 1, 1)
    assert md.ns_per_day(case, "cpu", 0.2) > 0


@pytest.mark.slow
def test_a_worker_that_fails_says_why(tmp_path: Path) -> None:
    """At once, whatever the others wait for."""
    (tmp_path / "broken.ckpt").touch()
    case = Case("eager", tmp_path / "broken.ckpt", 24, "ase", 1, 2)
    with pytest.raises(UserError, match=r"ase, 2 processes, 24 atoms: .*broken\.ckpt"):
        md.ns_per_day(case, "cpu", 0.2)


def test_structures_are_hafnia_of_two_sizes() -> None:
    small, large = (md_overhead.structure(n) for n in (24, 96))
    assert (len(small), len(large)) == (24, 96)
    assert large.get_chemical_formula("metal") == "Hf32O64"
    assert large.get_volume() == pytest.approx(4 * small.get_volume())


def test_every_way_of_running_is_a_case() -> None:
    models = {
        form: {"ase": Path("a"), "torchsim": Path("t")} for form in ("eager", "made")
    }
    found = md.cases(models, 2, [1, 16])
    assert len(found) == len(set(found)) == 2 * 2 * 4
    assert [case.way for case in found[:4]] == [
        "ase, 1 process",
        "ase, 2 processes",
        "torchsim, batch of 1",
        "torchsim, batch of 16",
    ]
    assert {case.model.name for case in found if case.engine == "torchsim"} == {"t"}


@pytest.mark.parametrize(
    ("low", "high", "whole", "verdict"),
    [
        (0.01, 0.02, 0.03, "yes"),
        (0.01, 0.06, 0.03, "not shown"),
        # what happens rarely counts too
        (0.01, 0.02, 0.06, "not shown"),
        (0.06, 0.08, 0.07, "no"),
    ],
)
def test_a_share_is_within_the_bound_when_all_of_its_interval_is(
    low: float, high: float, whole: float, verdict: str
) -> None:
    (row,) = md.share_rows({"eager": Share(10.0, 0.25, 0.015, low, high, whole)})
    assert row[:3] == ["eager", "10.0", "0.25"]
    assert row[3].startswith("1.5% [")
    assert row[-1] == verdict


def test_rates_are_compared_within_a_round() -> None:
    one = Case("eager", Path("a"), 24, "ase", 1, 1)
    two = one._replace(processes=2)
    rows = md.rate_rows({one: [1.0, 2.0, 4.0], two: [2.0, 2.0, 8.0]})
    assert rows[0] == ["eager", "24", "ase, 1 process", "2.00", "1.00 to 4.00", "1.00"]
    # ratios 2, 1 and 2
    assert rows[1][3:] == ["2.00", "2.00 to 8.00", "2.00"]
