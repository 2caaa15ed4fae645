from __future__ import annotations

import json
import re
import subprocess
import sys
from dataclasses import replace

import ase.io
import pytest

from nequip_decorr.cli.main import main
from nequip_decorr.md.results import save
from nequip_decorr.md.statistics.fidelity import add_fidelity
from tests.support.rattled import rattled
from tests.support.synthetic import replica, run


@pytest.fixture
def folders(tmp_path):
    """Three runs, each in its folder."""
    for name, hazard, seed in (("good", 0.02, 1), ("bad", 0.4, 2), ("none", 0.0, 3)):
        folder = tmp_path / name
        folder.mkdir()
        result = run(
            hazard_per_ps=hazard,
            n_structures=8,
            replicas=2,
            temperatures_K=(300.0, 1800.0),
            seed=seed,
        )
        save(result, folder / "result.json")
    return tmp_path


def words(text: str) -> str:
    """Text without the line breaks that depend on the terminal's width."""
    return " ".join(text.split())


def test_tables_and_verdict(folders, capsys):
    assert main(["compare", str(folders / "good"), str(folders / "bad")]) == 0
    printed = words(capsys.readouterr().out)
    assert "langevin, 1 fs, horizon 10 ps" in printed
    assert "unphysical: good is more stable than bad: it lasts " in printed
    assert "good / bad " in printed
    assert " of 32 " in printed
    assert "at 300 K" in printed
    assert "over 8 structures (fewer than 80 % failed in one of the models)" in printed
    assert "not reached" in printed
    # no other kind of event, and none of its verdicts
    assert "explosion: not followed: 0 of good and 0 of bad exploded" in printed
    assert "note: this compares these two models, not the recipes" in printed


def test_no_failure_is_printed_as_a_bound(folders, capsys):
    assert main(["compare", str(folders / "none"), str(folders / "bad")]) == 0
    printed = words(capsys.readouterr().out)
    # 0.05^(1/8) structures; and 0.05^(1/16) replicas of each temperature
    assert "none, 300 K 0/16 >= 0.69 >= 0.83 not reached" in printed
    assert "none, 1800 K 0/16 >= 0.69 >= 0.83 not reached" in printed
    assert "unphysical: none is more stable than bad: it lasts >= " in printed
    assert "100 %" not in printed


def test_every_other_is_compared_with_the_first(folders, capsys):
    paths = [str(folders / name / "result.json") for name in ("good", "bad", "none")]
    assert main(["compare", *paths]) == 0
    printed = words(capsys.readouterr().out)
    assert "good / bad" in printed
    assert "good / none" in printed
    assert "bad / none" not in printed
    assert "2 comparisons; intervals are not corrected for their number" in printed


def test_what_a_reader_must_know_is_printed(folders, capsys):
    result = run(n_structures=8, replicas=1, temperatures_K=(300.0,))
    save(replace(result, complete=False), folders / "part.json")
    assert main(["compare", str(folders / "good"), str(folders / "part.json")]) == 0
    printed = words(capsys.readouterr().out)
    assert "note: 24 replicas of good without a partner: not used" in printed
    assert "note: part is not complete" in printed


def test_accuracies_over_the_same_times(tmp_path, capsys):
    """The report has one of 0.4 to 1.9 ps and one of 0.8 to 3.9 ps."""
    reference = tmp_path / "reference.extxyz"
    ase.io.write(reference, rattled(20, seed=2, cells=(2, 2, 2)))
    base = run(hazard_per_ps=0.0, n_structures=1, replicas=1, horizon_ps=4.0)
    for name, end, cause in (("a", 4.0, None), ("b", 2.0, "overlap")):
        (tmp_path / name).mkdir()
        ase.io.write(tmp_path / name / "0.extxyz", rattled(40, seed=1, cells=(2, 2, 2)))
        made = replica(0, time_ps=end, cause=cause, formula="Cl32Na32", n_atoms=64)
        made = replace(made, trajectory="0.extxyz", seed=0)
        add_fidelity(
            replace(base, replicas=(made,)), tmp_path / name / "result.json", reference
        )
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b")]) == 0
    printed = words(capsys.readouterr().out)
    assert (
        "Error of g(r) of Cl32Na32 at 1800 K while both models were stable, 0.8 to 1.9 "
        "ps pair a b perfect model" in printed
    )
    assert "frames 12 12" in printed
    # the same frames, of the same times
    (cells,) = re.findall(r"Cl-Na ([\d.]+ ± [\d.]+) ([\d.]+ ± [\d.]+) [\d.]+ ", printed)
    assert cells[0] == cells[1]
    assert main(["compare", str(tmp_path / "a"), str(tmp_path / "b"), "--json"]) == 0
    (compared,) = json.loads(capsys.readouterr().out)["comparisons"]
    assert compared["distributions"][0]["n_frames"] == [12, 12]


def test_json_has_all_numbers(folders, capsys):
    paths = [str(folders / name) for name in ("good", "bad")]
    assert main(["compare", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["runs"]) == {"unphysical", "explosion"}
    assert set(found["runs"]["unphysical"]) == {
        f"{name}, {kelvin} K" for name in ("good", "bad") for kelvin in (300, 1800)
    }
    (comparison,) = found["comparisons"]
    assert comparison["names"] == ["good", "bad"]
    unphysical = comparison["kinds"]["unphysical"]
    ratio = unphysical["overall"]["ratio"]
    assert 1 < ratio["low"] < ratio["value"]
    assert ratio["units"] == 8
    assert set(unphysical["by_temperature"]) == {"300.0", "1800.0"}
    known = {
        kind: {r["known"] for r in runs.values()}
        for kind, runs in found["runs"].items()
    }
    assert known == {"unphysical": {True}, "explosion": {False}}
    explosion = comparison["kinds"]["explosion"]
    assert explosion["overall"] is None
    assert explosion["verdict"].startswith("not followed")


def test_a_ratio_without_limit_is_null_in_json(folders, capsys):
    paths = [str(folders / name) for name in ("none", "bad")]
    assert main(["compare", *paths, "--json"]) == 0
    (comparison,) = json.loads(capsys.readouterr().out)["comparisons"]
    ratio = comparison["kinds"]["unphysical"]["overall"]["ratio"]
    assert ratio["low"] > 1
    assert (ratio["value"], ratio["high"]) == (None, None)


def test_lines_fit_the_terminal(folders, capsys, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    assert main(["compare", str(folders / "good"), str(folders / "bad")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert max(len(line.rstrip()) for line in lines) <= 80


@pytest.mark.parametrize(
    ("name", "magic"), [("c.png", b"\x89PNG"), ("c.svg", b"<?xml")]
)
def test_figure(folders, tmp_path, name, magic):
    paths = [str(folders / each) for each in ("good", "bad", "none")]
    assert main(["compare", *paths, "--plot", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(magic)


def test_there_is_no_figure_of_what_nobody_followed(tmp_path, capsys):
    """All of both explode from a sound geometry, at once."""
    replicas = tuple(
        replace(replica(k, time_ps=0.1, cause="blowup"), structure=k) for k in range(8)
    )
    stopped = tuple(
        replace(r, explosion=None, censored_by="not_followed") for r in replicas
    )
    for name, made in (("a", replicas), ("b", stopped)):
        save(replace(run(), replicas=made), tmp_path / f"{name}.json")
    paths = [str(tmp_path / f"{name}.json") for name in "ab"]
    plot = tmp_path / "c.png"
    assert main(["compare", *paths, "--plot", str(plot)]) == 0
    assert "no kind of event was followed in all runs" in capsys.readouterr().err
    assert not plot.exists()


def error_of(arguments, capsys):
    assert main(["compare", *map(str, arguments)]) == 2
    printed = capsys.readouterr()
    assert printed.out == ""
    assert printed.err.count("\n") == 1
    return printed.err


def test_what_cannot_be_compared_is_one_line(folders, tmp_path, capsys):
    good, bad = folders / "good", folders / "bad"
    assert "at least two" in error_of([good], capsys)
    assert "check the path" in error_of([good, tmp_path / "nowhere"], capsys)
    empty = tmp_path / "empty"
    empty.mkdir()
    assert "check the path" in error_of([good, empty], capsys)
    assert "the same file twice" in error_of([good, good], capsys)
    assert "ending in .png" in error_of([good, bad, "--plot", "a.docx"], capsys)
    longer = tmp_path / "longer.json"
    save(run(horizon_ps=20.0), longer)
    message = error_of([good, longer], capsys)
    assert "horizon_ps: 10.0 in good, 20.0 in longer" in message


def test_a_foreign_file_is_refused(folders, tmp_path, capsys):
    other = tmp_path / "other.json"
    other.write_text('{"schema": "nequip_decorr.md/0"}')
    assert "nequip_decorr.md/0" in error_of([folders / "good", other], capsys)
    other.write_text("not JSON")
    assert "not JSON" in error_of([folders / "good", other], capsys)


def test_files_of_one_name_are_told_apart(tmp_path, capsys):
    for name in ("a", "b"):
        (tmp_path / name / "md").mkdir(parents=True)
        save(run(seed=ord(name)), tmp_path / name / "md" / "result.json")
    paths = [str(tmp_path / name / "md") for name in ("a", "b")]
    assert main(["compare", *paths, "--json"]) == 0
    names = json.loads(capsys.readouterr().out)["comparisons"][0]["names"]
    assert names == ["a", "b"]
    assert main(["compare", paths[0], paths[0]]) == 2
    assert "the same file twice" in capsys.readouterr().err


@pytest.mark.slow
def test_without_matplotlib_it_says_what_to_install(folders):
    """A fresh interpreter in which matplotlib cannot be found."""
    code = (
        "import sys; sys.path.insert(0, ''); import importlib.util as u; "
        "find = u.find_spec; "
        "u.find_spec = lambda n, *a: None if n == 'matplotlib' else find(n, *a); "
        "sys.modules['matplotlib'] = None; "
        "from nequip_decorr.cli.main import main; sys.exit(main(sys.argv[1:]))"
    )
    paths = [str(folders / name) for name in ("good", "bad")]
    command = [sys.executable, "-c", code, "compare", *paths]
    plain = subprocess.run(command, capture_output=True, text=True, check=False)
    assert plain.returncode == 0
    assert "good is more stable" in plain.stdout
    plotted = subprocess.run(
        [*command, "--plot", "c.png"], capture_output=True, text=True, check=False
    )
    assert plotted.returncode == 2
    assert 'pip install "nequip-decorr[plot]"' in plotted.stderr
