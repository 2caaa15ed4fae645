"""Result files: written and read to the last bit, with traces beside them."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from nequip_decorr.errors import UserError
from nequip_decorr.md import results
from nequip_decorr.md.report.html import render_report
from nequip_decorr.md.results import Trace, load, save
from nequip_decorr.md.statistics.comparison import compare_runs
from nequip_decorr.md.statistics.drift import run_drift
from tests.support.synthetic import run

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
    assert [r.failed for r in result.replicas] == [True, False, False, False]
    failure = result.replicas[0].failure
    assert (failure.cause, failure.step, failure.time_ps) == ("exception", 184, 0.368)
    assert result.replicas[1].trace.time_ps == (0.0, 0.1, 0.2, 0.3, 0.4)
    assert len(run_drift(result)) == 4
    assert compare_runs(result, result).n_pairs == 4
    assert "1 of 4" in render_report(result, SCHEMA_1.parent)


def test_a_file_of_schema_1_is_written_as_the_present_one(tmp_path):
    path = tmp_path / "result.json"
    save(load(SCHEMA_1), path)
    assert json.loads(path.read_text())["schema"] == results.SCHEMA
    assert load(path) == load(SCHEMA_1)


@pytest.mark.parametrize(
    ("text", "message"),
    [
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
