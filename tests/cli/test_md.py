"""What the command does around a run: exit statuses, references, reading again."""

import json
import re

import ase.io
import pytest
from ase.build import bulk
from rich.console import Console

from nequip_decorr.cli import md as command
from nequip_decorr.cli.main import main
from nequip_decorr.md import results, run_stability
from nequip_decorr.md.protocol import Protocol
from tests.support.potentials import AtCall, K, crystal

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


def springs(call=10**9, what=""):
    return AtCall(crystal().positions, K, call, what)


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
        monkeypatch.setattr(command, "add_fidelity", interrupted)
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


# --- the reference -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("r.foo", "hello world\n", "got .*r.foo .*; try `ase info"),
        ("r.extxyz", "2\n\nAr 0 0 0\n", "a reference trajectory that ase reads"),
        ("r.csv", "r_A, Cu-Cu\n7, 1\n9, 1\n", r"r_A is from 7 to 9\); give r_A in A"),
        ("r.csv", "r_A, Cu-Cu\n0, nan\n9, nan\n", "values of Cu-Cu between 0.025"),
        ("r.csv", None, "which is not there"),
    ],
    ids=["format", "truncated", "range", "nan", "missing"],
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
    command.finish(result, folder / "result.json", None, Console(quiet=True))
    assert results.load(folder / "result.json").fidelity["reference"] is None
