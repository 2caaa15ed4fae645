"""The documentation builds without a warning; ``make docs`` also runs the tutorial."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT

NEEDED = ("benchmarks", "configs", "nequip_decorr", "CHANGELOG.md", "CONTRIBUTING.md")


@pytest.mark.slow
def test_the_site_builds(tmp_path: Path) -> None:
    generated = shutil.ignore_patterns("_build", "_generated")
    shutil.copytree(ROOT / "docs", tmp_path / "docs", ignore=generated)
    for name in NEEDED:
        (tmp_path / name).symlink_to(ROOT / name)
    options = {
        "nb_execution_mode": "off",
        # of code cells that no kernel has said the language of
        "suppress_warnings": "misc.highlighting_failure",
    }
    done = subprocess.run(
        [
            *(
                sys.executable,
                "-m",
                "sphinx",
                "--fail-on-warning",
                "--keep-going",
                "-q",
            ),
            *(part for name in options for part in ("-D", f"{name}={options[name]}")),
            *("-b", "html", tmp_path / "docs", tmp_path / "html"),
        ],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    written = (tmp_path / "html" / "evidence.html").read_text(encoding="utf-8")
    assert "HfO1.12, 1200 K" in written
