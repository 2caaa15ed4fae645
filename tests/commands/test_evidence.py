"""The evidence of the benchmark, in its smallest form, through the real commands."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from ase.io import read, write

from benchmarks.hfox import data, evidence, models
from benchmarks.hfox.analysis import load_records
from benchmarks.hfox.models import jobs
from benchmarks.hfox.pipeline import CONDITIONS, Scale, correlation, train
from nequip_decorr.errors import UserError

pytestmark = pytest.mark.slow

TINY = Scale(structures=2, horizon_ps=0.02, drift_ps=0.25)
SHORT = ("trainer.max_epochs=2", "num_scalar_features=8")


@pytest.fixture(scope="module")
def few_frames(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small part of each file."""
    folder = tmp_path_factory.mktemp("data")
    counts = {"hfo2_train": 10, "hfo2_val": 4, "hfo2_test": 20}
    for path in sorted(data.DATA.glob("*.extxyz")):
        frames = read(path, f":{counts.get(path.stem, 2)}")
        write(folder / path.name, frames)
    (folder / data.CHECKSUMS).write_text(data.checksums(folder))
    return folder


def test_evidence_makes_records_and_results_and_goes_on(
    few_frames: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def run(grid: list[models.Job]) -> int:
        monkeypatch.setitem(models.GRIDS, "small", grid)
        folders = ["--data", few_frames, "--out", tmp_path, "--work", tmp_path / "work"]
        arguments = ["--grid", "small", "--processes", "2", *map(str, folders)]
        return evidence.main(arguments)

    both = jobs("small", ("none", "cosine-down"), (1,), TINY, SHORT)
    assert run(both) == 0
    records = load_records(tmp_path / "records")
    assert [r.variant for r in records] == ["cosine-down", "none"]
    for record in records:
        assert set(record.conditions) == set(CONDITIONS)
        for condition in CONDITIONS:
            assert len(record.times_ps(condition)) == TINY.structures
        assert len(record.data["nve_drift"]) == 4
        assert record.data["errors"]["hfo2_test"]["forces_rmse"] > 0
        assert len(record.data["correlation"]) == 3
    text = (tmp_path / "RESULTS.md").read_text()
    assert "| cosine-down | 1 |" in text
    for figure in tmp_path.glob("*.png"):
        assert f"({figure.name})" in text
    assert list((tmp_path / "work").iterdir()) == []

    # a second run has nothing to do; a third only what is new, here a failure, which
    # costs no other model its record
    before = {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}
    assert run(both) == 0
    assert "2 of 2 models have a record" in capsys.readouterr().out
    broken = jobs("small", ("sam",), (1,), TINY, ("trainer.no_such_option=1",))
    assert run([both[0], *broken]) == 1
    printed = capsys.readouterr().out
    assert "1 of 2 models have a record" in printed
    assert "nequip-train" in printed
    assert before == {p: p.stat().st_mtime_ns for p in (tmp_path / "records").iterdir()}

    # models of the same names that are trained otherwise do not mix with these
    with pytest.raises(UserError, match=r"small_none_1.json to be of .*another --o"):
        run(jobs("small", ("none",), (1,), TINY, ("trainer.max_epochs=3",)))


@pytest.mark.parametrize(
    "variant", ["sam", "weight-noise", "weight-decay", "by-element-pair"]
)
def test_controls_train(variant: str, few_frames: Path, tmp_path: Path) -> None:
    job = jobs("small", [variant], (1,), TINY, SHORT)[0]
    # a training that was killed left this; what is measured is the new model
    (tmp_path / "best.ckpt").write_text("old")
    found = train(tmp_path, (f"data_dir={few_frames}", *job.arguments))
    assert found["cpu_s"] > 0
    assert found["errors"]["hfo2_test"]["forces_rmse"] > 0
    assert torch.load(tmp_path / "best.ckpt", weights_only=False)["epoch"] < 2
    assert [p.name for p in tmp_path.glob("best*")] == ["best.ckpt"]


@pytest.mark.parametrize("variant", ["none", "constant-0.3", "nodes"])
def test_a_gnn_trains(variant: str, few_frames: Path, tmp_path: Path) -> None:
    short = ("trainer.max_epochs=1", *models.GNN)
    job = jobs("gnn", [variant], (1,), TINY, short)[0]
    train(tmp_path / "run", (f"data_dir={few_frames}", *job.arguments))
    layers = correlation(tmp_path / "run" / "best.ckpt", few_frames)
    assert [layer["channels"] for layer in layers] == [32, 32]
