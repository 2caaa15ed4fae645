"""What the benchmark of judging writes can be judged, and is counted."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.cost import judge
from benchmarks.cost.judge import Measured


@pytest.mark.slow
def test_a_trajectory_is_measured(tmp_path: Path) -> None:
    one = judge.measure_one("LAMMPS dump, gz", 2, 5000, tmp_path)
    assert (one.n_atoms, one.n_frames) == (96, 50)
    assert one.size_mb > 0.1
    assert one.seconds > 0
    assert one.peak_mib > 0


@pytest.mark.parametrize("name", judge.FORMATS)
def test_what_is_written_is_sound(
    name: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / judge.FORMATS[name]
    judge.write(path, judge.frames(1, 3), 2)
    judge.judge_once(path, tmp_path / "out")
    assert '"sound": true' in capsys.readouterr().out


def test_rates() -> None:
    one = Measured("XDATCAR", 1000, 500, 10.0, 4.0, 2.0)
    assert one.per_million_s == 8.0
    (row,) = judge.rows([one])
    assert row[5:7] == ["125,000", "8.0"]
