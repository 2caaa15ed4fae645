"""Figures of a study."""

from __future__ import annotations

import numpy as np
import pytest

from nequip_decorr.study.answers import Answer
from nequip_decorr.study.questions import Question
from nequip_decorr.study.report.figures import forest_figure, survival_figure
from nequip_decorr.study.report.result import findings
from nequip_decorr.study.statistics import Effect
from tests.support.synthetic_study import HORIZON_PS, synthetic_study


@pytest.mark.parametrize(("scale_ps", "scale"), [(0.05, "log"), (5.0, "linear")])
def test_early_events_are_seen(tmp_path, scale_ps, scale):
    """Half of them before 5 % of the horizon would be a line at the edge."""
    found = findings(synthetic_study(tmp_path / "s", scale_ps=scale_ps))
    figure = survival_figure(
        found.models, found.variants, found.conditions, "unphysical"
    )
    first = min(
        replica["unphysical"]["time_ps"]
        for model in found.models
        for replicas in model.replicas.values()
        for replica in replicas
    )
    for axis in figure.axes:
        assert axis.get_xscale() == scale
        assert axis.get_xlim()[0] < first
        assert axis.get_xlim()[1] == HORIZON_PS
        for line in axis.lines:
            time, share = line.get_data()
            assert share[0] == 1
            assert (np.diff(time) >= 0).all()
            assert (np.diff(share) <= 0).all()


@pytest.mark.parametrize(
    ("value", "low", "high", "bar", "arrows"),
    [
        (1.5, 1.2, 2.0, (1.2, 2.0), ""),
        (30.0, 25.0, 36.0, (20, 20), ">"),
        (1 / 30, 1 / 36, 1 / 25, (0.05, 0.05), "<"),
        (None, 3.0, None, (3, 20), ">"),
        (None, 25.0, None, (20, 20), ">"),
        (None, None, 0.5, (0.05, 0.5), "<"),
        (2.0, 0.01, 40.0, (0.05, 20), "<>"),
    ],
)
def test_limits_beyond_the_axis_are_arrows_at_its_end(value, low, high, bar, arrows):
    effect = Effect(None, value, low, high, p_value=0.5, seeds=8, spread=None)
    answer = Answer(Question("term", "time", "hot@1200K", "unphysical"), effect)
    (axis,) = forest_figure([answer], ["none", "term"]).axes
    lines = {line.get_marker(): line.get_xdata() for line in axis.lines[:-1]}
    assert tuple(lines.pop("None")) == pytest.approx(bar)
    point = lines.pop("o", None)
    assert (point is None) == (value is None)
    if point is not None:
        assert bar[0] <= point[0] <= bar[1]
    assert "".join(sorted(lines)) == arrows
    for mark, (edge,) in lines.items():
        assert edge == pytest.approx(bar["<>".index(mark)])
