"""Commands that the benchmarks run, and tables that they write."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from benchmarks import common
from benchmarks.common import CommandError


def python(code: str) -> list[str]:
    return [sys.executable, "-c", code]


def test_a_command_runs_in_the_repository_on_one_thread(tmp_path: Path) -> None:
    log = tmp_path / "log"
    found = "os.getcwd(), os.environ['OMP_NUM_THREADS'], benchmarks.__file__"
    common.run(python(f"import os, benchmarks; print({found})"), log)
    init = common.ROOT / "benchmarks" / "__init__.py"
    assert log.read_text().split() == [str(common.ROOT), "1", str(init)]


def test_a_command_can_have_variables_of_its_own(tmp_path: Path) -> None:
    log = tmp_path / "log"
    common.run(python("import os; print(os.environ['MINE'])"), log, MINE="1")
    assert log.read_text().strip() == "1"


def test_cpu_time_is_that_of_the_command(tmp_path: Path) -> None:
    code = "import time\nwhile time.process_time() < {}: pass"
    short, long = (
        common.run(python(code.format(s)), tmp_path / "log") for s in (0.1, 0.6)
    )
    assert 0.3 < long - short < 0.8


def test_a_failure_is_told_with_its_last_lines(tmp_path: Path) -> None:
    log = tmp_path / "log"
    process = common.start(python("print('so far'); raise SystemExit('no data')"), log)
    with pytest.raises(CommandError, match=r"failed, see .*log(.|\n)*no data"):
        common.finish(process, log)
    assert "so far" in log.read_text()


def test_json_is_picked_from_what_is_printed() -> None:
    code = "print('Loading'); print('{\"a\": 1}'); print('{\"a\": 2}')"
    assert common.json_lines(python(code)) == [{"a": 1}, {"a": 2}]
    with pytest.raises(CommandError, match="failed"):
        common.json_lines(python("raise SystemExit(3)"))


def test_what_a_user_can_mend_is_one_message(
    capsys: pytest.CaptureFixture[str],
) -> None:
    def failing() -> None:
        raise CommandError("expected data, got none")

    with pytest.raises(SystemExit) as stopped:
        common.enter(failing)
    assert stopped.value.code == "expected data, got none"

    def broken() -> None:
        raise RuntimeError("a bug")

    with pytest.raises(RuntimeError, match="a bug"):
        common.enter(broken)


def test_tables_are_markdown() -> None:
    assert common.markdown(["model", "ms"], [["a", "1.0"], ["b", "20.0"]]) == [
        "| model | ms |",
        "|---|--:|",
        "| a | 1.0 |",
        "| b | 20.0 |",
    ]


def test_the_machine_is_named_with_its_versions() -> None:
    line = common.machine()
    assert "\n" not in line
    for part in ("cores", "thread(s)", "Python 3.", "torch 2.", "nequip-decorr "):
        assert part in line
