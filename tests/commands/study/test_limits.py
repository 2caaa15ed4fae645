"""The simulations of a study that really ran, judged at tighter limits."""

from __future__ import annotations

import pytest

from benchmarks.practice.limits import judge_again
from nequip_decorr.cli.main import main
from nequip_decorr.md.results import load
from nequip_decorr.study.folder import StudyFolder
from nequip_decorr.study.report.result import findings

pytestmark = pytest.mark.slow

#: Above the shortest distances that a tiny model keeps at 1200 K.
LIMIT = 0.8


@pytest.fixture(scope="module")
def study(undisturbed):
    folder, _ = undisturbed
    (path,) = folder.glob("*/plan.json")
    return StudyFolder(path.parent)


def times(found):
    return {
        (model.variant, replica["structure"]): replica["unphysical"]
        for model in found.models
        for replica in model.replicas["hot@1200K"]
    }


def test_the_limits_of_the_run_change_nothing(study, tmp_path):
    judge_again(study, {"min_distance_ratio": 0.6}, tmp_path / "same")
    again = findings(StudyFolder(tmp_path / "same"))
    assert times(again) == times(findings(study))


def test_tighter_limits_are_those_of_the_command(study, tmp_path):
    judge_again(study, {"min_distance_ratio": LIMIT}, tmp_path / "tight")
    again = times(findings(StudyFolder(tmp_path / "tight")))
    assert len(again) == 4
    for variant in ("fast", "slow"):
        run = study.path / "models" / f"{variant}_1" / "md-hot"
        out = tmp_path / variant
        arguments = ["--rejudge", "--criteria", f"min_distance_ratio={LIMIT}"]
        assert main(["md", str(run), *arguments, "--out", str(out)]) == 0
        for replica in load(out / "result.json").replicas:
            event = again[variant, replica.structure]
            assert event["happened"] == (replica.unphysical is not None)
            if replica.unphysical is not None:
                assert event["time_ps"] == replica.unphysical.time_ps
    assert any(each["happened"] for each in again.values())
