"""Result files: written and read to the last bit, with traces beside them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.report.html import render_report
from nequip_decorr.md.results import Event, Trace, load, save
from nequip_decorr.md.statistics.comparison import compare_runs
from nequip_decorr.md.statistics.drift import run_drift
from tests.support.synthetic import replica, run

#: Written by nequip-decorr 0.1.0.dev0 when schema 1 was current: NVE, an atom of argon
#: that meets a hole in one of four replicas.
SCHEMA_1 = Path(__file__).parent / "data" / "schema_1.json"


def without_traces(result):
    return replace(
        result, replicas=tuple(replace(r, trace=Trace()) for r in result.replicas)
    )


def test_what_is_written_is_read_again(tmp_path):
    result = run(traces=True)
    save(result, tmp_path / "result.json")
    assert load(tmp_path / "result.json") == result


def test_traces_are_beside_the_file(tmp_path):
    result = run(traces=True)
    path = tmp_path / "result.json"
    save(result, path)
    data = json.loads(path.read_text())
    names = [replica["trace"] for replica in data["replicas"]]
    assert names[3] == "result.traces/0003.npz"
    assert sorted(p.name for p in (tmp_path / "result.traces").iterdir()) == [
        Path(name).name for name in names
    ]
    save(without_traces(result), tmp_path / "bare.json")
    grown = path.stat().st_size - (tmp_path / "bare.json").stat().st_size
    assert grown == len(names) * (len('"result.traces/0000.npz"') - len("null"))


def test_results_in_one_folder_keep_their_traces_apart(tmp_path):
    both = {name: run(traces=True, seed=ord(name)) for name in "ab"}
    for name, result in both.items():
        save(result, tmp_path / f"{name}.json")
    for name, result in both.items():
        assert load(tmp_path / f"{name}.json") == result


def test_a_file_copied_alone_has_all_but_traces(tmp_path):
    result = run(traces=True)
    save(result, tmp_path / "result.json")
    (tmp_path / "alone").mkdir()
    (tmp_path / "result.json").rename(tmp_path / "alone" / "result.json")
    assert load(tmp_path / "alone" / "result.json") == without_traces(result)


def test_an_empty_trace_takes_no_file(tmp_path):
    path = tmp_path / "result.json"
    save(run(traces=True), path)
    save(run(), path)
    assert not list((tmp_path / "result.traces").iterdir())
    assert load(path) == run()


def test_a_file_of_schema_1():
    result = load(SCHEMA_1)
    assert (result.ensemble, result.timestep_fs, result.horizon_ps) == ("nve", 2.0, 0.4)
    assert result.complete
    assert [bool(r.first) for r in result.replicas] == [True, False, False, False]
    explosion = result.replicas[0].explosion
    assert explosion.kind == "explosion"
    assert (explosion.cause, explosion.step) == ("exception", 184)
    assert explosion.time_ps == 0.368
    assert result.replicas[0].unphysical is None
    assert result.replicas[1].trace.time_ps == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert len(run_drift(result)) == 4
    assert compare_runs(result, result).n_pairs == 4
    assert "1 of 4" in render_report(result, SCHEMA_1.parent)


@pytest.mark.parametrize("cause", results.CAUSES)
def test_a_failure_of_schema_1_goes_to_the_kind_of_its_cause(tmp_path, cause):
    data = json.loads(SCHEMA_1.read_text())
    data["replicas"][0]["failure"]["cause"] = cause
    path = tmp_path / "result.json"
    path.write_text(json.dumps(data))
    replica = load(path).replicas[0]
    kind = "unphysical" if cause in ("overlap", "dissociation") else "explosion"
    assert replica.event(kind).cause == cause
    assert [replica.event(k) for k in results.KINDS if k != kind] == [None]


def test_how_long_a_replica_is_followed_for_each_kind():
    overlap, blowup = Event("overlap", 200, 0.2, "m"), Event("blowup", 700, 0.7, "m")
    both = replace(replica(0, time_ps=0.7), unphysical=overlap, explosion=blowup)
    assert both.first == overlap
    assert both.followed("unphysical") == (0.2, True)
    assert both.followed("explosion") == (0.7, True)
    ended = replace(both, time_ps=0.2, explosion=None, censored_by=None)
    assert ended.followed("explosion") == (0.2, False)
    went_on = replace(both, time_ps=1.0, explosion=None, censored_by="horizon")
    assert went_on.followed("unphysical") == (0.2, True)
    assert went_on.followed("explosion") == (1.0, False)
    exploded = replace(both, unphysical=None)
    assert exploded.first == blowup
    assert exploded.followed("unphysical") == (0.7, False)
    sound = replica(0, time_ps=1.0)
    assert sound.first is None
    assert sound.followed("unphysical") == sound.followed("explosion") == (1.0, False)


def test_a_file_of_schema_1_is_written_as_the_present_one(tmp_path):
    path = tmp_path / "result.json"
    save(load(SCHEMA_1), path)
    assert json.loads(path.read_text())["schema"] == results.SCHEMA
    assert load(path) == load(SCHEMA_1)


def places(data, at=()):
    """Where the values of a JSON document are."""
    if isinstance(data, dict | list):
        for key, value in data.items() if isinstance(data, dict) else enumerate(data):
            yield (*at, key)
            yield from places(value, (*at, key))


@pytest.mark.parametrize("change", ["missing", "renamed", "text"])
def test_a_damaged_file_is_refused_or_read_as_it_is(tmp_path, change):
    """No reader stumbles: it is refused in one line, or of no account."""
    path = tmp_path / "result.json"
    save(run(n_structures=2, replicas=1), path)
    sound = path.read_text()
    refused = set()
    for at in places(json.loads(sound)):
        data = json.loads(sound)
        *parents, key = at
        holder = data
        for parent in parents:
            holder = holder[parent]
        value = holder[key] if change == "text" else holder.pop(key)
        if change == "renamed" and isinstance(holder, dict):
            holder[f"{key}x"] = value
        elif change == "text":
            holder[key] = "text"
        path.write_text(json.dumps(data))
        try:
            found = load(path)
            assert isinstance(found.horizon_ps + found.timestep_fs, float)
            for replica in found.replicas:
                assert replica.time_ps >= 0
                assert [replica.followed(kind) for kind in results.KINDS]
        except UserError as error:
            assert "\n" not in str(error)
            refused.add(at)
    always = {("protocol",), ("replicas",), ("replicas", 0, "time_ps")}
    assert always | {("protocol", "horizon_ps")} <= refused


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ('{"schema": "nequip_decorr.md/2"}', "damaged .KeyError: 'replicas'."),
        ('{"schema": "nequip_decorr.md/1"}', "damaged .KeyError: 'horizon_ps'."),
        ('{"schema": "other"}', "got .* with schema 'other'; run"),
        ("[]", "with schema None"),
        ("{", "which is not JSON"),
        (None, "cannot be read .No such file or directory."),
    ],
)
def test_other_files_are_refused(tmp_path, text, message):
    path = tmp_path / "result.json"
    if text is not None:
        path.write_text(text)
    with pytest.raises(UserError, match=message) as no:
        load(path)
    assert "\n" not in str(no.value)
