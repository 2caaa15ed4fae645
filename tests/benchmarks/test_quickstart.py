"""The quick start, with trainings of one epoch and MD of a few steps."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.quickstart import comparison


@pytest.mark.slow
def test_the_quick_start_leaves_models_figures_and_reports(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    short = ["--epochs", "1", "--horizon-ps", "0.01", "--replicas", "1"]
    comparison.main(["--out", str(tmp_path), *short])
    (out,) = tmp_path.iterdir()
    for name in ("with", "without"):
        assert (out / name / "best.ckpt").is_file()
        assert all(error > 0 for error in comparison.errors_of(out / name).values())
        assert (out / f"md-{name}-flag" / "result.json").is_file()
        assert (out / f"md-{name}-flag" / "report.html").is_file()
    for figure in ("correlation.png", "survival.png"):
        assert (out / figure).stat().st_size > 1000
    printed = capsys.readouterr().out
    assert "$ nequip-train -cp $PWD/configs -cn quickstart +nequip_decorr" in printed
    assert "1200 K: forces, RMSE (eV/A)" in printed
    assert "effective rank of 32" in printed
    with_flag = (out / "with" / "output.log").read_text()
    assert "schedule constant" in with_flag
    assert "schedule constant" not in (out / "without" / "output.log").read_text()


def test_the_last_epoch_is_read_while_a_training_writes(tmp_path: Path) -> None:
    assert comparison.last_epoch(tmp_path) == 0
    log = tmp_path / "metrics.csv"
    log.write_text("epoch,loss\n0,1.0\n3,0.5\n2,0.1\n")
    assert comparison.last_epoch(tmp_path) == 3
    log.write_text("epoch,loss\n0,1.0\n,")  # a line that is not complete
    assert comparison.last_epoch(tmp_path) == 0


def test_errors_are_those_of_the_last_test(tmp_path: Path) -> None:
    columns = list(comparison.ERRORS.values())
    lines = [",".join(columns), ",".join(["9"] * 4), "," * 3, "0.1,0.2,0.3,0.4"]
    (tmp_path / "metrics.csv").write_text("\n".join(lines))
    assert list(comparison.errors_of(tmp_path).values()) == [0.1, 0.2, 0.3, 0.4]
