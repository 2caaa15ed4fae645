"""Runs of argon, with a potential that LAMMPS has in place of NequIP's."""

import pytest

from nequip_decorr.md.lammps.model import LammpsModel
from nequip_decorr.md.lammps.write import write_runs
from tests.support import lammps_runs


@pytest.fixture
def write(tmp_path):
    """Write runs of argon, and put a potential that LAMMPS has into them."""

    def written(atoms, protocol, pair_style=lammps_runs.LENNARD_JONES):
        (tmp_path / "model").write_text("")
        model = LammpsModel(tmp_path / "model", "allegro", {"Ar": "Ar"}, 8.5)
        folders = write_runs(model, [atoms], protocol, tmp_path / "runs")
        for folder in folders:
            lammps_runs.use_pair_style(folder, pair_style)
        return folders

    return written
