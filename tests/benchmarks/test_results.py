"""What the repository shows of its benchmarks."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from benchmarks.hfox.analysis import load_records
from benchmarks.hfox.report import write_results

ROOT = Path(__file__).parents[2]
RESULTS = ROOT / "benchmarks" / "hfox" / "results"


@pytest.mark.slow
def test_the_committed_results_are_those_of_the_committed_records(
    tmp_path: Path,
) -> None:
    made = write_results(load_records(RESULTS / "records"), tmp_path)
    assert made.read_text() == (RESULTS / "RESULTS.md").read_text()
    figures = {path.name for path in tmp_path.glob("*.png")}
    assert figures == {path.name for path in RESULTS.glob("*.png")}


@pytest.mark.parametrize(
    "page",
    sorted((ROOT / "benchmarks").rglob("*.md")),
    ids=lambda page: str(page.relative_to(ROOT)),
)
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#:]+)\)", page.read_text()):
        assert (page.parent / target).exists(), target
