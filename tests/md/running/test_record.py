"""The result file of a run that goes on while other processes end replicas."""

from dataclasses import replace

import numpy as np
import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md import Protocol, RunStoppedError, results, run_stability
from nequip_decorr.md.models import calculator_model
from nequip_decorr.md.rejudge import rejudge
from nequip_decorr.md.running import record as record_module
from nequip_decorr.md.running.folder import RunFolder
from nequip_decorr.md.running.record import Record
from nequip_decorr.md.running.run import plan_replicas
from tests.support.potentials import AtCall, K, crystal

SHORT = Protocol(timestep_fs=2.0, horizon_ps=0.06, replicas=2, record_interval_steps=3)


def springs(call=10**9, what=""):
    return AtCall(crystal().positions, K, call, what)


class Busy(RunFolder):
    """A folder in which another process ends a replica once its state has been read."""

    def saved(self, index):
        found = super().saved(index)
        if found is not None:
            self.path.joinpath("lock").unlink(missing_ok=True)
            run_stability(springs(), crystal(), SHORT, output=self.path)
        return found


def test_the_trace_of_a_replica_that_ends_meanwhile_is_whole(tmp_path, monkeypatch):
    with pytest.raises(RunStoppedError):
        run_stability(springs(46, "interrupt"), crystal(), SHORT, output=tmp_path)
    monkeypatch.setattr(record_module, "RESULT_EVERY_S", -1.0)
    plans = plan_replicas([crystal()], SHORT)
    record = Record(calculator_model(springs()), SHORT, plans, Busy(tmp_path), {})
    record.write_sometimes()
    interim = results.load(tmp_path / "result.json")
    assert [r.censored_by for r in interim.replicas] == ["horizon", "interrupt"]
    assert interim.replicas[1].trace == results.Trace()
    # it has ended by now
    assert record.pending() == []
    ended = record.result().replicas[1]
    assert ended.censored_by == "horizon"
    np.testing.assert_allclose(ended.trace.time_ps, np.arange(0, 31, 3) * 2e-3)


def test_what_was_seen_before_a_result_is_not_judged_as_its_own(tmp_path):
    with pytest.raises(RunStoppedError) as stopped:
        run_stability(springs(46, "interrupt"), crystal(), SHORT, output=tmp_path)
    old = stopped.value.result
    limits = {"max_force_eV_per_A": 50.0}
    assert rejudge(old, tmp_path / "result.json", limits).replicas == old.replicas
    later = replace(old.replicas[1], time_ps=0.05)
    now = replace(old, replicas=(old.replicas[0], later))
    with pytest.raises(
        UserError, match=r"end at step 13, before its 0\.05 ps: the run"
    ):
        rejudge(now, tmp_path / "result.json", limits)
