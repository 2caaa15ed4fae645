"""What stops a run is no event, and the same call goes on where it had stopped."""

from dataclasses import replace

import ase.io
import pytest

from nequip_decorr.md import Criteria, RunStoppedError, results, run_stability
from tests.support.potentials import Beyond, cardless, crystal, dying, flyer, greedy
from tests.support.short_runs import SHORT, ends, springs

LONG = replace(SHORT, horizon_ps=20.0, frame_interval_steps=None, replicas=4)
ENSEMBLES = ["langevin", "nose-hoover", "nve", "ramp"]


def of(ensemble, protocol=SHORT):
    end = 900.0 if ensemble == "ramp" else None
    return replace(protocol, ensemble=ensemble, ramp_end_temperature_K=end)


@pytest.mark.slow
def test_a_worker_that_is_killed_is_no_event(tmp_path):
    """As the kernel does when memory is short."""
    with pytest.raises(RunStoppedError, match="worker process was killed") as stopped:
        run_stability(dying, crystal(), SHORT, output=tmp_path / "a", processes=2)
    assert stopped.value.reason == "worker_died"
    assert not any(r.first for r in stopped.value.result.replicas)
    run_stability(springs(), crystal(), SHORT, output=tmp_path / "a")
    run_stability(springs(), crystal(), SHORT, output=tmp_path / "whole")
    assert ends(tmp_path / "a") == ends(tmp_path / "whole")


@pytest.mark.slow
def test_a_worker_without_a_model_says_why(tmp_path):
    with pytest.raises(RunStoppedError, match="RuntimeError: no card left") as stopped:
        run_stability(cardless, crystal(), SHORT, output=tmp_path, processes=2)
    assert stopped.value.reason == "model_broken"


@pytest.mark.slow
def test_the_first_stop_is_the_reason_of_all(tmp_path, monkeypatch):
    """The other worker stops as if interrupted, and later."""
    monkeypatch.setenv("GREEDY", str(tmp_path / "greedy"))
    with pytest.raises(RunStoppedError, match="ran out of memory") as stopped:
        run_stability(greedy, crystal(), LONG, output=tmp_path / "a", processes=2)
    assert stopped.value.reason == "out_of_memory"


@pytest.mark.parametrize("ensemble", ENSEMBLES)
@pytest.mark.parametrize("signal", ["interrupt", "terminate"])
def test_interrupted_and_resumed_is_as_never_stopped(tmp_path, ensemble, signal):
    protocol = of(ensemble)
    run_stability(springs(), crystal(), protocol, output=tmp_path / "whole")
    halves = tmp_path / "halves"
    # one call to know the model by and 31 a replica: the second one is stopped at its
    # 14th step
    with pytest.raises(RunStoppedError, match="rerun the same command") as stopped:
        run_stability(springs(46, signal), crystal(), protocol, output=halves)
    result = results.load(halves / "result.json")
    assert stopped.value.result == result
    assert not result.complete
    assert [r.censored_by for r in result.replicas] == ["horizon", "interrupt"]
    assert result.replicas[1].time_ps == pytest.approx(13 * 2e-3)
    assert stopped.value.reason == "interrupt"
    again = springs()
    run_stability(again, crystal(), protocol, output=halves)
    assert again.calls == 1 + 17
    assert ends(halves) == ends(tmp_path / "whole")


def test_a_finished_run_is_only_read(tmp_path):
    first = run_stability(springs(), crystal(), SHORT, output=tmp_path)
    model = springs()
    second = run_stability(model, crystal(), SHORT, output=tmp_path)
    # to know the model by
    assert model.calls == 1
    assert second.replicas == first.replicas


def test_failures_survive_a_resume(tmp_path):
    """Interrupted within the 50 fs of a hot spell: the same event, to the bit."""
    criteria = Criteria(runaway_sigma=1e-9, stored_energy_eV_per_atom=0)
    protocol = replace(SHORT, criteria=criteria, horizon_ps=1.0, replicas=1, seed=3)
    whole = run_stability(springs(), crystal(), protocol, output=tmp_path / "whole")
    failure = whole.replicas[0].first
    assert failure.cause == "runaway"
    halves = tmp_path / "halves"
    with pytest.raises(RunStoppedError):
        call = failure.step - 5
        run_stability(springs(call, "interrupt"), crystal(), protocol, output=halves)
    run_stability(springs(), crystal(), protocol, output=halves)
    assert ends(halves) == ends(tmp_path / "whole")
    assert (
        ase.io.read(halves / failure.last_good_frame).info["step"] < failure.step - 24
    )


def test_a_hiccup_of_the_model_is_no_event(tmp_path):
    smooth = run_stability(springs(), crystal(), SHORT, output=tmp_path / "a")
    rough = run_stability(springs(9, "once"), crystal(), SHORT, output=tmp_path / "b")
    assert rough.replicas == smooth.replicas


def test_a_broken_model_is_no_event(tmp_path):
    with pytest.raises(RunStoppedError, match="fell off the bus") as stopped:
        model, never = springs(50, "broken"), 1e9  # a slow machine saves in between
        run_stability(model, crystal(), SHORT, output=tmp_path, save_every_s=never)
    assert stopped.value.reason == "model_broken"
    assert [bool(r.first) for r in stopped.value.result.replicas] == [False]
    result = run_stability(springs(), crystal(), SHORT, output=tmp_path)
    assert result.complete


def test_a_model_that_cannot_start_is_told_of(tmp_path):
    with pytest.raises(RunStoppedError, match="raises an exception on a start struct"):
        run_stability(Beyond(-1.0, "raise"), flyer(), SHORT, output=tmp_path)


def test_memory_that_runs_out_censors(tmp_path):
    with pytest.raises(RunStoppedError, match="out of memory") as stopped:
        run_stability(
            springs(45, "memory"), crystal(), SHORT, output=tmp_path, save_every_s=0.0
        )
    result = results.load(tmp_path / "result.json")
    assert stopped.value.reason == "out_of_memory"
    assert [r.censored_by for r in result.replicas] == ["horizon", "out_of_memory"]
    assert [bool(r.first) for r in result.replicas] == [False, False]
    run_stability(springs(), crystal(), SHORT, output=tmp_path)
    whole = run_stability(springs(), crystal(), SHORT, output=tmp_path / "whole")
    assert results.load(tmp_path / "result.json").replicas == whole.replicas


def test_a_full_disk_censors(tmp_path):
    """The state of the second replica goes to /dev/full."""
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "0001.npz.part").symlink_to("/dev/full")
    with pytest.raises(RunStoppedError, match="no disk space is left") as stopped:
        run_stability(springs(), crystal(), SHORT, output=tmp_path, save_every_s=0.0)
    assert stopped.value.reason == "disk_full"
    result = results.load(tmp_path / "result.json")
    assert [r.censored_by for r in result.replicas] == ["horizon"]
    assert run_stability(springs(), crystal(), SHORT, output=tmp_path).complete


def test_a_damaged_state_costs_time_only(tmp_path):
    protocol = of("langevin")
    run_stability(springs(), crystal(), protocol, output=tmp_path / "whole")
    halves = tmp_path / "halves"
    with pytest.raises(RunStoppedError):
        run_stability(springs(45, "interrupt"), crystal(), protocol, output=halves)
    state = halves / "state" / "0001.npz"
    state.write_bytes(state.read_bytes()[:100])
    run_stability(springs(), crystal(), protocol, output=halves)
    assert ends(halves) == ends(tmp_path / "whole")


def test_a_disk_that_is_full_for_the_result_file(tmp_path):
    """What was run is kept, and told; the same call writes it when there is space."""
    run_stability(springs(), crystal(), SHORT, output=tmp_path)
    (tmp_path / "result.json").unlink()
    (tmp_path / "replicas" / "0001.json").unlink()
    (tmp_path / "result.json.part").symlink_to("/dev/full")
    with pytest.raises(RunStoppedError, match="no disk space is left") as stopped:
        run_stability(springs(), crystal(), SHORT, output=tmp_path)
    assert stopped.value.reason == "disk_full"
    assert stopped.value.result.complete
    assert run_stability(springs(), crystal(), SHORT, output=tmp_path).complete
