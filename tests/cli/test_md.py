"""What the command does around a run: exit statuses, references, reading again."""

import argparse
import json
import re

import ase.io
import pytest
from ase.build import bulk
from rich.console import Console

from nequip_decorr import UserError
from nequip_decorr.cli import md as command
from nequip_decorr.cli.finishing import finish
from nequip_decorr.cli.main import main
from nequip_decorr.md import results, run_stability
from nequip_decorr.md.protocol import Protocol
from tests.support.potentials import crystal
from tests.support.short_runs import springs

SHORT = Protocol(timestep_fs=2.0, horizon_ps=0.06, replicas=2, frame_interval_steps=5)


@pytest.fixture
def md(monkeypatch, tmp_path):
    """The command, with a spring crystal in place of the model file."""

    def call(model, *arguments):
        monkeypatch.setattr(
            command,
            "run_stability",
            lambda *_, **options: run_stability(
                model, crystal(), SHORT, output=options["output"]
            ),
        )
        out = str(tmp_path / "run")
        return main(["md", "m.ckpt", "s.xyz", "--out", out, *map(str, arguments)])

    return call


# --- exit statuses -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("what", "status"), [("interrupt", 130), ("broken", 2), ("memory", 2)]
)
def test_only_an_interrupt_has_the_status_of_one(md, capsys, what, status):
    assert md(springs(45, what)) == status
    assert capsys.readouterr().err.startswith("nequip-decorr md: ")


def interrupted(*_, **__):
    # what Ctrl-C raises; a shell's background jobs ignore the signal itself
    raise KeyboardInterrupt


@pytest.mark.parametrize("where", ["import", "model", "finish"])
def test_an_interrupt_anywhere_is_one_line(md, monkeypatch, capsys, where):
    if where == "import":
        monkeypatch.setattr(
            "nequip_decorr.cli.main.importlib.import_module", interrupted
        )
    elif where == "finish":
        monkeypatch.setattr("nequip_decorr.cli.finishing.add_fidelity", interrupted)
    else:
        monkeypatch.setattr(
            "nequip_decorr.md.running.run.calculator_model", interrupted
        )
    try:
        status = md(springs())
    except KeyboardInterrupt:
        # pytest itself would stop at it
        pytest.fail("the interrupt went through")
    assert status == 130
    assert capsys.readouterr().err == "nequip-decorr: interrupted\n"


def test_without_matplotlib_there_is_no_report(md, monkeypatch, tmp_path, capsys):
    monkeypatch.setattr("nequip_decorr.plotting.find_spec", lambda name: None)
    assert md(springs()) == 0
    error = capsys.readouterr().err
    assert error.startswith("nequip-decorr md: no report: ")
    assert "pip install" in error
    assert (tmp_path / "run" / "result.json").is_file()
    assert not (tmp_path / "run" / "report.html").exists()


# --- the reference -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.foo", "hello world\n", "got .*r.foo .*; try `ase info"),
        ("r.extxyz", "2\n\nAr 0 0 0\n", "a reference trajectory that ase reads"),
        ("r.csv", "r_A, Cu-Cu\n7, 1\n9, 1\n", r"r_A is from 7 to 9\); give r_A in A"),
        ("r.csv", "r_A, Cu-Cu\n0, nan\n9, nan\n", "values of Cu-Cu between 0.025"),
        ("r.csv", None, "which does not exist"),
        (".", None, "which is a folder"),
    ],
    ids=["format", "truncated", "range", "nan", "missing", "folder"],
)
def test_a_reference_that_cannot_be_used_is_refused_at_once(
    md, tmp_path, capsys, name, text, message
):
    if text is not None:
        (tmp_path / name).write_text(text)
    model = springs()
    assert md(model, "--reference", tmp_path / name) == 2
    err = capsys.readouterr().err
    assert err.startswith("nequip-decorr md: expected ")
    assert err.count("\n") == 1
    assert re.search(message, err), err
    assert model.calls == 0


# --- reading a finished run again ----------------------------------------------------


def test_what_was_measured_stays_until_there_is_a_reference(md, tmp_path):
    reference = tmp_path / "cu.extxyz"
    ase.io.write(reference, [bulk("Cu", cubic=True) * (2, 2, 2)] * 3)
    path = tmp_path / "run" / "result.json"
    assert md(springs(), "--reference", reference) == 0
    before = path.read_bytes()
    assert json.loads(before)["fidelity"]["distributions"]
    assert md(springs()) == 0
    assert path.read_bytes() == before
    other = tmp_path / "other.extxyz"
    ase.io.write(other, [bulk("Cu", cubic=True, a=3.9) * (2, 2, 2)] * 3)
    assert md(springs(), "--reference", other) == 0
    assert results.load(path).fidelity["reference"] == str(other)


def test_a_run_without_reference_has_its_temperature_checked(tmp_path):
    folder = tmp_path / "run"
    result = run_stability(springs(), crystal(), SHORT, output=folder)
    finish(result, folder / "result.json", None, Console(quiet=True), command="md")
    assert results.load(folder / "result.json").fidelity["reference"] is None


# --- options -------------------------------------------------------------------------


def parsed(*arguments):
    parser = argparse.ArgumentParser()
    command.add_arguments(parser)
    return command.protocol_of(parser.parse_args(["m.ckpt", *arguments]))


def test_what_ends_a_replica_is_an_option(tmp_path):
    assert parsed().until == "first"
    assert parsed("--until", "explosion").until == "explosion"
    path = tmp_path / "p.yaml"
    path.write_text("until: explosion\n")
    assert parsed("--protocol", str(path)).until == "explosion"
    assert parsed("--protocol", str(path), "--until", "first").until == "first"


def test_settings_are_options():
    found = parsed("--ensemble", "ramp", "--ramp-to", "900", "--horizon-ps", "3",
                   "--friction-per-fs", "0.02")  # fmt: skip
    assert (found.ensemble, found.ramp_end_temperature_K) == ("ramp", 900)
    assert (found.horizon_ps, found.friction_per_fs) == (3, 0.02)
    found = parsed("--timestep-fs", "0.5", "--replicas", "3", "--seed", "7")
    assert (found.timestep_fs, found.replicas, found.seed) == (0.5, 3, 7)
    assert parsed("--keep-velocities", "--drop-constraints").keep_velocities
    assert parsed("--keep-velocities", "--drop-constraints").drop_constraints


def test_limits_are_those_of_the_temperature_that_is_given():
    """Not of the 300 K of a protocol that says nothing else."""
    given = ("--temperature", "100", "--criteria", "max_temperature_K=250")
    found = parsed(*given)
    assert found.criteria.max_temperature_K == 250
    assert found.temperatures_K == (100,)
    with pytest.raises(UserError, match="max_temperature_K"):
        parsed("--temperature", "300", *given[2:])
    with pytest.raises(UserError, match="mean 'max_temperature_K'"):
        parsed("--criteria", "max_temperature=250")


# --- judged again --------------------------------------------------------------------


@pytest.fixture
def ran(tmp_path):
    """A finished run of springs at 300 K, its folder."""
    run_stability(springs(), crystal(), SHORT, output=tmp_path / "run")
    return tmp_path / "run"


def again(*arguments):
    return main(["md", *map(str, arguments)])


def test_a_run_is_judged_again_beside_it(ran, capsys):
    own = (ran / "result.json").read_bytes()
    assert again(ran, "--rejudge", "--criteria", "max_displacement_A=0.001",
                 "max_atom_kinetic_eV=null") == 0  # fmt: skip
    name = "rejudged-max_atom_kinetic_eV=null,max_displacement_A=0.001"
    found = results.load(ran / f"{name}.json")
    assert [r.explosion.step for r in found.replicas] == [1, 1]
    assert found.protocol["criteria"]["max_displacement_A"] == 0.001
    assert found.machine["rejudged_from"] == str(ran / "result.json")
    assert "<html" in (ran / f"{name}.html").read_text()
    assert (ran / "result.json").read_bytes() == own
    out = capsys.readouterr().out
    assert "criteria.max_displacement_A: 0.001 (was 0.5 in the run)" in out
    assert "explosion: 2 of 2 (was 0 in the run)" in out
    assert f"{name}.json" in out


def test_compare_takes_runs_that_were_judged_again(ran, tmp_path, capsys):
    """Beside the run, or in a folder of its own."""
    run_stability(springs(), crystal(), SHORT, output=tmp_path / "other")
    limits = ("max_displacement_A=0.001", "max_atom_kinetic_eV=null")
    limit = ("--rejudge", "--criteria", *limits)
    for run in ("run", "other"):
        assert again(tmp_path / run, *limit) == 0
        assert again(tmp_path / run, *limit, "--out", tmp_path / f"{run}-narrow") == 0
    capsys.readouterr()
    name = f"rejudged-{','.join(sorted(limits))}.json"
    for pair in (
        (tmp_path / "run" / name, tmp_path / "other" / name),
        (tmp_path / "run-narrow", tmp_path / "other-narrow"),
    ):
        assert main(["compare", *map(str, pair)]) == 0
        assert capsys.readouterr().out.count(" 2/2 ") == 2
    # of the runs themselves, none has failed
    assert main(["compare", str(ran), str(tmp_path / "other")]) == 0
    assert " 2/2 " not in capsys.readouterr().out
    main(["compare", str(ran), str(tmp_path / "other-narrow")])
    assert "max_displacement_A" in "".join(capsys.readouterr())


def test_a_run_is_judged_again_into_a_folder(ran, tmp_path, capsys):
    out = tmp_path / "narrow"
    arguments = ("--rejudge", "--criteria", "max_temperature_K=310", "--out", out)
    assert again(ran, *arguments) == 0
    found = results.load(out / "result.json")
    for replica in found.replicas:
        assert (out / replica.trajectory).is_file()
    assert (out / "report.html").is_file()
    # again over its own, but never over a run
    assert again(ran, *arguments) == 0
    assert again(ran, *arguments[:-1], ran) == 2
    (tmp_path / "file").touch()
    capsys.readouterr()
    assert again(ran, *arguments[:-1], tmp_path / "file" / "out") == 2
    assert "cannot create the folder" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "takes no options that describe a run (given: neither)"),
        (("--criteria", "isolation_ratio=2"), "isolation_ratio as in the run"),
        (("--criteria", "max_force=2"), "did you mean 'max_force_eV_per_A'"),
        (("--criteria", "max_force_eV_per_A"), "expected NAME=NUMBER or NAME=null"),
        (("--criteria", "max_force_eV_per_A=big"), "expected NAME=NUMBER"),
        (
            ("--criteria", "max_force_eV_per_A=2", "--temperature", "300"),
            "(given: --temperature); use",
        ),
        (("--criteria", "max_force_eV_per_A=2", "--half-step"), "(given: --half-step)"),
    ],
)
def test_what_cannot_be_judged_again_is_refused(ran, capsys, arguments, message):
    assert again(ran, "--rejudge", *arguments) == 2
    error = capsys.readouterr().err
    assert message in error
    assert error.count("\n") == 1
    assert not list(ran.glob("rejudged*"))


def test_no_run_to_judge_again(tmp_path, capsys):
    assert again(tmp_path, "--rejudge", "--criteria", "max_force_eV_per_A=2") == 2
    assert "expected a result file" in capsys.readouterr().err


def test_limits_of_a_run_are_options(tmp_path):
    given = parsed("--criteria", "min_distance_ratio=0.5", "runaway_sigma=null")
    assert given.criteria.min_distance_ratio == 0.5
    assert given.criteria.runaway_sigma is None
    assert given.criteria.max_force_eV_per_A == 100.0
