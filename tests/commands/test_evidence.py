"""The evidence in its smallest form, through the real commands."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml
from ase.io import read, write

from benchmarks.hfox import data, evidence

pytestmark = pytest.mark.slow

HFOX = Path(evidence.__file__).parent

#: Together they need every control that is not the package's: two trainings.
CONTROLS = {
    "sam": ["sam", "by-element-pair"],
    "noise": ["weight-noise", "decorr-form"],
}


def overrides_of(names: list[str]) -> list[str]:
    """Overrides of variants in the studies of the benchmark."""
    found = {}
    for path in (HFOX / "studies" / "cpu").glob("*.yaml"):
        found |= yaml.safe_load(path.read_text())["variants"]
    return [override for name in names for override in found[name]]


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """Folder of a study: few frames, short trainings, MD of checkpoints."""
    frames = tmp_path / "data"
    frames.mkdir()
    counts = {"hfo2_train": 10, "hfo2_val": 2}
    for path in sorted(data.DATA.glob("*.extxyz")):
        write(frames / path.name, read(path, f":{counts.get(path.stem, 2)}"))
    short = ["trainer.max_epochs=1", f"data_dir={frames}"]
    start = str(frames / "hfo2_2400K_start.extxyz")
    md = {"structures": start, "temperatures_K": [2400], "horizon_ps": 0.01}
    study = {
        "config": str(HFOX / "train.yaml"),
        "seeds": [1],
        "variants": {
            name: [*short, *overrides_of(names)] for name, names in CONTROLS.items()
        },
        "compile": False,
        "inspect": False,
        "md": {"HfO2": {**md, "replicas": 1}},
        "primary": False,
        "executor": {"local": {"processes": 2}},
    }
    folder = tmp_path / "studies"
    folder.mkdir()
    (folder / "small.yaml").write_text(yaml.safe_dump(study, width=1000))
    return folder


def test_evidence_runs_studies_and_writes_results(
    small: Path, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    def run() -> int:
        out = tmp_path / "results"
        return evidence.main(["--studies", str(small), "--out", str(out)])

    assert run() == 0, capfd.readouterr()
    result = json.loads((tmp_path / "results/small/result.json").read_text())
    assert result["complete"]
    errors = [model["errors"]["hfo2_test"]["forces_rmse"] for model in result["models"]]
    assert len(set(errors)) == len(CONTROLS)
    text = (tmp_path / "results/RESULTS.md").read_text()
    assert "| small | noise | 1 |" in text

    # again: nothing is run, the results are the same
    capfd.readouterr()
    assert run() == 0
    assert "complete; report:" in capfd.readouterr().out
    assert (tmp_path / "results/RESULTS.md").read_text() == text
