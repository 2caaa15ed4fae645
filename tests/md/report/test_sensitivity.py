"""The score against the overlap limit, from what the tests of a run saw."""

from __future__ import annotations

from dataclasses import replace

import pytest

from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.md.report.html import render_report
from nequip_decorr.md.report.sensitivity import (
    RATIOS,
    sensitivity,
    sensitivity_figure,
    sensitivity_section,
)
from nequip_decorr.md.results import load, save
from nequip_decorr.md.statistics.survival import estimate_survival
from tests.support.page import Page
from tests.support.synthetic import run


def points_of(folder):
    (points,) = sensitivity(load(folder / "result.json"), folder).values()
    return {point.ratio: point for point in points}


@pytest.mark.parametrize("folder", ["real", "followed"])
def test_points_are_those_of_the_run_judged_again(folder, request):
    folder = request.getfixturevalue(folder)
    path = folder / "result.json"
    result, points = load(path), points_of(folder)
    assert 0.6 in points
    for ratio, point in points.items():
        again = rejudge(result, path, {"min_distance_ratio": ratio}).replicas
        known = "not_followed" not in {r.censored_by for r in again}
        assert known == (point.survival is not None)
        if known:
            expected = estimate_survival(again, point.survival.tau_ps, "unphysical")
            for name in ("score", "n_failures", "median_ps", "curve"):
                assert getattr(point.survival, name) == getattr(expected, name)


@pytest.mark.parametrize("folder", ["real", "followed"])
def test_the_runs_own_limit_gives_the_runs_own_score(folder, request):
    folder = request.getfixturevalue(folder)
    result = load(folder / "result.json")
    point = points_of(folder)[0.6]
    tau = point.survival.tau_ps
    own = estimate_survival(result.replicas, tau, "unphysical")
    assert tau == own.tau_ps
    assert point.survival.score == own.score


@pytest.mark.parametrize("folder", ["real", "followed"])
def test_a_stricter_limit_never_raises_the_score(folder, request):
    points = points_of(request.getfixturevalue(folder))
    known = [points[ratio] for ratio in sorted(points) if points[ratio].survival]
    scores = [point.survival.score.value for point in known]
    assert scores == sorted(scores, reverse=True)
    assert scores[0] > scores[-1]
    assert len({point.survival.tau_ps for point in known}) == 1


def test_what_comes_after_the_end_of_a_run_is_not_known(real, followed):
    ended = {ratio for ratio, point in points_of(real).items() if not point.survival}
    assert ended
    assert max(ended) < 0.6
    # the same replicas were followed to their explosions under wider limits
    assert all(point.survival for point in points_of(followed).values())


def test_limits_that_a_start_structure_does_not_keep_are_left_out(real):
    # fcc copper at 0 K: 2.55 A against a sum of 2.64 A, a little less when rattled
    assert max(points_of(real)) == RATIOS[-1] < 2.55 / 2.64
    result = load(real / "result.json")
    with pytest.MonkeyPatch.context() as patch:  # a grid that goes too far
        patch.setattr("nequip_decorr.md.report.sensitivity.RATIOS", (0.7, 0.99))
        (points,) = sensitivity(result, real).values()
    assert [point.ratio for point in points] == [0.6, 0.7]


def test_a_run_that_was_judged_again_is_shown_whole(real, tmp_path):
    path = real / "result.json"
    again = rejudge(load(path), path, {"min_distance_ratio": 0.7})
    (points,) = sensitivity(again, tmp_path).values()
    assert {p.ratio: p for p in points if p.ratio != 0.6} == {
        ratio: point for ratio, point in points_of(real).items() if ratio != 0.6
    }


def test_the_figure_draws_what_is_known_and_hatches_the_rest(real):
    curves = sensitivity(load(real / "result.json"), real)
    (points,) = curves.values()
    axis = sensitivity_figure(curves, 0.6, 0.5).axes[0]
    line, own = axis.lines
    known = [p for p in points if p.survival]
    assert list(line.get_xdata()) == [p.ratio for p in known]
    assert list(line.get_ydata()) == [p.survival.score.value for p in known]
    assert set(own.get_xdata()) == {0.6}
    (hatched,) = (c for c in axis.collections if c.get_hatch())
    corners = hatched.get_paths()[0].vertices
    assert corners[:, 0].min() == points[0].ratio
    assert corners[:, 0].max() == known[0].ratio
    assert corners[:, 1].min() == known[0].survival.score.value
    assert corners[:, 1].max() == 1.0


def test_the_numbers_are_in_a_table(real):
    result = load(real / "result.json")
    section = sensitivity_section(result, real)
    assert section.table.columns == ("overlap limit", "4000 K")
    rows = dict(section.table.rows)
    points = points_of(real)
    assert rows.keys() == {f"{ratio:g}" for ratio in points}
    assert rows["0.4"] == "not followed"
    score, n = points[0.8].survival.score, points[0.8].survival.n_failures
    assert (
        rows["0.8"]
        == f"{score.value:.2f} [{score.low:.2f}, {score.high:.2f}], {n} of 4"
    )


def test_a_run_that_kept_nothing_says_so(tmp_path):
    result = run()
    save(result, tmp_path / "result.json")
    assert sensitivity_section(result, tmp_path) is None
    text = Page(render_report(result, tmp_path)).text
    assert "this run did not keep the closest distances" in text


def test_a_run_without_an_overlap_limit_has_no_mark(real):
    result = load(real / "result.json")
    criteria = {**result.protocol["criteria"], "min_distance_ratio": None}
    off = replace(result, protocol={**result.protocol, "criteria": criteria})
    curves = sensitivity(off, real)
    (points,) = curves.values()
    assert [p.ratio for p in points] == list(RATIOS)
    assert len(sensitivity_figure(curves, None, 0.5).axes[0].lines) == 1
