"""Settings of a vasprun.xml that change what its steps are."""

import pytest

from nequip_decorr import UserError
from tests.md.trajectories.test_formats import judge
from tests.support import trajectories as made


def test_the_time_step_is_that_of_the_file(tmp_path):
    frames = made.script(made.oxide(), 6)
    path = made.write_vasprun(tmp_path / "vasprun.xml", frames, potim=2.0)
    found = judge(path, protocol=made.slow(), without={"timestep_fs"})
    assert (found.timestep_fs, found.replicas[0].time_ps) == (2.0, 0.01)
    with pytest.raises(UserError, match="got 1 fs and 2 fs"):
        judge(path)


@pytest.mark.parametrize("every", [1, 10])
def test_a_force_field_that_writes_every_so_many_steps(tmp_path, every):
    """By its version VASP heeds ML_OUTBLOCK here or not, so it is asked."""
    path = made.write_vasprun(tmp_path / "vasprun.xml", made.script(made.oxide(), 6))
    tag = f'<i type="int" name="ML_OUTBLOCK"> {every}</i></incar>'
    path.write_text(path.read_text().replace("</incar>", tag))
    if every == 1:
        (replica,) = judge(path, protocol=made.slow()).replicas
        assert replica.time_ps == 0.005
        return
    with pytest.raises(UserError, match="--frame-interval-steps N"):
        judge(path)
    # frames that are ten steps apart are not tested for leaps of one step
    (replica,) = judge(path, interval_steps=10).replicas
    assert (replica.first, replica.time_ps) == (None, 0.05)
