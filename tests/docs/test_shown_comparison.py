"""The comparison that is shown is that of two models of the committed evidence."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from nequip_decorr.md import results
from nequip_decorr.md.protocol import Protocol
from nequip_decorr.md.results import Event, Replica, RunResult
from tests.docs.blocks import ROOT
from tests.support.commands import run

RECORDS = ROOT / "benchmarks" / "hfox" / "results" / "confirmed" / "records.jsonl"
STAGE = "md-HfO1.56"


@pytest.fixture(scope="module")
def simulated() -> dict[str, dict[str, Any]]:
    """What the study kept of the simulations of each model."""
    records = map(json.loads, RECORDS.read_text(encoding="utf-8").splitlines())
    return {
        f"{each['variant']}_{each['seed']}": each["result"]
        for each in records
        if each["stage"] == STAGE
    }


def replica(index: int, kept: dict[str, Any]) -> Replica:
    """A replica as ``md`` would have written it, without traces."""
    known = ("structure", "formula", "temperature_K", "seed", "time_ps", "censored_by")
    event = None
    if kept["unphysical"]["happened"]:
        event = Event(
            cause=kept["unphysical"]["cause"],
            step=round(kept["time_ps"] * 500),
            time_ps=kept["time_ps"],
            message="",
            atoms=(),
        )
    return Replica(
        **{name: kept[name] for name in known},
        index=index,
        structure_name=f"start.extxyz#{kept['structure']}",
        n_atoms=41,
        unphysical=event,
    )


@pytest.fixture
def compared(
    simulated: dict[str, dict[str, Any]], tmp_path: Path
) -> Callable[[str, str], str]:
    """The output of ``compare`` for two models of the evidence."""

    def compare(with_: str, without: str) -> str:
        for name, model in (("md-with", with_), ("md-without", without)):
            kept = simulated[model]
            protocol = Protocol(
                temperatures_K=(1200.0,),
                timestep_fs=kept["timestep_fs"],
                horizon_ps=kept["horizon_ps"],
            )
            result = RunResult(
                model={"path": model, "sha256": model, "kind": "compiled"},
                protocol=protocol.to_dict(),
                machine={},
                replicas=tuple(map(replica, range(16), kept["replicas"])),
            )
            (tmp_path / name).mkdir()
            results.save(result, tmp_path / name / results.RESULT_NAME)
        done = run("nequip-decorr", ["compare", "md-with", "md-without"], tmp_path)
        assert done.status == 0, done.output
        return done.output

    return compare


def shown(page: Path) -> list[str]:
    """The lines of the block that ends with who is more stable."""
    blocks = page.read_text(encoding="utf-8").split("```text\n")[1:]
    inside = [block.partition("```")[0] for block in blocks]
    (one,) = (block for block in inside if "is more stable than" in block)
    return [line.strip() for line in one.splitlines() if line.strip(" ─")]


@pytest.mark.parametrize("page", ["README.md", "docs/statistics.md"])
def test_shown_output_is_that_of_the_records(
    page: str, compared: Callable[[str, str], str]
) -> None:
    output = compared("cosine_12", "none_12")
    for line in shown(ROOT / page):
        assert line in output


def test_the_other_seed_differs_as_the_readme_says(
    compared: Callable[[str, str], str],
) -> None:
    text = " ".join((ROOT / "README.md").read_text(encoding="utf-8").split())
    _, _, said = text.partition("With another training seed, the ratio was ")
    ratio = said.partition("]")[0] + "]"
    assert f"{ratio} " in compared("cosine_9", "none_9").replace("\n", " ")
