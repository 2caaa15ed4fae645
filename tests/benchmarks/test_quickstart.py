"""``make quickstart``, with trainings of one epoch and MD of a few steps."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest
import yaml

from nequip_decorr.study.config import read_study
from tests.support.studies import environment

ROOT = Path(__file__).parents[2]
STUDY = ROOT / "benchmarks" / "quickstart" / "study.yaml"


def shortened(folder: Path) -> Path:
    """The study, short and without test and inspect, which other tests cover."""
    study = yaml.safe_load(STUDY.read_text())
    short = ["trainer.max_epochs=1", "+trainer.limit_train_batches=2"]
    short += ["~data.test_file_path"]
    study["variants"] = {k: [*v, *short] for k, v in study["variants"].items()}
    start = read_study(STUDY).md[0].structures
    study["md"]["hot"] |= {"structures": f"{start}@:3", "horizon_ps": 0.02}
    study |= {"config": str(read_study(STUDY).config), "inspect": False}
    path = folder / "study.yaml"
    path.write_text(yaml.safe_dump(study, sort_keys=False))
    return path


@pytest.mark.slow
def test_make_quickstart(tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = subprocess.run(
        [
            *("make", "--no-print-directory", "quickstart"),
            f"--old-file={sys.prefix}/installed",
            *(f"VENV={sys.prefix}", f"STUDY={shortened(tmp_path)}", f"OUT={out}"),
        ],
        cwd=ROOT,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    said = " ".join(done.stdout.split())
    # of the study: both kinds of event, and what one seed cannot tell
    assert "primary question: decorr: time to unphysical geometry, hot@1200K" in said
    assert "time to an explosion, hot@1200K" in said
    assert "this does not tell whether a variant helps" in said
    # of the two models
    for kind in ("unphysical", "explosion"):
        assert f"{kind}: " in said
    assert "decorr_1 / none_1" in said
    assert "this compares these two models, not the recipes" in said
    assert done.stdout.splitlines()[-1] == f"report: {out}/report.html"
    assert (out / "report.html").is_file()


def test_one_seed_of_two_variants() -> None:
    study = read_study(STUDY)
    assert len(study.seeds) == 1
    assert dict(study.variants) == {"none": (), "decorr": ("+nequip_decorr=default",)}
    assert study.md[0].protocol.until == "explosion"
