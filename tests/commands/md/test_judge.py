"""``nequip-decorr judge`` as a user runs it, and `compare` on what it leaves."""

import json
from pathlib import Path

import pytest
from jsonschema import Draft202012Validator

import nequip_decorr.md
from nequip_decorr.md import results
from tests.support import commands
from tests.support import trajectories as made

pytestmark = pytest.mark.slow

ASKED = ["--temperature", "300", "--timestep-fs", "2"]


def judge(folder, *arguments):
    return commands.run("nequip-decorr", ["judge", *map(str, arguments)], folder)


def write_runs(folder, near_at):
    """Eight replicas of four structures; atoms meet at these frames (None: never)."""
    for number, at in enumerate(near_at):
        frames = made.script(made.oxide(), 8, seed=number // 2)
        made.give(frames, forces=False)
        if at is not None:
            made.approach(frames, at, 1.4)
        place = folder / f"r{number}"
        place.mkdir(parents=True)
        made.write_dump(place / "dump.lammpstrj.gz", frames)


def test_two_models_judged_and_compared(tmp_path):
    write_runs(tmp_path / "first", [2, 3, 2, 4, 3, 2, None, 3])
    write_runs(tmp_path / "second", [6, None, 5, 6, None, 6, None, None])
    for name in ("first", "second"):
        done = judge(tmp_path, name, *ASKED)
        assert done.status == 0, done.output
        assert "not tested: how the run ended" in done.output
        assert "not tested: forces" in done.output
        assert "not tested: temperature" not in done.output
        path = tmp_path / f"{name}-judged" / "result.json"
        schema = json.loads(
            Path(nequip_decorr.md.__file__).with_name("schema.json").read_text()
        )
        Draft202012Validator(schema).validate(json.loads(path.read_text()))
        page = path.with_name("report.html").read_text()
        assert "not tested: forces (no forces in the trajectory)" in page
        assert "data:image/svg+xml" in page
    result = results.load(tmp_path / "first-judged" / "result.json")
    steps = [r.unphysical.step if r.unphysical else None for r in result.replicas]
    assert steps == [20, 30, 20, 40, 30, 20, None, 30]
    assert [r.structure for r in result.replicas] == [0, 0, 1, 1, 2, 2, 3, 3]
    assert result.horizon_ps == 0.14
    compared = commands.run(
        "nequip-decorr",
        ["compare", "first-judged", "second-judged", "--json"],
        tmp_path,
    )
    assert compared.status == 0, compared.output
    assert '"n_pairs": 8' in compared.output


def test_bad_input_is_one_line_and_exit_2(tmp_path):
    write_runs(tmp_path / "runs", [None, None])
    (tmp_path / "wrong.yaml").write_text("criteria: {max_forces: 3}\n")
    cases = {
        "give --temperature K": ["runs", "--timestep-fs", 2],
        "give --timestep-fs": ["runs", "--temperature", 300],
        "which does not exist": ["none.traj", *ASKED],
        "expected TYPE=ELEMENT": ["runs", *ASKED, "--atom-types", "Hf"],
        "did you mean": ["runs", *ASKED, "--protocol", "wrong.yaml"],
        "--frame-interval-steps >= 1": ["runs", *ASKED, "--frame-interval-steps", 0],
    }
    for message, arguments in cases.items():
        line = judge(tmp_path, *arguments, "--out", "out").refusal
        assert line.startswith("nequip-decorr judge: expected")
        assert message in line
    assert not (tmp_path / "out").exists()
