from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace

import pytest
from scipy import stats

from nequip_decorr.cli.main import main
from nequip_decorr.md.results import save
from nequip_decorr.md.statistics.score import PSEUDO_WEIGHT
from tests.support.synthetic import run


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
    assert "good is more stable than bad: score difference +" in printed
    assert "good - bad all 32" in printed
    assert "not reached" in printed


def test_no_failure_is_printed_as_a_bound(folders, capsys):
    assert main(["compare", str(folders / "none"), str(folders / "bad")]) == 0
    printed = words(capsys.readouterr().out)
    # 8 structures of 4 are resampled whole: 1 - a Beta variable; and 0.05^(1/32)
    bound = stats.beta(8, PSEUDO_WEIGHT / 4).ppf(0.025)
    assert f"none 0/32 >= {bound:.2f} >= 0.91 not reached" in printed
    assert "100 %" not in printed


def test_every_other_is_compared_with_the_first(folders, capsys):
    paths = [str(folders / name / "result.json") for name in ("good", "bad", "none")]
    assert main(["compare", *paths]) == 0
    printed = words(capsys.readouterr().out)
    assert "good - bad" in printed
    assert "good - none" in printed
    assert "bad - none" not in printed
    assert "2 comparisons; no interval is widened for that" in printed


def test_what_a_reader_must_know_is_printed(folders, capsys):
    result = run(n_structures=8, replicas=1, temperatures_K=(300.0,))
    save(replace(result, complete=False), folders / "part.json")
    assert main(["compare", str(folders / "good"), str(folders / "part.json")]) == 0
    printed = words(capsys.readouterr().out)
    assert "note: 24 replicas of good without a partner: not used" in printed
    assert "note: part is not complete" in printed


def test_json_has_all_numbers(folders, capsys):
    paths = [str(folders / name) for name in ("good", "bad")]
    assert main(["compare", *paths, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert set(found["runs"]) == {"good", "bad"}
    (comparison,) = found["comparisons"]
    assert comparison["names"] == ["good", "bad"]
    low, high = comparison["difference"]["low"], comparison["difference"]["high"]
    assert 0 < low < comparison["difference"]["value"] < high
    assert set(comparison["by_temperature"]) == {"300.0", "1800.0"}


@pytest.mark.parametrize(
    ("name", "magic"), [("c.png", b"\x89PNG"), ("c.svg", b"<?xml")]
)
def test_figure(folders, tmp_path, name, magic):
    paths = [str(folders / each) for each in ("good", "bad", "none")]
    assert main(["compare", *paths, "--plot", str(tmp_path / name)]) == 0
    assert (tmp_path / name).read_bytes().startswith(magic)


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
    assert "one of them twice" in error_of([good, good], capsys)
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
    assert names == [f"{path}/result.json" for path in paths]


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
