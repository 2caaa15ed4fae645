"""Fixtures of the tests that run studies with the real commands."""

from __future__ import annotations

import pytest

from tests.support import slurm, studies
from tests.support.shared import shared


@pytest.fixture(scope="session")
def cluster(tmp_path_factory):
    """Variables with which SLURM's commands find a cluster of one node."""
    if not slurm.available():
        pytest.skip("needs root and apt-get install slurm-wlm munge")
    with slurm.cluster(tmp_path_factory.mktemp("slurm")) as variables:
        yield variables


@pytest.fixture(scope="session")
def undisturbed(tmp_path_factory):
    """A study of two variants that ran without an interruption, and its output."""

    def make(folder):
        studies.study_file(folder)
        done = studies.run(folder, "study.yaml")
        assert done.returncode == 0, done.stdout + done.stderr
        (folder / "stdout").write_text(done.stdout)

    folder = shared(tmp_path_factory, "undisturbed", make)
    return folder, (folder / "stdout").read_text()
