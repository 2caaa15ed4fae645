"""How the cost of the term is measured, on a model that takes no time."""

from __future__ import annotations

import gc
import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from nequip.data import AtomicDataDict
from nequip.utils.global_state import set_global_state

from benchmarks.common import json_lines
from benchmarks.cost import instructions, memory, models, training
from benchmarks.cost.models import EVERY_N_STEPS, FOURTH, MONITOR, OFF, ON

TINY = "tiny"
# Lightning says that a loader has few workers, and that a step has no data before it
pytestmark = pytest.mark.filterwarnings("ignore")


@pytest.fixture(autouse=True)
def tiny(monkeypatch: pytest.MonkeyPatch) -> None:
    """A small Allegro model beside the others, and NequIP's state as a training's.

    The state stays: NequIP sets its default dtype once in a process, and computes wrong
    things with another one.
    """
    monkeypatch.setitem(models.MODELS, TINY, models.allegro(8, 4, 1))
    set_global_state()


def test_the_ratio_is_the_median_with_the_interval_of_order_statistics() -> None:
    # ratios 1.01 ... 1.20 of twenty; the interval is that of the 6th and 15th of them
    without = [2.0] * 20
    with_ = [2.0 * (1 + i / 100) for i in range(1, 21)]
    assert models.ratio(with_, without) == "1.1050 [1.0600, 1.1500]"


def test_a_batch_has_the_edges_that_were_asked_for() -> None:
    few, many = (models.batch_of(edges) for edges in (1, 2000))
    assert AtomicDataDict.num_frames(few) == 2
    frame = AtomicDataDict.num_edges(few) / 2
    assert 2000 <= AtomicDataDict.num_edges(many) < 2000 + 2 * frame


class Watched(models.Switched):
    """Notes of each step whether the term was in its loss."""

    seen: dict[str, list[bool]]

    def on_before_backward(self, trainer: Any, pl_module: Any, loss: Any) -> None:
        entered = pl_module.loss.metrics_values_step.get(self.name) is not None
        self.seen.setdefault(self.kind, []).append(entered)
        super().on_before_backward(trainer, pl_module, loss)


@pytest.mark.slow
def test_steps_are_timed_with_and_without_the_term_in_turns(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(Watched, "seen", {}, raising=False)
    monkeypatch.setattr(training, "Switched", Watched)
    name, mode, edges, step_ms, rounds, *ratios = training.train(
        TINY, "eager", 1, 0.0, {"sample": {"edges": 100}}
    )
    assert (name, mode) == (TINY, "eager")
    assert int(edges) == AtomicDataDict.num_edges(models.batch_of(1))
    assert float(step_ms) > 0
    assert int(rounds) >= 8
    assert len(ratios) == 3
    # two rounds to warm up, and those that count
    blocks = 2 + int(rounds)
    assert Watched.seen == {
        OFF: [False] * EVERY_N_STEPS * blocks,
        MONITOR: [False] * EVERY_N_STEPS * blocks,
        ON: [True] * EVERY_N_STEPS * blocks,
        FOURTH: [True, False, False, False] * blocks,
    }


def test_validation_steps_are_timed_with_and_without_the_monitor() -> None:
    name, edges, step_ms, ratio = training.validate(TINY, 1, 0.0)
    assert (name, int(edges)) == (TINY, AtomicDataDict.num_edges(models.batch_of(1)))
    assert float(step_ms) > 0
    assert float(ratio.split()[0]) > 0


def test_the_scale_weighs_what_is_allocated_at_one_time() -> None:
    kept = torch.zeros(2**20, dtype=torch.float32)
    gc.collect()  # what other tests have left would be freed meanwhile
    scale = memory.Scale()
    for _ in range(3):
        torch.ones(2**20, dtype=torch.float32)  # 4 MiB, and gone again
    both = [torch.ones(2**20, dtype=torch.float32) for _ in range(2)]
    assert scale.peak_mib() == pytest.approx(8, abs=0.1)
    assert len(kept) == len(both[0])


@pytest.mark.slow
def test_a_step_with_the_term_takes_more_memory() -> None:
    gc.collect()
    with_, without = memory.peaks(TINY, "eager", models.batch_of(1), {})
    assert 0 < without < with_


class Calls:
    """In the place of callgrind: counts from 1 on, each time from the last call."""

    def __init__(self, counts: Path) -> None:
        self.calls = 0

    def __call__(self) -> int:
        self.calls += 1
        return self.calls


@pytest.mark.slow
def test_instructions_are_counted_step_by_step(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(instructions, "Tally", Calls)
    found = instructions.whole_steps(TINY, 1, tmp_path / "counts")
    # warm: four without, four with; counted: four without, four with, one without;
    # called before and after each
    assert found["without"] == [2, 4, 6, 8, 18]
    assert found["with"] == [10, 12, 14, 16]
    (alone,) = instructions.term_alone([(8, 50)], tmp_path / "counts")
    # what a step with the term counts, less what one without does, which comes later
    assert alone == {"channels": 8, "edges": 50, "term": [-2] * instructions.REPEATS}


def test_instructions_are_told_as_ratios_to_a_step_without() -> None:
    found = {"without": [2e6, 1e6, 3e6], "with": [3e6, 2e6, 2.2e6, 2.4e6]}
    shown = ["2.0", "3.0", "1.2000", "1.5000", "1.1000"]
    assert training.whole_step(found) == shown


@pytest.mark.slow
def test_ranks_measure_the_collective_of_each_step() -> None:
    arguments = ["--model", "NequIP GNN, small (16 features)", "--ranks", "2"]
    command = [sys.executable, "-m", "benchmarks.cost.ranks", *arguments]
    *_, found = json_lines([*command, "--edges", "1", "--pairs", "2"])
    assert found["edges"] == AtomicDataDict.num_edges(models.batch_of(1))
    assert len(found["on"]) == len(found["off"]) == 2
    assert min(found["on"] + found["off"] + found["collective"]) > 0
    assert found["bytes"] > 0


def test_a_section_replaces_its_own_part_of_the_results(tmp_path: Path) -> None:
    path = tmp_path / "training.md"
    training.write_section(path, "Steps", ["first"])
    training.write_section(path, "Memory", ["other"])
    training.write_section(path, "Steps", ["second"])
    text = path.read_text()
    assert text.startswith(training.TITLE)
    assert "first" not in text
    parts = ["## Steps", "second", "## Memory", "other"]
    assert sorted(map(text.index, parts)) == [text.index(part) for part in parts]
