"""What ``nequip-decorr study`` prints while it runs, and where it cannot report."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from nequip_decorr.cli import study as command
from nequip_decorr.cli.main import main
from nequip_decorr.cli.study import Display
from tests.support.synthetic_study import synthetic_study

MISSING = ("none_3.md-hot", "variant-1_3.md-hot")


@pytest.fixture
def folder(tmp_path):
    """A study of 24 tasks, of which two are not done and one failed."""
    return synthetic_study(
        tmp_path / "s", seeds=3, missing=MISSING, failed=("none_1.md-hot",)
    )


@pytest.fixture
def clock(monkeypatch):
    """Seconds, set by the test."""
    now = [1000.0]
    monkeypatch.setattr(command.time, "monotonic", lambda: now[0])
    return now


def display(folder, **options):
    text = io.StringIO()
    console = Console(file=text, width=100, **options)
    return Display(console, folder.registered(), 2), text


def test_a_log_has_a_line_a_minute(folder, clock, capsys):
    shown, _ = display(folder)
    records, running = folder.records(folder.registered()), {MISSING[0]}
    shown(records, running, None)
    shown(records, running, None)
    clock[0] += 59
    shown(records, running, None)
    clock[0] += 2
    shown(records, running, "squeue: timed out")
    said = "21 of 24 tasks done, 1 running"
    assert capsys.readouterr().out.splitlines() == [said, f"{said}; squeue: timed out"]


def test_a_terminal_has_a_table(folder, clock):
    shown, text = display(folder, force_terminal=True)
    with shown.live:
        shown(folder.records(folder.registered()), {MISSING[0]}, None)
        clock[0] += 2
        shown(folder.records(folder.registered()), {MISSING[0]}, "squeue: timed out")
    assert "time left: about 1 min" in text.getvalue() or "60 s" in text.getvalue()
    assert "the scheduler does not answer, trying again" in text.getvalue()


def test_failed_tasks_are_told_with_their_last_lines(folder, capsys):
    assert main(["study", "status", str(folder.path)]) == 0
    printed = capsys.readouterr().out
    assert "none_1.md-hot: the command ended with exit status 1; log: " in printed
    assert "    RuntimeError: out of luck <&>" in printed
    assert "to rerun failed tasks, add --retry to the command that" in printed


def test_without_matplotlib_the_numbers_are_written(folder, monkeypatch, capsys):
    monkeypatch.setattr("nequip_decorr.plotting.find_spec", lambda name: None)
    assert main(["study", "report", str(folder.path)]) == 0
    error = capsys.readouterr().err
    assert error.startswith("nequip-decorr study: no report.html: ")
    assert "pip install" in error
    assert (folder.path / "result.json").is_file()
    assert (folder.path / "answers.csv").is_file()
    assert not (folder.path / "report.html").exists()


def test_a_full_disk_is_one_line(folder, monkeypatch, capsys):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("nequip_decorr.study.report.html.write_data", full)
    assert main(["study", "report", str(folder.path)]) == 2
    error = capsys.readouterr().err
    assert "No space left on device; free some space" in error
    assert error.count("\n") == 1
