"""Figures of a study."""

from __future__ import annotations

import numpy as np
import pytest

from nequip_decorr.study.report.figures import survival_figure
from nequip_decorr.study.report.result import findings
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
